"""Fit: fill the bank, then learn the mouth. Resumable; the same seed gives the same avatar."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployments.contracts import Clip, Progress, Track
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.hearing import Heard, fit_ear, raw_features, save_ear
from deployments.engines.emo.scene import Scene, mouth_window
from deployments.motion.dubbing import track_coefficients
from deployments.records import write_atomic, write_json
from deployments.retrieval.bank import META as BANK_META
from deployments.retrieval.bank import Bank, load_bank
from deployments.retrieval.fill import fill_bank
from deployments.retrieval.sounds import heard_times, save_sounds, sounds_at
from deployments.retrieval.window import Bytes, Window, small_pictures
from deployments.weights import load_facts, map_bytes

META, SMALL = "avatar.json", "small.u8"


def fit_avatar(clip: Clip, track: Track, out: Path, config: EmoConfig, progress: Progress) -> None:
    """Learn the person of a clip into the folder `out`. Raises NoFaceError under 5 usable frames.

    A folder in which a fit was interrupted is gone on with. Too few frames, or networks that do not make unseen frames
    better, leave the avatar training-free.
    """
    out.mkdir(parents=True, exist_ok=True)
    bank = load_bank(out) if (out / BANK_META).is_file() else fill_bank(clip, track, out, config, progress)
    window = mouth_window(bank, config.window)
    small = small_pictures(bank, window)
    write_atomic(out / SMALL, small.tobytes())
    facts: dict[str, Any] = {
        "engine": "emo", "clip": clip.digest, "frames": len(bank.frames), "window": asdict(window),
        "small": list(small.shape), "hears": False, "remembered": 0.0, "share": 0.0,
    }  # fmt: skip
    heard = _listen(clip, track, bank, out, config)
    if len(bank.frames) >= config.fit.smallest:
        facts |= _learn(heard, track, Scene(bank, small, window), out, config, progress)
    write_json(out / META, facts)


def _learn(heard: Heard | None, track: Track, scene: Scene, out: Path, config: EmoConfig, progress: Progress) -> dict[str, Any]:
    from deployments.engines.emo.learn import learn  # these bring torch
    from deployments.engines.emo.lessons import Lessons

    outcome = learn(Lessons(scene, track, heard, config), out, config, progress)
    return {"hears": heard is not None, "remembered": outcome.remembered, "share": outcome.share, **outcome.facts}


def _listen(clip: Clip, track: Track, bank: Bank, out: Path, config: EmoConfig) -> Heard | None:
    """What the bank's frames say; None for a template without sound."""
    found = heard_times(clip, track, track_coefficients(track, bank.stable))
    if found is None:
        return None
    sound, times = found
    features, sounds = raw_features(sound, times[bank.frames]), sounds_at(sound, times[bank.frames])
    ear = fit_ear(features, config.denoiser.heard)
    save_ear(ear, out)
    save_sounds(sounds, out)
    return Heard(ear.told(features), sounds)


@dataclass(frozen=True)
class Learned:
    """What a fit left in an avatar's folder."""

    window: Window
    small: Bytes  # memory map
    remembered: float  # share of the memory
    share: float  # of the networks


def load_learned(folder: Path) -> Learned:
    """Read it. Raises WeightsError."""
    facts = load_facts(folder / META, "window", "small", "remembered", "share")
    small = map_bytes(folder / SMALL, facts["small"])
    return Learned(Window(**facts["window"]), small, facts["remembered"], facts["share"])
