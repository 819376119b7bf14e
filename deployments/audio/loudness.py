"""Loudness as people hear it: ITU-R BS.1770-4 / EBU R128, mono, with its two gates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

BLOCK_SECONDS, STEP_SECONDS = 0.4, 0.1
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS; LU below the mean of what passes the first
OFFSET = -0.691  # dB, so that a 997 Hz sine of full scale is -3.01 LUFS
# The two filters of the standard, as analogue prototypes (centre Hz, gain dB, Q), so that every sample rate is served.
SHELF = (1681.974450955533, 3.999843853973347, 0.7071752369554196)
HIGH_PASS = (38.13547087602444, 0.5003270373238773)
SHELF_POWER = 0.4996667741545416


def loudness(samples: NDArray[np.float32], rate: int) -> float:
    """Integrated loudness of [N] in LUFS; minus infinity where nothing passes the gates."""
    power = block_power(sosfilt(k_weighting(rate), samples.astype(np.float64)), rate)
    loud = power[level(power) > ABSOLUTE_GATE]
    if len(loud) == 0:
        return -math.inf
    gate = float(level(np.array([loud.mean()]))[0]) + RELATIVE_GATE
    return float(level(np.array([loud[level(loud) > gate].mean()]))[0])


def block_power(weighted: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Mean square of blocks of 400 ms, every 100 ms; sound shorter than a block is one block."""
    size, step = min(round(BLOCK_SECONDS * rate), len(weighted)), round(STEP_SECONDS * rate)
    if size == 0:
        return np.zeros(0)
    sums = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    starts = np.arange(0, len(weighted) - size + 1, step)
    return (sums[starts + size] - sums[starts]) / size


def level(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """LUFS of mean squares."""
    with np.errstate(divide="ignore"):
        return OFFSET + 10 * np.log10(power)


def k_weighting(rate: int) -> NDArray[np.float64]:
    """Second-order sections [2, 6]: a shelf for the head, a high pass for the ear."""
    centre, gain, q = SHELF
    k = math.tan(math.pi * centre / rate)
    high = 10 ** (gain / 20)
    band = high**SHELF_POWER
    a0 = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - band * k / q + k * k) / a0,
        1.0,
        2 * (k * k - 1) / a0,
        (1 - k / q + k * k) / a0,
    ]
    centre, q = HIGH_PASS
    k = math.tan(math.pi * centre / rate)
    a0 = 1 + k / q + k * k
    return np.array([shelf, [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]])
