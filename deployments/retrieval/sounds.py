"""How the remembered mouths sounded: of mouths of one shape, the one that sounded alike has tongue and teeth where they belong.

A sound is what the speech net takes it for at a frame and at both frames beside it: square roots of the shares of 25
articulatory classes, so that distances are Hellinger's, 0 for the same sound to sqrt(2) for sounds that have nothing in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Motion, Speech, Track
from deployments.errors import WeightsError

FILE, EXTRA = "sounds.safetensors", "sounds"
BESIDE = 0.04  # seconds before and after a frame at which it is heard, too
FEWEST = 0.1  # seconds
WIDTH = 75  # numbers of a sound: 3 moments of 25 classes
FAINT = 1e-4  # of full scale: as good as no sound

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sounds:
    """What is wanted to be heard and what was, as `sounds_at` tells it."""

    wanted: Floats  # [T, D]
    remembered: Floats  # [F, D]

    def distances(self, part: slice) -> Floats:
        """Between the sounds of wanted frames `part` and those of all remembered ones [t, F]."""
        here = self.wanted[part]
        square = (here**2).sum(1)[:, None] + (self.remembered**2).sum(1)[None] - 2 * here @ self.remembered.T
        return np.sqrt(np.maximum(square, 0)).astype(np.float32)


def sounds_at(samples: Floats, times: NDArray[np.float64]) -> Floats:
    """Sounds [T, 75] of mono 16 kHz samples at times [T] in seconds."""
    from deployments.motion.head import step_times  # these bring torch
    from deployments.motion.phoneme_net import speech_features

    _, shares = speech_features(samples)
    steps = step_times(len(shares))
    parts = [np.stack([np.interp(times + shift, steps, share) for share in shares.T], 1) for shift in (-BESIDE, 0.0, BESIDE)]
    return np.sqrt(np.concatenate(parts, 1) / len(parts)).astype(np.float32)


def heard_times(clip: Clip, track: Track, coefficients: Floats) -> tuple[Floats, NDArray[np.float64]] | None:
    """A template's own sound [N] at 16 kHz and when in it each frame [T] is heard; None without sound.

    Sound that was recorded early or late is moved to its lips, `coefficients` [T, 8].
    """
    from deployments.motion.dubbing import template_sound
    from deployments.motion.template import measure_template

    sound = template_sound(clip)
    if sound is None or len(sound) < FEWEST * 16000 or np.abs(sound).max() < FAINT:
        return None
    offset = measure_template(coefficients, track.usable, clip.times(), sound).offset.seconds
    return sound, clip.times() - offset


def new_sounds(speech: Speech, times: NDArray[np.float64]) -> dict[str, Floats]:
    """What a motion carries (`Motion.extra`) of new speech at frame times [T]. Raises SpeechError."""
    from deployments.audio.features import speech_at_16k

    return {EXTRA: sounds_at(speech_at_16k(speech), np.asarray(times, np.float64))}


def save_sounds(sounds: Floats, folder: Path) -> None:
    """Write how the mouths of the bank in `folder` sounded [F, D]."""
    from safetensors.numpy import save

    from deployments.records import write_atomic

    write_atomic(folder / FILE, save({"sounds": np.ascontiguousarray(sounds)}))


def load_sounds(folder: Path, count: int) -> Floats | None:
    """Read them, of `count` mouths; None where nothing was heard. Raises WeightsError."""
    from deployments.weights import AGAIN, load_tensors

    if not (folder / FILE).is_file():
        return None
    sounds = np.asarray(load_tensors(folder / FILE, "sounds")["sounds"])
    if sounds.shape != (count, WIDTH) or not np.isfinite(sounds).all():
        raise WeightsError(f"{folder / FILE}: expected {count} x {WIDTH} finite numbers, got {sounds.shape}; {AGAIN}")
    return sounds.astype(np.float32)


def sounds_of(motion: Motion, kept: NDArray[np.int64], remembered: Floats | None) -> Sounds | None:
    """The sounds of a motion's frames `kept` beside the remembered ones; None where one of the two is not known."""
    wanted = motion.extra.get(EXTRA)
    return None if wanted is None or remembered is None else Sounds(wanted[kept], remembered)
