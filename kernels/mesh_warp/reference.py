"""What the mesh map means, one pixel and one triangle at a time, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def backward_map_reference(
    triangles: NDArray[np.int32], target: NDArray[np.float64], source: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float64]:
    """Map [H, W, 2]: barycentric coordinates of the pixel in its target triangle, applied to the source corners."""
    out = np.full((height, width, 2), np.nan)
    for corners in triangles:
        a, b, c = target[corners].astype(np.float64)
        basis = np.stack([a - c, b - c], axis=1)
        if abs(np.linalg.det(basis)) < 1e-8:
            continue
        inverse = np.linalg.inv(basis)
        for y in range(height):
            for x in range(width):
                u, v = inverse @ (np.array([x, y]) - c)
                if min(u, v, 1 - u - v) >= -1e-4:
                    out[y, x] = np.array([u, v, 1 - u - v]) @ source[corners]
    return out
