"""Triton path: one launch pastes the boxes of a whole batch in place.

Every program adds up the parts of `gpu_rim.py` and solves for the plane by itself: 240 numbers instead of a launch.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from kernels.paste_back.gpu_rim import frame_colour, frame_size
from kernels.paste_back.op import CHUNKS, MOMENTS
from kernels.paste_back.plan import BOX, LENGTH, TO_PATCH
from kernels.paste_back.reference import LEVEL, MIN_RING, RADIUS, RIM_STEP, SIGMA

ROWS, COLUMNS = 8, 16  # pixels of a program; of NV12 2x2 as many
_BOX, _TO_PATCH, _LENGTH = tl.constexpr(BOX), tl.constexpr(TO_PATCH), tl.constexpr(LENGTH)
_CHUNKS, _MOMENTS = tl.constexpr(CHUNKS), tl.constexpr(MOMENTS)
_STEP, _RING, _LEVEL = tl.constexpr(RIM_STEP), tl.constexpr(MIN_RING), tl.constexpr(LEVEL)
_RADIUS, _FALL = tl.constexpr(RADIUS), tl.constexpr(-1 / (2 * SIGMA**2))
_GAUSS = tl.constexpr(1 / sum(math.exp(-(k**2) / (2 * SIGMA**2)) for k in range(-RADIUS, RADIUS + 1)))


@triton.jit
def _moment(moments: tl.tensor, K: tl.constexpr) -> tl.tensor:
    return tl.sum(tl.load(moments + tl.arange(0, _CHUNKS) * _MOMENTS + K), 0)


@triton.jit
def _plane(moments: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """Offset and slopes of colour K: normal equations solved from the centre of the weights."""
    w, wx, wy = _moment(moments, 0), _moment(moments, 1), _moment(moments, 2)
    one = 1.0 / tl.maximum(w, 1e-6)
    xx = _moment(moments, 3) + _LEVEL * w - wx * wx * one
    xy = _moment(moments, 4) - wx * wy * one
    yy = _moment(moments, 5) + _LEVEL * w - wy * wy * one
    more = _moment(moments, 6 + 3 * K)
    x = _moment(moments, 7 + 3 * K) - wx * more * one
    y = _moment(moments, 8 + 3 * K) - wy * more * one
    enough = w * _STEP * _STEP >= _RING
    area = tl.where(enough, 1.0 / tl.maximum(xx * yy - xy * xy, 1e-6), 0.0)
    across, down = (yy * x - xy * y) * area, (xx * y - xy * x) * area
    return tl.where(enough, (more - wx * across - wy * down) * one, 0.0), across, down


@triton.jit
def _bell(distance: tl.tensor) -> tl.tensor:
    """Weight of the blur."""
    return tl.where(tl.abs(distance) <= _RADIUS, tl.exp(distance * distance * _FALL) * _GAUSS, 0.0)


@triton.jit
def _read(
    picture: tl.tensor, x: tl.tensor, y: tl.tensor, fx: tl.tensor, fy: tl.tensor, real: tl.tensor, tall: int, wide: int
) -> tl.tensor:
    """One colour of a patch, bilinear; the border goes on outside."""
    x1, y1 = tl.minimum(x + 1, wide - 1), tl.minimum(y + 1, tall - 1)
    upper = (1 - fx) * tl.load(picture + (y * wide + x) * 3, real, other=0.0).to(tl.float32)
    upper += fx * tl.load(picture + (y * wide + x1) * 3, real, other=0.0).to(tl.float32)
    lower = (1 - fx) * tl.load(picture + (y1 * wide + x) * 3, real, other=0.0).to(tl.float32)
    lower += fx * tl.load(picture + (y1 * wide + x1) * 3, real, other=0.0).to(tl.float32)
    return (1 - fy) * upper + fy * lower


@triton.jit
def _coarse(
    one: tl.tensor,
    two: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    fx: tl.tensor,
    fy: tl.tensor,
    real: tl.tensor,
    tall: int,
    wide: int,
) -> tl.tensor:
    """The blur of one - two (red, green, blue) between four pixels: both are one sum with weights between two bells."""
    red, green, blue = tl.zeros_like(fx), tl.zeros_like(fx), tl.zeros_like(fx)
    for row in range(2 * _RADIUS + 2):
        j = tl.minimum(tl.maximum(y + (row - _RADIUS), 0), tall - 1) * wide
        down = (row - _RADIUS) + tl.zeros_like(fx)
        gy = (1 - fy) * _bell(down) + fy * _bell(down - 1)
        for column in range(2 * _RADIUS + 2):
            across = (column - _RADIUS) + tl.zeros_like(fx)
            g = gy * ((1 - fx) * _bell(across) + fx * _bell(across - 1))
            at = (j + tl.minimum(tl.maximum(x + (column - _RADIUS), 0), wide - 1)) * 3
            red += g * (tl.load(one + at, real, other=0.0).to(tl.float32) - tl.load(two + at, real, other=0.0).to(tl.float32))
            at += 1
            green += g * (tl.load(one + at, real, other=0.0).to(tl.float32) - tl.load(two + at, real, other=0.0).to(tl.float32))
            at += 1
            blue += g * (tl.load(one + at, real, other=0.0).to(tl.float32) - tl.load(two + at, real, other=0.0).to(tl.float32))
    return red, green, blue


@triton.jit
def _look(
    patch: tl.tensor,
    mask: tl.tensor,
    texture: tl.tensor,
    plan: tl.tensor,
    shift: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    inside: tl.tensor,
    tall: int,
    wide: int,
    gain: float,
    TEXTURE: tl.constexpr,
    NV12: tl.constexpr,
) -> tl.tensor:
    """Alpha and the frame's three colours at box pixels (x, y)."""
    u = tl.load(plan + _TO_PATCH) * x + tl.load(plan + _TO_PATCH + 1) * y + tl.load(plan + _TO_PATCH + 2)
    v = tl.load(plan + _TO_PATCH + 3) * x + tl.load(plan + _TO_PATCH + 4) * y + tl.load(plan + _TO_PATCH + 5)
    inside &= (u > -1) & (v > -1) & (u < wide) & (v < tall)
    u, v = tl.where(inside, u, 0.0), tl.where(inside, v, 0.0)
    left, top = tl.floor(u).to(tl.int32), tl.floor(v).to(tl.int32)
    alpha = tl.zeros_like(u)
    for corner in tl.static_range(4):
        i, j = left + corner % 2, top + corner // 2
        real = inside & (i >= 0) & (j >= 0) & (i < wide) & (j < tall)
        alpha += (1 - tl.abs(u - i)) * (1 - tl.abs(v - j)) * tl.load(mask + j * wide + i, real, other=0.0)
    alpha = tl.minimum(tl.maximum(alpha, 0.0), 1.0)
    real = alpha > 0
    u, v = tl.minimum(tl.maximum(u, 0.0), wide - 1.0), tl.minimum(tl.maximum(v, 0.0), tall - 1.0)
    left, top = u.to(tl.int32), v.to(tl.int32)
    fx, fy = u - left, v - top
    red = _read(patch, left, top, fx, fy, real, tall, wide)
    green = _read(patch + 1, left, top, fx, fy, real, tall, wide)
    blue = _read(patch + 2, left, top, fx, fy, real, tall, wide)
    if TEXTURE:
        coarse = _coarse(patch, texture, left, top, fx, fy, real, tall, wide)
        red += gain * (coarse[0] - red + _read(texture, left, top, fx, fy, real, tall, wide))
        green += gain * (coarse[1] - green + _read(texture + 1, left, top, fx, fy, real, tall, wide))
        blue += gain * (coarse[2] - blue + _read(texture + 2, left, top, fx, fy, real, tall, wide))
    right, below = u * (1.0 / wide) - 0.5, v * (1.0 / tall) - 0.5
    one = frame_colour((red, green, blue), plan, 0, NV12) + shift[0] + right * shift[1] + below * shift[2]
    two = frame_colour((red, green, blue), plan, 1, NV12) + shift[3] + right * shift[4] + below * shift[5]
    three = frame_colour((red, green, blue), plan, 2, NV12) + shift[6] + right * shift[7] + below * shift[8]
    return alpha, _bytes(one), _bytes(two), _bytes(three)


