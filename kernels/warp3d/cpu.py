"""Numba path of the 3-D warp: a run of places, all channels of a corner at once."""

from __future__ import annotations

import numpy as np

from kernels.jit import Array, compiled_fast


@compiled_fast
def warp_rows(volume: Array, grid: Array, out: Array, first: int, last: int) -> None:
    """Fill out [N, C] from `first` to `last` with volume [D, H, W, C] at grid [N, 3]."""
    depth, height, width, channels = volume.shape
    for n in range(first, last):
        for c in range(channels):
            out[n, c] = 0.0
        x = ((grid[n, 0] + np.float32(1)) * width - np.float32(1)) / np.float32(2)
        y = ((grid[n, 1] + np.float32(1)) * height - np.float32(1)) / np.float32(2)
        z = ((grid[n, 2] + np.float32(1)) * depth - np.float32(1)) / np.float32(2)
        # false for what is not finite, too: nothing of it may become an index
        if not (-1 < x < width and -1 < y < height and -1 < z < depth):
            continue
        x0, y0, z0 = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
        fx, fy, fz = x - x0, y - y0, z - z0
        for corner in range(8):
            dx, dy, dz = corner & 1, (corner >> 1) & 1, corner >> 2
            cx, cy, cz = x0 + dx, y0 + dy, z0 + dz
            if cx < 0 or cy < 0 or cz < 0 or cx >= width or cy >= height or cz >= depth:
                continue
            weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
            for c in range(channels):
                out[n, c] += weight * volume[cz, cy, cx, c]
