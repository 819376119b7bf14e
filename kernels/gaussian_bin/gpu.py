"""Triton path of the tile lists: count, emit, sort. Nothing waits for the device and every buffer has a fixed size.

Splats are put in order of depth once per frame; entries are emitted in that order and sorted by tile with a stable
sort, so that depth never enters the long sort's keys.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.splats import SLACK, tile_grid

LOG_RANGE: tl.constexpr = tl.constexpr(math.log(255.0))
EDGE: tl.constexpr = tl.constexpr(1e-3)
SPARE: tl.constexpr = tl.constexpr(SLACK)
BLOCK = 128


@triton.jit
def _span(centre: tl.tensor, extent: tl.tensor, size: tl.tensor, count: tl.tensor, TILE: tl.constexpr) -> tuple[tl.tensor, ...]:
    """First tile and number of tiles whose pixel centres the box may touch along one axis."""
    low = tl.minimum(tl.maximum(tl.ceil(centre - extent - EDGE), 0.0), size * 1.0).to(tl.int32)
    high = tl.minimum(tl.maximum(tl.floor(centre + extent + EDGE), -1.0), size - 1.0).to(tl.int32)
    first = low // TILE
    return first, tl.maximum((high + TILE) // TILE - first, 0)


@triton.jit
def _touches(
    x: tl.tensor,
    y: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    column: tl.tensor,
    row: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    limit: tl.tensor,
    TILE: tl.constexpr,
) -> tl.tensor:
    """Whether the ellipse of half squared distance `limit` reaches the pixel centres' box of a tile.

    The nearest point of a box lies on an edge that faces the centre; both candidates are points of the box.
    """
    x0 = (column * TILE).to(tl.float32)
    y0 = (row * TILE).to(tl.float32)
    x1 = tl.minimum(x0 + (TILE - 1), width - 1.0)
    y1 = tl.minimum(y0 + (TILE - 1), height - 1.0)
    nx = tl.minimum(tl.maximum(x, x0), x1) - x
    ny = tl.minimum(tl.maximum(y, y0), y1) - y
    dy = tl.minimum(tl.maximum(-b * nx / c, y0 - y), y1 - y)
    dx = tl.minimum(tl.maximum(-b * ny / a, x0 - x), x1 - x)
    one = 0.5 * (a * nx * nx + c * dy * dy) + b * nx * dy
    two = 0.5 * (a * dx * dx + c * ny * ny) + b * dx * ny
    return tl.minimum(one, two) <= limit


@triton.jit
def walk_tiles(
    order: tl.tensor,
    means: tl.tensor,
    conics: tl.tensor,
    extents: tl.tensor,
    opacities: tl.tensor,
    ends: tl.tensor,
    counts: tl.tensor,
    keys: tl.tensor,
    entries: tl.tensor,
    splats: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    columns: tl.tensor,
    rows: tl.tensor,
    capacity: tl.tensor,
    opacity_step: tl.tensor,
    TILE: tl.constexpr,
    EMIT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A block of splats of one frame, nearest first: count the tiles of each, or write their keys and numbers."""
    rank = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame = tl.program_id(1).to(tl.int64)
    mask = rank < splats
    slot = frame * splats + rank
    n = tl.load(order + slot, mask, other=0)
    at = frame * splats + n
    x = tl.load(means + at * 2, mask, other=0.0)
    y = tl.load(means + at * 2 + 1, mask, other=0.0)
    a = tl.load(conics + at * 3, mask, other=1.0)
    b = tl.load(conics + at * 3 + 1, mask, other=0.0)
    c = tl.load(conics + at * 3 + 2, mask, other=1.0)
    ex = tl.load(extents + at * 2, mask, other=0.0)
    ey = tl.load(extents + at * 2 + 1, mask, other=0.0)
    opacity = tl.load(opacities + frame * opacity_step + n, mask, other=1.0)
    limit = (tl.log(tl.maximum(opacity, 1e-30)) + LOG_RANGE) * (1.0 + SPARE) + SPARE
    column, wide = _span(x, ex, width, columns, TILE)
    row, high = _span(y, ey, height, rows, TILE)
    total = tl.where(mask & (ex > 0.0) & (ey > 0.0), wide * high, 0)
    wide = tl.maximum(wide, 1)
    if EMIT:
        place = tl.load(ends + slot, mask, other=0) - tl.load(counts + slot, mask, other=0)
    found = tl.zeros([BLOCK], tl.int32)
    most = tl.max(total)
    k = 0
    while k < most:
        q, r = column + k % wide, row + k // wide
        hit = (k < total) & _touches(x, y, a, b, c, q, r, height, width, limit, TILE)
        if EMIT:
            fits = hit & (place + found < capacity)
            tl.store(keys + place + found, (frame * rows * columns + r * columns + q).to(tl.int32), fits)
            tl.store(entries + place + found, n.to(tl.int32), fits)
        found += hit.to(tl.int32)
        k += 1
    if not EMIT:
        tl.store(counts + slot, found, mask)


def launch_bin(
    means: Tensor,
    conics: Tensor,
    depths: Tensor,
    extents: Tensor,
    opacities: Tensor,
    height: int,
    width: int,
    tile: int,
    capacity: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `op.gaussian_bin`."""
    frames, splats = depths.shape
    rows, columns = tile_grid(height, width, tile)
    last = frames * rows * columns
    keys = torch.full((capacity,), last, dtype=torch.int32, device=means.device)
    entries = torch.zeros(capacity, dtype=torch.int32, device=means.device)
    bounds = torch.arange(last + 1, dtype=torch.int32, device=means.device)
    if frames * splats == 0:
        return entries, torch.zeros_like(bounds), torch.zeros(1, dtype=torch.int64, device=means.device)
    order = torch.sort(depths.masked_fill(extents[..., 0] <= 0, torch.inf), dim=1, stable=True).indices
    counts = torch.empty(frames * splats, dtype=torch.int32, device=means.device)
    ends = counts  # not read while counting
    step = 0 if opacities.shape[0] == 1 else splats
    grid = (triton.cdiv(splats, BLOCK), frames)
    for emit in (False, True):
        walk_tiles[grid](
            *(order, means, conics, extents, opacities, ends, counts, keys, entries),
            *(splats, height, width, columns, rows, capacity, step),
            TILE=tile, EMIT=emit, BLOCK=BLOCK,
        )  # fmt: skip
        if not emit:
            ends = torch.cumsum(counts, 0, dtype=torch.int64)
    found, places = torch.sort(keys, stable=True)
    return entries[places], torch.searchsorted(found, bounds, out_int32=True), ends[-1:].clone()
