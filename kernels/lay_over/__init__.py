"""A new picture over a moved one, over the frame: two layers and a colour shift as one patch.

The door of the operation; `reference.py` says what it means, `cpu.py` does it fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.lay_over.cpu import lay_over_pixels

__all__ = ["lay_over"]

Floats = NDArray[np.float32]


def lay_over(moved: Floats, picture: Floats, alpha: Floats, share: Floats, shift: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Colours [h, w, 3] uint8 (rounded, clipped) and alpha [h, w] float32 of one layer that does what two would.

    `picture` [h, w, 3] (0..255) plus the plane `shift` [3, 3] (rows: 1, x, y from -0.5 to 0.5; columns: RGB) shows with
    `alpha` [h, w] on `moved` [h, w, 3], which shows with `share` [h, w] on the frame. All float32, contiguous or not.
    Where both are 0 the colour means nothing. Raises ValueError for wrong shapes or types.
    """
    shape = alpha.shape
    wanted = {"moved": (*shape, 3), "picture": (*shape, 3), "alpha": shape, "share": shape, "shift": (3, 3)}
    for (name, expected), given in zip(wanted.items(), (moved, picture, alpha, share, shift), strict=True):
        if given.shape != expected or given.dtype != np.float32 or alpha.ndim != 2:
            raise ValueError(f"{name}: expected float32 {list(expected)}, got {given.dtype} {list(given.shape)}")
    rgb, total = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
    moved, picture, alpha, share, shift = (np.ascontiguousarray(array) for array in (moved, picture, alpha, share, shift))
    lay_over_pixels(moved, picture, alpha, share, shift, rgb, total)
    return rgb, total
