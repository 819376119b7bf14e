"""What one Gauss-Newton step of laying a picture on another one means, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def normal_equations_reference(
    picture: NDArray[Any],
    slopes: NDArray[Any],
    wanted: NDArray[Any],
    modes: NDArray[Any],
    weight: NDArray[Any],
    delta: NDArray[Any],
    tolerance: float,
) -> tuple[Doubles, Doubles]:
    """See the door."""
    height, width = picture.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    shift = np.einsum("hwkc,k->hwc", modes.astype(np.float64), delta)
    seen = bilinear(np.concatenate([picture[..., None], slopes], -1).astype(np.float64), x + shift[..., 0], y + shift[..., 1])
    residual = wanted - seen[..., 0]
    jacobian = np.einsum("hwc,hwkc->hwk", seen[..., 1:], modes.astype(np.float64)).reshape(height * width, -1)
    share = weight * np.minimum(1, tolerance / np.maximum(np.abs(residual), 1e-6))
    weighted = jacobian * share.reshape(-1, 1)
    return weighted.T @ jacobian, weighted.T @ residual.reshape(-1)


def bilinear(picture: Doubles, x: Doubles, y: Doubles) -> Doubles:
    """A picture [H, W, C] at places x, y [h, w]; the border goes on beyond itself."""
    height, width = picture.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, low = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    above = (1 - across) * picture[top, left] + across * picture[top, right]
    below = (1 - across) * picture[low, left] + across * picture[low, right]
    return (1 - down) * above + down * below
