"""Numba path of the mesh raster: each triangle walks its own bounding box."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

EDGE_TOLERANCE = 1e-4  # pixels on a shared edge belong to a triangle in spite of rounding


@njit(cache=True)
def rasterize_mesh(
    triangles: NDArray[np.int32], corners: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Triangle index [H, W] (-1 outside) and the first two barycentric weights [H, W, 2]."""
    index = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    for m in range(triangles.shape[0]):
        ax, ay = corners[triangles[m, 0], 0], corners[triangles[m, 0], 1]
        bx, by = corners[triangles[m, 1], 0], corners[triangles[m, 1], 1]
        cx, cy = corners[triangles[m, 2], 0], corners[triangles[m, 2], 1]
        area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        if abs(area) < 1e-8:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - EDGE_TOLERANCE)))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) + EDGE_TOLERANCE)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - EDGE_TOLERANCE)))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) + EDGE_TOLERANCE)))
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                u = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area
                v = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area
                if u >= -EDGE_TOLERANCE and v >= -EDGE_TOLERANCE and u + v <= 1 + EDGE_TOLERANCE:
                    index[y, x] = m
                    weights[y, x, 0] = u
                    weights[y, x, 1] = v
    return index, weights


@njit(cache=True)
def interpolate_mesh(
    triangles: NDArray[np.int32],
    index: NDArray[np.int32],
    weights: NDArray[np.float32],
    corners: NDArray[np.float32],
    fill: float,
) -> NDArray[np.float32]:
    """Corner values [V, C] at every pixel -> [H, W, C]; `fill` outside."""
    height, width = index.shape
    channels = corners.shape[1]
    out = np.full((height, width, channels), fill, np.float32)
    for y in range(height):
        for x in range(width):
            m = index[y, x]
            if m < 0:
                continue
            u, v = weights[y, x, 0], weights[y, x, 1]
            a, b, c = triangles[m, 0], triangles[m, 1], triangles[m, 2]
            for k in range(channels):
                out[y, x, k] = u * corners[a, k] + v * corners[b, k] + (1 - u - v) * corners[c, k]
    return out
