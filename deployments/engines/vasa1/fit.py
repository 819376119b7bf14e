"""Fit: fill the bank, learn how the head moves, then the face decoder. Resumable; the same seed gives the same avatar."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.contracts import Clip, Progress, Track
from deployments.engines.vasa1.appearance import Trust, save_appearance
from deployments.engines.vasa1.config import Vasa1Config
from deployments.engines.vasa1.lessons import Lesson, Lessons
from deployments.engines.vasa1.manner import learn_from
from deployments.engines.vasa1.sample import SHOWN
from deployments.engines.vasa1.window import place_window
from deployments.records import write_atomic, write_json
from deployments.retrieval.bank import META as BANK_META
from deployments.retrieval.bank import Bank, load_bank
from deployments.retrieval.fill import fill_bank
from deployments.retrieval.window import Bytes, Window, small_pictures
from deployments.weights import load_facts, map_bytes

META, WEIGHTS, APPEARANCE, SMALL = "avatar.json", "decoder.safetensors", "appearance.safetensors", "small.u8"
TOPS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7)
HALVES = (0.03, 0.06, 0.1, 0.15, 0.25)
TRIED = 60  # frames on which trusts are tried


def fit_avatar(clip: Clip, track: Track, out: Path, config: Vasa1Config, progress: Progress) -> None:
    """Learn the person of a clip into the folder `out`. Raises NoFaceError under 5 usable frames.

    A folder in which a fit was interrupted is gone on with. Too few frames, or a decoder that does not make unseen
    frames better, leave the avatar training-free.
    """
    out.mkdir(parents=True, exist_ok=True)
    bank = load_bank(out) if (out / BANK_META).is_file() else fill_bank(clip, track, out, config, progress)
    window = place_window(bank, config.decoder)
    small = small_pictures(bank, window)
    write_atomic(out / SMALL, small.tobytes())
    facts: dict[str, Any] = {
        "engine": "vasa1", "clip": clip.digest, "frames": len(bank.frames), "window": asdict(window),
        "small": list(small.shape), "painted": False, "decoder": False, "trust": asdict(Trust(0.0, 1.0)),
    }  # fmt: skip
    facts |= learn_from(clip, track, out, config.manner)
    if len(bank.frames) >= config.fit.smallest:
        facts |= learn(bank, small, window, out, config, progress)
    write_json(out / META, facts)


def learn(bank: Bank, small: Bytes, window: Window, out: Path, config: Vasa1Config, progress: Progress) -> dict[str, Any]:
    """Learn how the mouth looks, then the decoder; each is kept only if it makes held-out frames better."""
    lessons = Lessons(bank, small, window, config)
    lessons.trust, gains = choose_trust(lessons, len(config.fit.exclude))
    decoder, checks = False, []
    if len(bank.frames) >= config.fit.decoder_frames:
        from deployments.engines.vasa1.training import Training  # brings torch

        training = Training(lessons, config, out)
        decoder, checks = training.run(progress), training.checks
        training.clean()
    save_appearance(lessons.everything(), out / APPEARANCE)
    painted = lessons.trust.top > 0 or decoder
    return {"painted": painted, "decoder": decoder, "trust": asdict(lessons.trust), **gains, "checks": checks}


def choose_trust(lessons: Lessons, variants: int) -> tuple[Trust, dict[str, float]]:
    """The trust that makes frames best whose look was guessed without them; and PSNR in dB without and with it.

    The error of a mix is a parabola of the share: three numbers a frame, and every trust is judged by them.
    """
    rows = lessons.train[np.unique(np.linspace(0, len(lessons.train) - 1, TRIED).astype(np.int64))]
    cases = [(int(row), variant) for row in rows for variant in range(variants)]
    gaps = np.array([lessons.gap(row, variant) for row, variant in cases], np.float32)
    errors = np.array([mix_errors(lessons.lesson(row, variant)) for row, variant in cases])

    def psnr(trust: Trust) -> float:
        m = trust.shares(gaps)
        square = (1 - m) ** 2 * errors[:, 0] + 2 * m * (1 - m) * errors[:, 1] + m**2 * errors[:, 2]
        return float((-10 * np.log10(square + 1e-10)).mean())

    trusts = [Trust(top, half) for top in TOPS for half in HALVES]
    best = max(trusts, key=psnr)
    return best, {"psnr_looked_up": round(psnr(Trust(0.0, 1.0)), 3), "psnr_mixed": round(psnr(best), 3)}


def mix_errors(lesson: Lesson) -> tuple[float, float, float]:
    """Mean square of the looked-up picture's error where it shows, its product with the painted one's, and that one's."""
    sample = lesson.sample
    looked_up = np.tensordot(sample.weights[:-1] / sample.weights[:-1].sum(), sample.pictures[:-1], 1)
    shown = sample.alpha > SHOWN
    a, b = (((picture - lesson.truth) * sample.alpha)[:, shown] for picture in (looked_up, sample.pictures[-1]))
    return float((a * a).mean()), float((a * b).mean()), float((b * b).mean())


@dataclass(frozen=True)
class Learned:
    """What a fit left in an avatar's folder."""

    window: Window
    small: Bytes  # memory map
    trust: Trust
    painted: bool  # the appearance model is of use
    decoder: bool  # and so is the decoder


def load_learned(folder: Path) -> Learned:
    """Read it. Raises WeightsError."""
    facts = load_facts(folder / META, "window", "small", "trust", "painted", "decoder")
    small = map_bytes(folder / SMALL, facts["small"])
    return Learned(Window(**facts["window"]), small, Trust(**facts["trust"]), facts["painted"], facts["decoder"])
