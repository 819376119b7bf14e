"""Blinks: when they come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLOSE, OPEN = (0.35, 0.85), (1.0, 0.7, 0.35, 0.1)  # lid closure per frame at 25 fps, going down and up
MIN_GAP, MAX_GAP = 2.0, 6.0  # seconds between blinks


def blink_curve(frames: int, fps: float, seed: int, strength: float) -> NDArray[np.float64]:
    """Lid closure [T] in 0..1; intervals of 2 to 6 s (divided by `strength`), open at both ends."""
    generator = np.random.default_rng([seed, 2])
    curve = np.zeros(frames)
    if strength <= 0:
        return curve
    shape = np.array(CLOSE + OPEN)
    at = generator.uniform(0.6, 0.5 * MAX_GAP) / strength
    while (start := int(at * fps)) + len(shape) < frames:
        curve[start : start + len(shape)] = shape
        at += generator.uniform(MIN_GAP, MAX_GAP) / strength
    return curve