@triton.jit
def _bytes(value: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(value, 0.0), 255.0)


@triton.jit
def _mix(place: tl.tensor, alpha: tl.tensor, colour: tl.tensor) -> None:
    """Write where something shows; everything else keeps its bytes."""
    old = tl.load(place, alpha > 0, other=0).to(tl.float32)
    tl.store(place, (old + alpha * (colour - old) + 0.5).to(tl.uint8), alpha > 0)


@triton.jit
def paste(
    frames: tl.tensor,
    patches: tl.tensor,
    mask: tl.tensor,
    texture: tl.tensor,
    plan: tl.tensor,
    moments: tl.tensor,
    height: int,
    width: int,
    tall: int,
    wide: int,
    mask_step: int,
    across: int,
    gain: float,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TEXTURE: tl.constexpr,
    MATCH: tl.constexpr,
    NV12: tl.constexpr,
) -> None:
    """Programs: tiles of a box, `across` of them in a row, and frames. Of NV12 a lane has 2x2 pixels."""
    sample = tl.program_id(1).to(tl.int64)
    plan += sample * _LENGTH
    x0, y0 = tl.load(plan + _BOX).to(tl.int32), tl.load(plan + _BOX + 1).to(tl.int32)
    x1, y1 = tl.load(plan + _BOX + 2).to(tl.int32), tl.load(plan + _BOX + 3).to(tl.int32)
    STEP: tl.constexpr = 2 if NV12 else 1
    row = (tl.program_id(0) // across * ROWS + tl.arange(0, ROWS))[:, None] * STEP + tl.zeros((ROWS, COLUMNS), tl.int32)
    column = (tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS))[None, :] * STEP + tl.zeros((ROWS, COLUMNS), tl.int32)
    inside = (column < x1 - x0) & (row < y1 - y0)
    frames += sample * height * width * 3 // (2 if NV12 else 1)
    patches += sample * tall * wide * 3
    texture += sample * tall * wide * 3
    mask += sample * mask_step
    shift = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if MATCH:
        moments += sample * _CHUNKS * _MOMENTS
        shift = _plane(moments, 0) + _plane(moments, 1) + _plane(moments, 2)
    if NV12:
        total, blue, red = tl.zeros_like(row) * 0.0, tl.zeros_like(row) * 0.0, tl.zeros_like(row) * 0.0
        for pixel in range(4):
            x, y = column + pixel % 2, row + pixel // 2
            alpha, one, two, three = _look(patches, mask, texture, plan, shift, x, y, inside, tall, wide, gain, TEXTURE, NV12)
            _mix(frames + (y0 + y) * width + x0 + x, alpha, one)
            total += alpha * 0.25
            blue += alpha * 0.25 * two
            red += alpha * 0.25 * three
        at = frames + (height + (y0 + row) // 2) * width + x0 + column
        some = tl.maximum(total, 1e-30)
        _mix(at, total, blue / some)
        _mix(at + 1, total, red / some)
    else:
        alpha, one, two, three = _look(patches, mask, texture, plan, shift, column, row, inside, tall, wide, gain, TEXTURE, NV12)
        at = frames + ((y0 + row) * width + x0 + column) * 3
        _mix(at, alpha, one)
        _mix(at + 1, alpha, two)
        _mix(at + 2, alpha, three)


def launch_paste(
    frames: Tensor,
    patches: Tensor,
    mask: Tensor,
    texture: Tensor | None,
    plan: Tensor,
    moments: Tensor | None,
    rows: int,
    columns: int,
    gain: float,
    nv12: bool,
) -> None:
    """See the registration; contiguous tensors."""
    step = 2 if nv12 else 1
    across, down = triton.cdiv(columns, COLUMNS * step), triton.cdiv(rows, ROWS * step)
    sizes = (*frame_size(frames, nv12), *patches.shape[1:3], mask[0].numel() if mask.shape[0] > 1 else 0)
    paste[(across * down, frames.shape[0])](
        *(frames, patches, mask, patches if texture is None else texture, plan, plan if moments is None else moments),
        *(*sizes, across, gain),
        **{"ROWS": ROWS, "COLUMNS": COLUMNS, "TEXTURE": texture is not None, "MATCH": moments is not None, "NV12": nv12},
        num_warps=4,
    )
