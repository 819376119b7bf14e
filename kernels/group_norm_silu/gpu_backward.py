"""Triton backward of the fused normalisation: sums per channel and chunk, then the gradient of every value.

With n = (x - mean) rstd, y = n weight + bias and d = the gradient of y:
dweight = sum d n, dbias = sum d, dx = rstd (d weight - mean(d weight) - n mean(d weight n)), means over a group.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.group_norm_silu.gpu import _load


@triton.jit
def _tile(
    grad: tl.tensor,
    x: tl.tensor,
    row: tl.tensor,
    last: tl.tensor,
    channels: tl.tensor,
    channel: tl.tensor,
    wanted: tl.tensor,
    gain: tl.tensor,
    offset: tl.tensor,
    centre: tl.tensor,
    scale: tl.tensor,
    SILU: tl.constexpr,
) -> tl.tensor:
    """Gradient of y and normalised x, both zero where nothing is, and the mask."""
    value, here = _load(x, row, last, channels, channel, wanted)
    slope, _ = _load(grad, row, last, channels, channel, wanted)
    normal = tl.where(here, (value - centre[None, :, None]) * scale[None, :, None], 0.0)
    if SILU:
        y = normal * gain + offset
        share = 1.0 / (1.0 + tl.exp(-y))
        slope = slope * share * (1.0 + y * (1.0 - share))
    return slope, normal, here


@triton.jit
def norm_backward_sums(
    grad: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    partial: tl.tensor,
    rows: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    span: tl.tensor,
    chunks: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Fill partial [B, chunks, 2, C] with sums of d n and d. Programs: chunks of rows, blocks of groups, samples."""
    chunk, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    inner = tl.arange(0, WIDTH)
    channel = group[:, None] * width + inner[None, :]
    wanted = (group < groups)[:, None] & (inner < width)[None, :]
    channels = groups * width
    gain = tl.load(weight + channel, wanted, other=0.0).to(tl.float32)[None, :, :]
    offset = tl.load(bias + channel, wanted, other=0.0).to(tl.float32)[None, :, :]
    centre = tl.load(mean + sample * groups + group, group < groups, other=0.0)
    scale = tl.load(rstd + sample * groups + group, group < groups, other=0.0)
    x += sample * rows * channels
    grad += sample * rows * channels
    first = chunk * span
    last = tl.minimum(first + span, rows)
    one = tl.zeros((ROWS, GROUPS, WIDTH), tl.float32)
    two = tl.zeros((ROWS, GROUPS, WIDTH), tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        slope, normal, _ = _tile(
            grad, x, row, last, channels, channel[None, :, :], wanted[None, :, :], gain, offset, centre, scale, SILU
        )
        one += slope * normal
        two += slope
    partial += (sample * chunks + chunk) * 2 * channels
    tl.store(partial + channel, tl.sum(one, 0), wanted)
    tl.store(partial + channels + channel, tl.sum(two, 0), wanted)


@triton.jit
def norm_backward_apply(
    grad: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    totals: tl.tensor,
    dx: tl.tensor,
    rows: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    span: tl.tensor,
    chunks: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Fill dx from totals [B, 2, C]. Programs as in `norm_backward_sums`."""
    chunk, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    inner = tl.arange(0, WIDTH)
    channel = group[:, None] * width + inner[None, :]
    wanted = (group < groups)[:, None] & (inner < width)[None, :]
    channels = groups * width
    weights = tl.load(weight + channel, wanted, other=0.0).to(tl.float32)
    gain = weights[None, :, :]
    offset = tl.load(bias + channel, wanted, other=0.0).to(tl.float32)[None, :, :]
    centre = tl.load(mean + sample * groups + group, group < groups, other=0.0)
    scale = tl.load(rstd + sample * groups + group, group < groups, other=0.0)
    totals += sample * 2 * channels
    count = rows * 1.0 * width  # a size of 1 comes as a constant, which has no .to()
    tilt = tl.sum(weights * tl.load(totals + channel, wanted, other=0.0), 1) / count
    level = tl.sum(weights * tl.load(totals + channels + channel, wanted, other=0.0), 1) / count
    x += sample * rows * channels
    grad += sample * rows * channels
    dx += sample * rows * channels
    first = chunk * span
    last = tl.minimum(first + span, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        slope, normal, here = _tile(
            grad, x, row, last, channels, channel[None, :, :], wanted[None, :, :], gain, offset, centre, scale, SILU
        )
        value = scale[None, :, None] * (slope * gain - level[None, :, None] - normal * tilt[None, :, None])
        tl.store(dx + row[:, None, None] * channels + channel[None, :, :], value.to(dx.dtype.element_ty), here)
