"""Small natural head motion: band-limited noise, at rest at both ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

LOW_HZ, HIGH_HZ = 0.2, 1.0
YAW, PITCH, ROLL = 2.2, 1.5, 0.9  # degrees, about two standard deviations
SHIFT = 0.012  # eye distances
NOD = 1.1  # degrees downwards on a loud syllable
EASE_SECONDS = 0.6


def head_moves(
    frames: int, fps: float, seed: int, strength: float, loudness: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotations [T, 3, 3] and translations [T, 3] in eye distances; identity at both ends.

    `loudness` [T] in 0..1 adds slight nods.
    """
    generator = np.random.default_rng([seed, 1])
    noise = np.stack([band_noise(frames, fps, generator) for _ in range(5)], axis=1)
    nod = smooth(loudness, fps, 0.18) - smooth(loudness, fps, 0.7)
    angles = noise[:, :3] * [PITCH / 2, YAW / 2, ROLL / 2]
    angles[:, 0] -= NOD * nod
    ends = ease(frames, fps)[:, None] * strength
    rotations = Rotation.from_euler("xyz", angles * ends, degrees=True).as_matrix()
    shift = np.concatenate([noise[:, 3:] * SHIFT / 2, np.zeros((frames, 1))], axis=1) * ends
    return rotations, shift


def band_noise(frames: int, fps: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise [T] of unit deviation between `LOW_HZ` and `HIGH_HZ`, weaker towards the fast end."""
    size = max(frames, int(20 * fps))
    frequency = np.fft.rfftfreq(size, 1 / fps)
    gain = np.where((frequency >= LOW_HZ) & (frequency <= HIGH_HZ), LOW_HZ / np.maximum(frequency, LOW_HZ), 0.0)
    phase = generator.standard_normal(len(frequency)) + 1j * generator.standard_normal(len(frequency))
    wave = np.fft.irfft(gain * phase, size)
    return np.asarray(wave[:frames] / wave.std(), np.float64)


def smooth(values: NDArray[np.float64], fps: float, seconds: float) -> NDArray[np.float64]:
    """Gaussian smoothing with the deviation in seconds."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(values, seconds * fps, mode="nearest"), np.float64)


def ease(frames: int, fps: float) -> NDArray[np.float64]:
    """Weights [T]: 0 at the first and the last frame, 1 between."""
    from_end = np.minimum(np.arange(frames), np.arange(frames)[::-1]) / (EASE_SECONDS * fps)
    t = np.clip(from_end, 0.0, 1.0)
    return t * t * (3 - 2 * t)
