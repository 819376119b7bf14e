"""Measure the head that the transformer gives to portraits: python -m deployments.engines.vasa1.evaluate_face --clips DIR.

Per clip, its sound moves a portrait; its own tracked head is the comparison.
    beat      largest correlation of the head's speed with loudness within 0.3 s, and the same for sound moved in time:
              its mean and its 95th percentile, which chance reaches
    speed     degrees per second, and the standard deviation of yaw, pitch and roll in degrees
    drift     means of thirds of the clip, largest difference of any face latent in its own deviation
    border    largest frame-to-frame change where two windows are mixed over the largest elsewhere
    blinks    per minute
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Speech
from deployments.engines.vasa1.config import FaceConfig, MotionConfig
from deployments.engines.vasa1.face import lids_of, smoothed
from deployments.engines.vasa1.latents import LID, LIPS, RATE, measure
from deployments.engines.vasa1.motion import load_transformer
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion
from deployments.motion.clip_data import SpokenClip, list_clips, load_clip

Doubles = NDArray[np.float64]
ANGLES = slice(8, 11)
LAGS = range(-7, 8)  # frames
Row = dict[str, float]


def evaluate_sound(sound: NDArray[np.float32], seed: int = 0) -> Row:
    """Figures of the generated face for mono sound [N] at 16 kHz."""
    config, window = FaceConfig(), MotionConfig()
    _, latents = face_motion(Speech(sound, 16000), PortraitOptions(seed=seed))
    smooth = smoothed(latents.astype(np.float64), config.smooth)
    angles = smooth[:, ANGLES] * load_transformer().latent_spread.numpy()[ANGLES]
    lids, _ = lids_of(latents[:, LID].astype(np.float64), smooth[:, LID], config)
    blinks = int(((lids[1:] >= 0.35) & (lids[:-1] < 0.35)).sum())
    return {
        **beat(angles, loudness(sound, len(latents))),
        "drift": drift(smooth[:, LIPS.stop :]),
        "border": border(smooth[:, LIPS.stop :], window),
        "blinks": blinks * 60 * RATE / len(latents),
    }


def evaluate_filmed(clip: SpokenClip) -> Row:
    """The same of the filmed head: what is known of it."""
    times = np.arange(0, len(clip.sound) / 16000, 1 / RATE)
    latents = measure(clip.landmarks[clip.usable]).latents
    angles = np.stack([np.interp(times, clip.times[clip.usable], column) for column in latents[:, ANGLES].T], axis=1)
    return beat(smoothed(angles, FaceConfig().smooth), loudness(clip.sound, len(times)))


def loudness(sound: NDArray[np.float32], frames: int) -> Doubles:
    """Log level [T] of 16 kHz sound per frame, smoothed over 60 ms."""
    edges = np.minimum(np.arange(frames + 1) * int(16000 / RATE), len(sound))
    power = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    level = np.sqrt((power[edges[1:]] - power[edges[:-1]]) * RATE / 16000)
    return smoothed(np.log(level + 1e-3 * max(float(level.max()), 1e-6))[:, None], 1.5)[:, 0]


def beat(angles: Doubles, level: Doubles) -> Row:
    """How a head's speed goes with loudness, against the same for sound moved by a second or more."""
    speed = np.degrees(np.linalg.norm(np.diff(angles, axis=0), axis=1)) * RATE
    moved = [best_correlation(np.roll(speed, shift), level) for shift in range(25, len(speed) - 25, 7)]
    deviation = np.degrees(angles.std(0))
    return {
        "beat": best_correlation(speed, level),
        "chance": float(np.mean(moved)),
        "chance 95 %": float(np.percentile(moved, 95)),
        "speed": float(speed.mean()),
        **{name: float(value) for name, value in zip(("yaw", "pitch", "roll"), deviation, strict=True)},
    }


def best_correlation(speed: Doubles, level: Doubles) -> float:
    """Largest correlation over the lags."""
    size = len(speed)
    pairs = ((speed[max(0, k) : size + min(0, k)], level[max(0, -k) : size - max(0, k)]) for k in LAGS)
    return max(float(np.corrcoef(a, b)[0, 1]) for a, b in pairs)


def drift(latents: Doubles) -> float:
    """Largest difference between the means of two thirds, in deviations of the latent [T, K]."""
    means = np.stack([part.mean(0) for part in np.array_split(latents, 3)])
    return float((np.ptp(means, axis=0) / latents.std(0)).max())


def border(latents: Doubles, config: MotionConfig) -> float:
    """Largest change where two windows are mixed over the largest elsewhere, of all latents [T, K] together.

    A latent counts by its own usual change.
    """
    steps, hop = np.diff(latents, axis=0), config.window - config.overlap
    change = np.linalg.norm(steps / steps.std(0), axis=1)
    at = np.arange(len(change))
    mixed = (at % hop < config.overlap) & (at >= hop)
    return float(change[mixed].max() / change[~mixed].max()) if mixed.any() else float("nan")


def show(name: str, rows: Sequence[Row]) -> None:
    """Means of the rows, printed."""
    print(f"{name:10}", "  ".join(f"{key} {np.nanmean([row[key] for row in rows]):.2f}" for key in rows[0]), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"), help="where tracks are kept")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = [load_clip(path, speaker, args.cache) for path, speaker in list_clips(args.clips)]
    made = [evaluate_sound(clip.sound, args.seed) for clip in clips]
    show("filmed", [evaluate_filmed(clip) for clip in clips])
    show("generated", made)
    show("longest", [max(zip(clips, made, strict=True), key=lambda pair: len(pair[0].sound))[1]])
    print(f"border at worst {np.nanmax([row['border'] for row in made]):.2f}, {len(clips)} clips")


if __name__ == "__main__":
    main()
