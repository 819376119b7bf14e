"""The fast sums equal their definition, and steps made of them find a known movement."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kernels.lucas_kanade import normal_equations
from kernels.lucas_kanade.reference import normal_equations_reference

Arrays = tuple[np.ndarray, ...]


def case(height: int, width: int, count: int) -> Arrays:
    rng = np.random.default_rng(height * 100 + width)
    picture, wanted = rng.normal(0, 30, (2, height, width)).astype(np.float32)
    slopes, modes = rng.normal(0, 5, (height, width, 2)), rng.normal(0, 1, (height, width, count, 2))
    weight = rng.choice([0.0, 0.3, 1.0], (height, width))
    return picture, slopes.astype(np.float32), wanted, modes.astype(np.float32), weight.astype(np.float32)


@pytest.mark.parametrize(("height", "width", "count"), [(1, 1, 1), (17, 33, 10), (8, 3, 4)])
def test_matches_the_reference(height: int, width: int, count: int) -> None:
    picture, slopes, wanted, modes, weight = case(height, width, count)
    delta = np.linspace(-3, 3, count).astype(np.float32)  # many places lie outside
    left, right = normal_equations(picture, slopes, wanted, modes, weight, delta, 12.0)
    there, that = normal_equations_reference(picture, slopes, wanted, modes, weight, delta, 12.0)
    np.testing.assert_allclose(left, there, rtol=1e-4, atol=1e-4 * np.abs(there).max())
    np.testing.assert_allclose(right, that, rtol=1e-4, atol=1e-4 * np.abs(that).max() + 1e-3)
    np.testing.assert_array_equal(left, left.T)


def test_what_has_no_weight_is_not_read() -> None:
    picture, slopes, wanted, modes, weight = case(9, 7, 3)
    delta = np.full(3, 0.1, np.float32)
    hidden = weight == 0
    poisoned = [np.where(hidden.reshape(hidden.shape + (1,) * (a.ndim - 2)), np.float32(np.nan), a) for a in (wanted, modes)]
    clean = normal_equations(picture, slopes, wanted, modes, weight, delta, 12.0)
    for a, b in zip(clean, normal_equations(picture, slopes, *poisoned, weight, delta, 12.0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_find_a_movement() -> None:
    rng = np.random.default_rng(3)
    field = cv2.GaussianBlur(rng.normal(0, 400, (60, 60)).astype(np.float32), (0, 0), 4)
    y, x = np.mgrid[:60, :60].astype(np.float32)
    modes = np.zeros((60, 60, 3, 2), np.float32)
    modes[..., 0, 0], modes[..., 1, 1], modes[..., 2, 0] = 1, 1, (y - 30) / 30
    moved = np.array([1.5, -0.8, 0.6], np.float32)
    way = modes.transpose(0, 1, 3, 2) @ moved
    wanted = cv2.remap(field, x + way[..., 0], y + way[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    wanted[10:14, 20:24] += 300  # something else: it must not pull
    slopes = np.stack([cv2.Sobel(field, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(field, cv2.CV_32F, 0, 1, scale=1 / 8)], -1)
    delta = np.zeros(3, np.float32)
    for _ in range(8):
        left, right = normal_equations(field, slopes, wanted, modes, np.ones((60, 60), np.float32), delta, 10.0)
        delta += np.linalg.solve(left, right)
    np.testing.assert_allclose(delta, moved, atol=0.05)


def test_the_door_refuses_wrong_shapes_and_types() -> None:
    picture, slopes, wanted, modes, weight = case(4, 5, 2)
    delta = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="modes: expected float32"):
        normal_equations(picture, slopes, wanted, modes[:, :, :1], weight, delta, 1.0)
    with pytest.raises(ValueError, match="wanted: expected float32"):
        normal_equations(picture, slopes, wanted.astype(np.float64), modes, weight, delta, 1.0)
    with pytest.raises(ValueError, match="tolerance: expected more than 0"):
        normal_equations(picture, slopes, wanted, modes, weight, delta, 0.0)
