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
        ax, ay = float(corners[triangles[m, 0], 0]), float(corners[triangles[m, 0], 1])
        bx, by = float(corners[triangles[m, 1], 0]), float(corners[triangles[m, 1], 1])
        cx, cy = float(corners[triangles[m, 2], 0]), float(corners[triangles[m, 2], 1])
        area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        if abs(area) < 1e-8:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - EDGE_TOLERANCE)))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) + EDGE_TOLERANCE)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - EDGE_TOLERANCE)))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) + EDGE_TOLERANCE)))
        ux, uy, vx, vy = (by - cy) / area, (cx - bx) / area, (cy - ay) / area, (ax - cx) / area
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                u = ux * (x - cx) + uy * (y - cy)
                v = vx * (x - cx) + vy * (y - cy)
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
    table = corner_table(triangles, corners, fill)
    out = np.empty((height, width, channels), np.float32)
    if channels == 2:  # what most calls want: with the loop over channels it takes three times as long
        for y in range(height):
            for x in range(width):
                row = np.uint32(index[y, x] + 1)
                u, v = weights[y, x, 0], weights[y, x, 1]
                out[y, x, 0] = u * table[row, 0, 0] + v * table[row, 1, 0] + table[row, 2, 0]
                out[y, x, 1] = u * table[row, 0, 1] + v * table[row, 1, 1] + table[row, 2, 1]
        return out
    for y in range(height):
        for x in range(width):
            row = np.uint32(index[y, x] + 1)
            u, v = weights[y, x, 0], weights[y, x, 1]
            for k in range(channels):
                out[y, x, k] = u * table[row, 0, k] + v * table[row, 1, k] + table[row, 2, k]
    return out


@njit(cache=True)
def corner_table(triangles: NDArray[np.int32], corners: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
    """[M + 1, 3, C]: of each triangle how far the first two corners' values are from the last one's, and that one; the
    first row is what lies outside all triangles."""
    channels = corners.shape[1]
    table = np.zeros((triangles.shape[0] + 1, 3, channels), np.float32)
    for k in range(channels):
        table[0, 2, k] = fill
        for m in range(triangles.shape[0]):
            last = corners[triangles[m, 2], k]
            table[m + 1, 0, k] = corners[triangles[m, 0], k] - last
            table[m + 1, 1, k] = corners[triangles[m, 1], k] - last
            table[m + 1, 2, k] = last
    return table
