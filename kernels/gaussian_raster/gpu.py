"""Triton path of the raster: one warp a tile, one splat at a time, pixels across the block.

Splat numbers are the same for a whole tile, so that they are loaded and prepared once for all of its pixels; the
transmittance and the colours of the tile stay in registers. `pack` writes each splat into one row, scaled so that the
alpha is a power of two of one polynomial.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.splats import ALPHA_MAX, ALPHA_MIN, STOP, tile_grid

LOG2_MIN: tl.constexpr = tl.constexpr(math.log2(ALPHA_MIN))
LOG2_MAX: tl.constexpr = tl.constexpr(math.log2(ALPHA_MAX))
LOG2_E: tl.constexpr = tl.constexpr(math.log2(math.e))
LEAST_LIGHT: tl.constexpr = tl.constexpr(STOP)
PATIENCE: tl.constexpr = tl.constexpr(32)  # splats between two looks at whether a tile is dark already


@triton.jit
def _zeros(like: tl.tensor, count: tl.constexpr) -> tuple[tl.tensor, ...]:
    out = ()
    for _ in tl.static_range(count):
        out = out + (tl.zeros_like(like),)  # type: ignore[assignment]  # a tuple that grows is fine while it unrolls
    return out


@triton.jit
def _pixels(
    tile: tl.tensor, height: tl.tensor, width: tl.tensor, columns: tl.tensor, TILE: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Rows [TILE, 1] and columns [1, TILE] of a tile, and which pixels lie inside the picture."""
    y = tile // columns * TILE + tl.arange(0, TILE)[:, None]
    x = tile % columns * TILE + tl.arange(0, TILE)[None, :]
    return y, x, (y < height) & (x < width)


