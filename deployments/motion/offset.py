"""How far the mouth of a clip runs behind (+) or ahead (-) of its sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEARCH_SECONDS = 0.2
LAG_STEP = 0.01
MIN_FRAMES = 40
MIN_CORRELATION = 0.2
# A far lag has to be better by this much per second than a near one: noise alone reaches r 0.4 somewhere in +-200 ms.
FAR_PENALTY = 0.3

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AvOffset:
    """`seconds` > 0: the mouth is late. `correlation` at that lag; 0 where nothing could be measured."""

    seconds: float
    correlation: float


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson correlation of two series; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 1e-9 else 0.0


def estimate_offset(
    step_times: NDArray[np.float64],
    predicted: Floats,
    times: NDArray[np.float64],
    measured: Floats,
    weights: tuple[float, ...],
) -> AvOffset:
    """Offset of measured mouths [T, C] at `times` [T] to predictions [S, C] at `step_times` [S].

    `weights` [C] says how much each column counts. Under 40 frames, or where no lag within +-200 ms correlates by 0.2,
    the offset is 0.
    """
    if len(times) < MIN_FRAMES:
        return AvOffset(0.0, 0.0)
    lags = np.arange(-SEARCH_SECONDS, SEARCH_SECONDS + LAG_STEP / 2, LAG_STEP)
    scores = np.array([_score(step_times, predicted, times - lag, measured, weights) for lag in lags])
    judged = scores - FAR_PENALTY * np.abs(lags)
    best = int(judged.argmax())
    if scores[best] < MIN_CORRELATION:
        return AvOffset(0.0, round(float(scores[len(lags) // 2]), 3))
    shift = 0.0
    if 0 < best < len(lags) - 1:
        low, mid, high = judged[best - 1 : best + 2]
        shift = 0.5 * (low - high) / min(low - 2 * mid + high, -1e-9)
    seconds = float(np.clip(lags[best] + shift * LAG_STEP, -SEARCH_SECONDS, SEARCH_SECONDS))
    return AvOffset(round(seconds, 3), round(float(scores[best]), 3))


def _score(
    step_times: NDArray[np.float64],
    predicted: Floats,
    at: NDArray[np.float64],
    measured: Floats,
    weights: tuple[float, ...],
) -> float:
    total = 0.0
    for column, weight in enumerate(weights):
        if weight:
            total += weight * correlation(np.interp(at, step_times, predicted[:, column]), measured[:, column])
    return total / sum(weights)
