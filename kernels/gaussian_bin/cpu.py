"""Numba path of the tile lists: count, then fill in depth order. No sort of entries is needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.jit import Array, compiled, inlined
from kernels.splats import SLACK

F = np.float32
ZERO, ONE, HALF, EDGE = F(0), F(1), F(0.5), F(1e-3)


def depth_order(depths: Array, extents: Array) -> Array:
    """Numbers of the visible splats of one frame, nearest first; equal depths keep their order."""
    seen = np.flatnonzero((extents[:, 0] > 0) & (extents[:, 1] > 0)).astype(np.uint64)
    keys = (depths[seen].view(np.uint32).astype(np.uint64) << np.uint64(32)) | seen  # depths are positive: bits sort alike
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)


@inlined
def _span(centre: Any, extent: Any, tile: int, count: int) -> tuple[int, int]:
    """First tile, and the one after the last, whose pixel centres the box may touch along one axis."""
    size = F(count * tile)
    low = min(max(centre - extent - EDGE, ZERO), size)
    high = min(max(centre + extent + EDGE, -ONE), size - ONE)
    first = (count * tile - int(size - low)) // tile  # rounds up, then down to the tile
    return first, max(first, (int(high + ONE) - 1 + tile) // tile)


@inlined
def _touches(x: Any, y: Any, a: Any, b: Any, c: Any, limit: Any, x0: Any, y0: Any, x1: Any, y1: Any) -> bool:
    """Whether the ellipse of half squared distance `limit` reaches the box.

    The nearest point of a box lies on an edge that faces the centre; both candidates are points of the box.
    """
    nx = min(max(x, x0), x1) - x
    ny = min(max(y, y0), y1) - y
    dy = min(max(-b * nx / c, y0 - y), y1 - y)
    dx = min(max(-b * ny / a, x0 - x), x1 - x)
    one = HALF * (a * nx * nx + c * dy * dy) + b * nx * dy
    two = HALF * (a * dx * dx + c * ny * ny) + b * dx * ny
    return min(one, two) <= limit


@compiled
def find_tiles(
    means: Array,
    conics: Array,
    extents: Array,
    opacities: Array,
    height: int,
    width: int,
    tile: int,
    boxes: Array,
    hits: Array,
    counts: Array,
) -> None:
    """For each splat of a frame its box of tiles [N, 4] and which of the first 64 tiles in it are hit; counts by tile."""
    rows, columns = -(-height // tile), -(-width // tile)
    for n in range(means.shape[0]):
        boxes[n, 0] = boxes[n, 1] = boxes[n, 2] = boxes[n, 3] = 0
        if not (extents[n, 0] > ZERO and extents[n, 1] > ZERO):
            continue
        x, y = means[n, 0], means[n, 1]
        c0, c1 = _span(x, extents[n, 0], tile, columns)
        r0, r1 = _span(y, extents[n, 1], tile, rows)
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = c0, c1, r0, r1
        limit = F(math.log(255.0 * opacities[n]) * (1 + SLACK) + SLACK)
        found, bit = np.uint64(0), np.uint64(1)
        for r in range(r0, r1):
            y0, y1 = F(r * tile), F(min((r + 1) * tile, height) - 1)
            for q in range(c0, c1):
                x0, x1 = F(q * tile), F(min((q + 1) * tile, width) - 1)
                if _touches(x, y, conics[n, 0], conics[n, 1], conics[n, 2], limit, x0, y0, x1, y1):
                    counts[r * columns + q] += 1
                    found |= bit
                bit <<= np.uint64(1)  # runs out after 64 tiles; fill_tiles then asks again
        hits[n] = found


@compiled
def fill_tiles(
    order: Array,
    means: Array,
    conics: Array,
    opacities: Array,
    height: int,
    width: int,
    tile: int,
    boxes: Array,
    hits: Array,
    ends: Array,
    entries: Array,
) -> None:
    """Write the entries of one frame, nearest splat first, where `ends` says, and step it on."""
    columns = -(-width // tile)
    for i in range(order.shape[0]):
        n = np.int64(order[i])
        c0, c1, r0, r1 = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        many = (c1 - c0) * (r1 - r0) > 64
        limit = F(math.log(255.0 * opacities[n]) * (1 + SLACK) + SLACK) if many else ZERO
        found = hits[n]
        for r in range(r0, r1):
            for q in range(c0, c1):
                hit = (found & np.uint64(1)) != 0
                found >>= np.uint64(1)
                if many:
                    y0, y1 = F(r * tile), F(min((r + 1) * tile, height) - 1)
                    x0, x1 = F(q * tile), F(min((q + 1) * tile, width) - 1)
                    a, b, c = conics[n, 0], conics[n, 1], conics[n, 2]
                    hit = _touches(means[n, 0], means[n, 1], a, b, c, limit, x0, y0, x1, y1)
                if hit:
                    t = r * columns + q
                    if ends[t] < entries.shape[0]:
                        entries[ends[t]] = n
                    ends[t] += 1