@triton.jit
def _alpha(row: tl.tensor, x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Alpha [TILE, TILE], whether it may still grow, and the offsets [1, TILE], [TILE, 1]. Horner's rule along columns."""
    dx = x - tl.load(row)
    dy = y - tl.load(row + 1)
    level = dx * (dx * tl.load(row + 2)) + tl.load(row + 5)
    slope = dx * tl.load(row + 3)
    power = dy * (dy * tl.load(row + 4) + slope) + level
    return tl.where(power >= LOG2_MIN, tl.exp2(tl.minimum(power, LOG2_MAX)), 0.0), power < LOG2_MAX, dx, dy


@triton.jit
def pack(
    means: tl.tensor,
    conics: tl.tensor,
    opacities: tl.tensor,
    colours: tl.tensor,
    packed: tl.tensor,
    splats: tl.tensor,
    opacity_step: tl.tensor,
    colour_step: tl.tensor,
    C: tl.constexpr,
    ROW: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Rows of x, y, a, b, c, log2(opacity), colours. The steps are 0 where all frames share a tensor."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame = tl.program_id(1).to(tl.int64)
    mask = n < splats
    at = frame * splats + n
    row = packed + at * ROW
    opacity = tl.load(opacities + frame * opacity_step + n, mask, other=1.0)
    tl.store(row, tl.load(means + at * 2, mask), mask)
    tl.store(row + 1, tl.load(means + at * 2 + 1, mask), mask)
    tl.store(row + 2, tl.load(conics + at * 3, mask) * (-0.5 * LOG2_E), mask)
    tl.store(row + 3, tl.load(conics + at * 3 + 1, mask) * (-LOG2_E), mask)
    tl.store(row + 4, tl.load(conics + at * 3 + 2, mask) * (-0.5 * LOG2_E), mask)
    tl.store(row + 5, tl.log2(tl.maximum(opacity, 1e-30)), mask)
    for q in tl.static_range(C):
        tl.store(row + 6 + q, tl.load(colours + frame * colour_step + n * C + q, mask), mask)


@triton.jit
def raster_forward(
    packed: tl.tensor,
    background: tl.tensor,
    entries: tl.tensor,
    starts: tl.tensor,
    needed: tl.tensor,
    out: tl.tensor,
    alpha: tl.tensor,
    splats: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    columns: tl.tensor,
    tiles: tl.tensor,
    capacity: tl.tensor,
    background_step: tl.tensor,
    TILE: tl.constexpr,
    C: tl.constexpr,
    ROW: tl.constexpr,
) -> None:
    """One tile of one frame."""
    program = tl.program_id(0)
    frame = (program // tiles).to(tl.int64)
    y, x, inside = _pixels(program % tiles, height, width, columns, TILE)
    fx, fy = x.to(tl.float32), y.to(tl.float32)
    through = tl.where(inside, 1.0, 0.0)
    sums = _zeros(through, C)
    packed += frame * splats * ROW
    k = tl.load(starts + program)
    last = tl.load(starts + program + 1)
    light = 1.0
    while (k < last) & (light > LEAST_LIGHT):
        stop = tl.minimum(k + PATIENCE, last)
        for j in range(k, stop):
            row = packed + tl.load(entries + j).to(tl.int64) * ROW
            opaque, _, _, _ = _alpha(row, fx, fy)
            weight = opaque * through
            through -= weight
            added = ()
            for q in tl.static_range(C):
                added = added + (sums[q] + weight * tl.load(row + 6 + q),)  # type: ignore[assignment]
            sums = added
        k = stop
        light = tl.max(through)
    # a list that was cut must not look like a picture
    spoilt = tl.where(tl.load(needed) > capacity, float("nan"), 0.0)
    pixel = frame * height * width + y * width + x
    tl.store(alpha + pixel, 1.0 - through + spoilt, inside)
    for q in tl.static_range(C):
        behind = tl.load(background + frame * background_step + q)
        tl.store(out + pixel * C + q, sums[q] + through * behind + spoilt, inside)


@triton.jit
def _slot(index: tl.tensor, values: tl.tensor, number: tl.constexpr, value: tl.tensor) -> tl.tensor:
    return tl.where(index == number, value, values)


@triton.jit
def raster_backward(
    packed: tl.tensor,
    background: tl.tensor,
    entries: tl.tensor,
    starts: tl.tensor,
    out: tl.tensor,
    alpha: tl.tensor,
    grad_out: tl.tensor,
    grad_alpha: tl.tensor,
    grads: tl.tensor,
    splats: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    columns: tl.tensor,
    tiles: tl.tensor,
    background_step: tl.tensor,
    TILE: tl.constexpr,
    C: tl.constexpr,
    ROW: tl.constexpr,
    SLOTS: tl.constexpr,
) -> None:
    """One tile of one frame, front to back again; adds moments and colour gradients to `grads` [B, N, 6 + C].

    The gradient by alpha is T (g.c) - S / (1 - alpha), where S is the light of all splats behind, along the gradient g.
    S starts as what the whole pixel shows and loses each splat's part when it is passed.
    """
    program = tl.program_id(0)
    frame = (program // tiles).to(tl.int64)
    y, x, inside = _pixels(program % tiles, height, width, columns, TILE)
    pixel = frame * height * width + y * width + x
    solid = tl.load(alpha + pixel, inside, other=0.0)
    by_weight = tl.load(grad_alpha + pixel, inside, other=0.0)
    behind = tl.zeros_like(solid)
    slopes = ()
    for q in tl.static_range(C):
        slope = tl.load(grad_out + pixel * C + q, inside, other=0.0)
        far = tl.load(background + frame * background_step + q)
        behind += slope * (tl.load(out + pixel * C + q, inside, other=0.0) - (1.0 - solid) * far)
        by_weight -= slope * far
        slopes = slopes + (slope,)  # type: ignore[assignment]
    behind += by_weight * solid
    through = tl.where(inside, 1.0, 0.0)
    fx, fy = x.to(tl.float32), y.to(tl.float32)
    slot = tl.arange(0, SLOTS)
    packed += frame * splats * ROW
    grads += frame * splats * (6 + C)
    k = tl.load(starts + program)
    last = tl.load(starts + program + 1)
    light = 1.0
    while (k < last) & (light > LEAST_LIGHT):
        stop = tl.minimum(k + PATIENCE, last)
        for j in range(k, stop):
            at = tl.load(entries + j).to(tl.int64)
            row = packed + at * ROW
            opaque, free, dx, dy = _alpha(row, fx, fy)
            weight = opaque * through
            through -= weight
            towards = by_weight
            values = tl.zeros([SLOTS], tl.float32)
            for q in tl.static_range(C):
                towards += slopes[q] * tl.load(row + 6 + q)
                values = _slot(slot, values, 6 + q, tl.sum(weight * slopes[q]))
            part = weight * towards
            behind -= part
            slant = tl.where(free, part - behind * (opaque / (1.0 - opaque)), 0.0)
            # sums along columns first: dx is the same for a whole column
            flat = tl.sum(slant, 0)
            tilt = tl.sum(slant * dy, 0)
            bend = tl.sum(slant * (dy * dy), 0)
            across = tl.sum(dx, 0)
            values = _slot(slot, values, 0, tl.sum(flat))
            values = _slot(slot, values, 1, tl.sum(flat * across))
            values = _slot(slot, values, 2, tl.sum(tilt))
            values = _slot(slot, values, 3, tl.sum(flat * across * across))
            values = _slot(slot, values, 4, tl.sum(tilt * across))
            values = _slot(slot, values, 5, tl.sum(bend))
            tl.atomic_add(grads + at * (6 + C) + slot, values, slot < 6 + C, sem="relaxed")
        k = stop
        light = tl.max(through)


def backward_warps(channels: int) -> int:
    """One warp a tile, as long as its registers hold the gradients of all channels."""
    return 1 if channels <= 8 else 2


def _packed(means: Tensor, conics: Tensor, opacities: Tensor, colours: Tensor) -> Tensor:
    frames, splats, channels = means.shape[0], means.shape[1], colours.shape[2]
    row = -(-(6 + channels) // 16) * 16  # whole cache lines
    packed = means.new_empty(frames, splats, row)
    if packed.numel():
        steps = [0 if t.shape[0] == 1 else t.stride(0) for t in (opacities, colours)]
        grid = (triton.cdiv(splats, 128), frames)
        pack[grid](means, conics, opacities, colours, packed, splats, *steps, C=channels, ROW=row, BLOCK=128)
    return packed


def launch_raster(
    means: Tensor,
    conics: Tensor,
    extents: Tensor,
    opacities: Tensor,
    colours: Tensor,
    background: Tensor,
    entries: Tensor,
    starts: Tensor,
    needed: Tensor,
    height: int,
    width: int,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """See `op.gaussian_raster`. The extents are for the CPU; here a tile is walked as a whole."""
    frames, splats, channels = means.shape[0], means.shape[1], colours.shape[2]
    out = means.new_empty(frames, height, width, channels)
    alpha = means.new_empty(frames, height, width)
    packed = _packed(means, conics, opacities, colours)
    rows, columns = tile_grid(height, width, tile)
    step = 0 if background.shape[0] == 1 else channels
    raster_forward[(frames * rows * columns,)](
        *(packed, background, entries, starts, needed, out, alpha),
        *(splats, height, width, columns, rows * columns, entries.shape[0], step),
        TILE=tile, C=channels, ROW=packed.shape[2], num_warps=1,
    )  # fmt: skip
    return out, alpha


def launch_raster_backward(
    means: Tensor,
    conics: Tensor,
    extents: Tensor,
    opacities: Tensor,
    colours: Tensor,
    background: Tensor,
    entries: Tensor,
    starts: Tensor,
    needed: Tensor,
    out: Tensor,
    alpha: Tensor,
    grad_out: Tensor,
    grad_alpha: Tensor,
    tile: int,
) -> Tensor:
    """See `op.gaussian_raster_backward`. An overflow shows by itself: the pictures are NaN, so are the sums."""
    frames, splats, channels = means.shape[0], means.shape[1], colours.shape[2]
    height, width = alpha.shape[1:]
    overflow = torch.where(needed > entries.shape[0], torch.nan, 0.0).to(means.dtype)
    grads = overflow.expand(frames * splats * (6 + channels)).reshape(frames, splats, 6 + channels).contiguous()
    packed = _packed(means, conics, opacities, colours)
    rows, columns = tile_grid(height, width, tile)
    step = 0 if background.shape[0] == 1 else channels
    raster_backward[(frames * rows * columns,)](
        *(packed, background, entries, starts, out, alpha, grad_out, grad_alpha, grads),
        *(splats, height, width, columns, rows * columns, step),
        TILE=tile, C=channels, ROW=packed.shape[2], SLOTS=triton.next_power_of_2(6 + channels),
        num_warps=backward_warps(channels),
    )  # fmt: skip
    return grads
