"""The delay between sound and mouth is found where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from deployments.motion.offset import estimate_offset


def _wander(seed: int, seconds: float) -> np.ndarray:
    return gaussian_filter1d(np.random.default_rng(seed).normal(size=int(seconds * 50)), 4)


@pytest.mark.parametrize("planted", [-0.15, -0.04, 0.0, 0.07, 0.16])
@pytest.mark.parametrize("rate", [23.976, 30.0])
def test_planted_offset_is_found(planted: float, rate: float) -> None:
    steps = (np.arange(500) + 0.5) / 50
    truth = _wander(1, 10)
    times = np.arange(0.5, 9.5, 1 / rate)
    mouth = np.interp(times - planted, steps, truth) + 0.5 * truth.std() * np.random.default_rng(2).normal(size=len(times))
    found = estimate_offset(steps, truth[:, None].astype(np.float32), times, mouth[:, None].astype(np.float32), (1.0,))
    assert abs(found.seconds - planted) < 0.015
    assert found.correlation > 0.7


def test_nothing_is_claimed_of_few_frames_or_a_still_mouth() -> None:
    steps = (np.arange(500) + 0.5) / 50
    truth = _wander(1, 10)[:, None].astype(np.float32)
    few = np.arange(20) / 25
    assert estimate_offset(steps, truth, few, truth[:20], (1.0,)).seconds == 0
    times = np.arange(100) / 25
    assert estimate_offset(steps, truth, times, np.ones((100, 1), np.float32), (1.0,)).seconds == 0
