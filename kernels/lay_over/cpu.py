"""Numba path: one pass over the pixels instead of a dozen arrays."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@njit(cache=True, error_model="numpy")  # without Python's check for a division by zero
def lay_over_pixels(
    moved: Floats, picture: Floats, alpha: Floats, share: Floats, shift: Floats, rgb: NDArray[np.uint8], total: Floats
) -> None:
    """Write `rgb` and `total`."""
    height, width = alpha.shape
    one, half, top = np.float32(1), np.float32(0.5), np.float32(255)
    for y in range(height):
        down = np.float32(y) / np.float32(height) - half
        for x in range(width):
            across = np.float32(x) / np.float32(width) - half
            a = alpha[y, x]
            whole = one - (one - a) * (one - share[y, x])
            mine = a / max(whole, np.float32(1e-6))
            total[y, x] = whole
            for c in range(3):
                matched = picture[y, x, c] + shift[0, c] + across * shift[1, c] + down * shift[2, c]
                value = moved[y, x, c] + mine * (matched - moved[y, x, c])
                rgb[y, x, c] = np.uint8(min(max(value, np.float32(0)), top) + half)
