"""Backward map of a triangle mesh: for each target pixel, where to read in the source picture.

The door of the operation; `reference.py` says what it means, `cpu.py` does it fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.mesh_warp.cpu import interpolate_mesh, rasterize_mesh

__all__ = ["MeshRaster", "backward_map", "rasterize"]


class MeshRaster:
    """Which triangle covers each pixel, and with what barycentric weights. Made once, read by many sources."""

    def __init__(self, triangles: NDArray[np.int32], index: NDArray[np.int32], weights: NDArray[np.float32]):
        self.triangles = triangles
        self.index = index  # [H, W] int32, -1 outside the mesh
        self.weights = weights  # [H, W, 2] float32, weights of the first two corners

    def values(self, corners: NDArray[np.float32], fill: float = np.nan) -> NDArray[np.float32]:
        """Interpolate corner values [V, C] float32 over the pixels -> [H, W, C]; `fill` outside the mesh."""
        if corners.ndim != 2 or corners.shape[0] <= int(self.triangles.max(initial=-1)):
            raise ValueError(f"corners must be [V, C] with V > {self.triangles.max(initial=-1)}, got {corners.shape}")
        return interpolate_mesh(self.triangles, self.index, self.weights, np.ascontiguousarray(corners, np.float32), fill)

    def window(self, rows: slice, columns: slice) -> MeshRaster:
        """The same raster, cut to a part of its pixels."""
        index, weights = self.index[rows, columns], self.weights[rows, columns]
        return MeshRaster(self.triangles, np.ascontiguousarray(index), np.ascontiguousarray(weights))


def rasterize(
    triangles: NDArray[np.int32], target: NDArray[np.float32], height: int, width: int, origin: tuple[int, int] = (0, 0)
) -> MeshRaster:
    """Rasterize triangles [M, 3] with corners `target` [V, 2] (x, y; pixel centres at integers).

    `origin` (x, y) is the frame coordinate of the raster's first pixel. Later triangles win where several overlap.
    """
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"triangles must be [M, 3], got {triangles.shape}")
    if target.ndim != 2 or target.shape[1] != 2 or not np.isfinite(target).all():
        raise ValueError(f"target must be finite [V, 2], got {target.shape}")
    corners = np.ascontiguousarray(target - np.asarray(origin, np.float32), np.float32)
    faces = np.ascontiguousarray(triangles, np.int32)
    index, weights = rasterize_mesh(faces, corners, height, width)
    return MeshRaster(faces, index, weights)


def backward_map(
    triangles: NDArray[np.int32], target: NDArray[np.float32], source: NDArray[np.float32], height: int, width: int
) -> NDArray[np.float32]:
    """Map [H, W, 2] float32 (x, y in the source) for `cv2.remap`; NaN where no triangle covers the pixel."""
    return rasterize(triangles, target, height, width).values(np.ascontiguousarray(source, np.float32))
