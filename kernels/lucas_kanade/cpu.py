"""Numba path: one pass over the pixels; no image of the Jacobian is ever made."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def normal_equations_pixels(
    picture: Floats,
    slopes: Floats,
    wanted: Floats,
    modes: Floats,
    weight: Floats,
    delta: Floats,
    tolerance: np.float32,
    left: Floats,
    right: Floats,
) -> None:
    """Add to `left` [K, K] and `right` [K], which are zero."""
    height, width = picture.shape
    count = len(delta)
    row = np.empty(count, np.float32)
    zero, one = np.float32(0), np.float32(1)
    for y in range(height):
        for x in range(width):
            if weight[y, x] == zero:
                continue
            px, py = np.float32(x), np.float32(y)
            for k in range(count):
                px += delta[k] * modes[y, x, k, 0]
                py += delta[k] * modes[y, x, k, 1]
            px, py = min(max(px, zero), np.float32(width - 1)), min(max(py, zero), np.float32(height - 1))
            x0, y0 = int(px), int(py)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            a, b = px - np.float32(x0), py - np.float32(y0)
            p, q, r, s = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
            residual = wanted[y, x] - (p * picture[y0, x0] + q * picture[y0, x1] + r * picture[y1, x0] + s * picture[y1, x1])
            along = p * slopes[y0, x0, 0] + q * slopes[y0, x1, 0] + r * slopes[y1, x0, 0] + s * slopes[y1, x1, 0]
            down = p * slopes[y0, x0, 1] + q * slopes[y0, x1, 1] + r * slopes[y1, x0, 1] + s * slopes[y1, x1, 1]
            share = weight[y, x] * min(one, tolerance / max(abs(residual), np.float32(1e-6)))
            for k in range(count):
                row[k] = along * modes[y, x, k, 0] + down * modes[y, x, k, 1]
            for k in range(count):
                value = share * row[k]
                right[k] += value * residual
                for j in range(k + 1):
                    left[k, j] += value * row[j]
    for k in range(count):
        for j in range(k):
            left[j, k] = left[k, j]
