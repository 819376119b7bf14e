"""Where a cut is heard least: the quietest moment near the border of a word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEP = 0.005  # seconds
WINDOW = 0.03
AWAY = 60.0  # dB a second: what is quieter must be worth the way
HUSH = 6.0  # dB above the quietest of the clip: all of it is silence
QUIETEST = 5  # percent


def quietest(samples: NDArray[np.float32], rate: int, low: float, high: float, near: float) -> float:
    """The moment of [N] in low..high, in seconds, that is quiet and not far from `near`."""
    count = max(1, round((high - low) / STEP))
    moments = np.linspace(low, high, count + 1)
    level = levels(samples, rate, moments)
    floor = np.percentile(levels(samples, rate, np.arange(0, len(samples) / rate, WINDOW)), QUIETEST) + HUSH
    cost = np.maximum(level, floor) + AWAY * np.abs(moments - near)
    return float(moments[int(np.argmin(cost))])


def levels(samples: NDArray[np.float32], rate: int, moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """dB of full scale in a window around each moment; what is outside the sound is silent."""
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    first, last = (np.clip(np.rint((moments + d) * rate), 0, len(samples)).astype(np.int64) for d in (-WINDOW / 2, WINDOW / 2))
    return np.asarray(10 * np.log10((sums[last] - sums[first]) / (WINDOW * rate) + 1e-10))
