"""How far a picture is off another one, along a few ways of moving it: the normal equations of one Gauss-Newton step.

The door of the operation; `reference.py` says what it means, `cpu.py` does it fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.lucas_kanade.cpu import normal_equations_pixels

__all__ = ["normal_equations"]

Floats = NDArray[np.float32]


def normal_equations(
    picture: Floats, slopes: Floats, wanted: Floats, modes: Floats, weight: Floats, delta: Floats, tolerance: float
) -> tuple[Floats, Floats]:
    """A [K, K] and b [K] of a step A x = b that brings `picture`, read at displaced places, nearer to `wanted` [h, w].

    The place that pixel (x, y) reads is (x, y) + sum over k of delta[k] modes[y, x, k], in pixels, bilinear, the border
    going on beyond itself. `picture` [h, w] and its `slopes` [h, w, 2] (along x, along y) are read there; `modes`
    [h, w, K, 2]; `weight` [h, w]; a pixel that differs by more than `tolerance` counts less, as Huber's loss has it.
    All float32, contiguous or not. Lucas, Kanade 1981; Baker, Matthews 2004, "additive". Raises ValueError for wrong
    shapes or types.
    """
    shape, count = picture.shape, len(delta)
    expected = ((slopes, (*shape, 2)), (wanted, shape), (modes, (*shape, count, 2)), (weight, shape), (delta, (count,)))
    names = ("slopes", "wanted", "modes", "weight", "delta")
    for name, (given, size) in zip(("picture", *names), ((picture, shape), *expected), strict=True):
        if given.shape != size or given.dtype != np.float32 or picture.ndim != 2:
            raise ValueError(f"{name}: expected float32 {list(size)}, got {given.dtype} {list(given.shape)}")
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected more than 0, got {tolerance}")
    left, right = np.zeros((count, count), np.float32), np.zeros(count, np.float32)
    picture, slopes, wanted = (np.ascontiguousarray(array) for array in (picture, slopes, wanted))
    modes, weight, delta = (np.ascontiguousarray(array) for array in (modes, weight, delta))
    normal_equations_pixels(picture, slopes, wanted, modes, weight, delta, np.float32(tolerance), left, right)
    return left, right
