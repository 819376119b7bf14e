"""What rooms, microphones, codecs and other voices do to speech, imitated on its mel power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployments.audio.features import BANDS

Power = NDArray[np.float32]
_CENTRES = np.arange(BANDS)


def _smooth_curve(generator: np.random.Generator, decibels: float, knots: int = 6) -> Power:
    values = generator.uniform(-decibels, decibels, knots)
    return np.asarray(10 ** (np.interp(_CENTRES, np.linspace(0, BANDS - 1, knots), values) / 10), np.float32)


def _warp(power: Power, generator: np.random.Generator) -> Power:
    """Stretch the band axis by up to 8 %: longer and shorter vocal tracts."""
    place = np.clip(_CENTRES * generator.uniform(0.92, 1.08) + generator.uniform(-1, 1), 0, BANDS - 1.001)
    low = place.astype(int)
    share = (place - low).astype(np.float32)
    return power[:, low] * (1 - share) + power[:, low + 1] * share


def _reverberate(power: Power, generator: np.random.Generator) -> Power:
    decay = float(np.exp(-1 / generator.uniform(3, 20)))
    tail = np.empty_like(power)
    state = power[0]
    for k in range(len(power)):
        state = decay * state + (1 - decay) * power[k]
        tail[k] = state
    return power + float(generator.uniform(0.05, 0.6)) * tail


def _add(power: Power, other: Power, generator: np.random.Generator, low_db: float, high_db: float) -> Power:
    """`power` with `other` under it at a random signal-to-noise ratio."""
    ratio = 10 ** (-generator.uniform(low_db, high_db) / 10)
    return power + other * (power.mean() / max(float(other.mean()), 1e-12) * ratio)


def augment(power: Power, babble: Power, generator: np.random.Generator) -> Power:
    """A spoiled copy of mel power [F, 80]; `babble` [F, 80] is somebody else's speech."""
    power = _warp(power, generator) * _smooth_curve(generator, 10)
    if generator.random() < 0.5:
        power = _reverberate(power, generator)
    if generator.random() < 0.3:
        gain = np.interp(np.arange(len(power)), np.linspace(0, len(power) - 1, 5), generator.uniform(-6, 6, 5))
        power = power * (10 ** (gain / 10)).astype(np.float32)[:, None]
    if generator.random() < 0.25:
        power = _add(power, babble, generator, 8, 25)
    if generator.random() < 0.8:
        noise = generator.exponential(1, power.shape).astype(np.float32) * _smooth_curve(generator, 15)
        power = _add(power, noise, generator, 5, 35)
    if generator.random() < 0.3:
        power = power * np.where(_CENTRES > generator.integers(40, BANDS), 1e-4, 1).astype(np.float32)
    return power
