"""Triton path of the fused normalisation. A tile is rows x groups x channels of a group, so that memory is read in runs.

A large group is cut into chunks of rows: one launch sums each chunk, the next adds the sums up and applies them. A
small one is summed and applied by one program in one launch. No atomics: the same input gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # values of a tile: 16 a thread
RUN = 64  # channels of a program, together one line of the cache in 16 bits
CHUNKS = 128  # at most, of a sample
ONE_PASS = 2**16  # values of a group below which one program sums and applies; computed, not measured
WARPS = 4


@triton.jit
def _load(x: tl.tensor, row: tl.tensor, last: tl.tensor, channels: tl.tensor, channel: tl.tensor, wanted: tl.tensor) -> tl.tensor:
    """[ROWS, GROUPS, WIDTH] of x in float32 and where it is real; bfloat16 is never computed with."""
    here = (row < last)[:, None, None] & wanted
    return tl.load(x + row[:, None, None] * channels + channel, here, other=0.0).to(tl.float32), here


@triton.jit
def _sums(
    x: tl.tensor,
    shift: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    channels: tl.tensor,
    channel: tl.tensor,
    wanted: tl.tensor,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> tl.tensor:
    """Sums of x - shift and of its square per group [GROUPS]; the shift keeps a large mean from eating the variance."""
    one = tl.zeros((ROWS, GROUPS, WIDTH), tl.float32)
    two = tl.zeros((ROWS, GROUPS, WIDTH), tl.float32)
    for start in range(first, last, ROWS):
        value, here = _load(x, start + tl.arange(0, ROWS), last, channels, channel, wanted)
        value = tl.where(here, value - shift[None, :, None], 0.0)
        one += value
        two += value * value
    return tl.sum(tl.sum(one, 2), 0), tl.sum(tl.sum(two, 2), 0)


@triton.jit
def _apply(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    channels: tl.tensor,
    channel: tl.tensor,
    wanted: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    gain = rstd[None, :, None] * tl.load(weight + channel, wanted, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, wanted, other=0.0).to(tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        value, here = _load(x, row, last, channels, channel, wanted)
        y = (value - mean[None, :, None]) * gain + offset
        if SILU:
            y = y / (1.0 + tl.exp(-y))
        tl.store(out + row[:, None, None] * channels + channel, y.to(out.dtype.element_ty), here)


@triton.jit
def _moments(shift: tl.tensor, one: tl.tensor, two: tl.tensor, count: tl.tensor, eps: tl.tensor) -> tl.tensor:
    away = one / count
    variance = two / count - away * away
    return shift + away, tl.rsqrt(tl.where(variance < 0.0, 0.0, variance) + eps)  # NaN stays NaN


@triton.jit
def norm_once(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    rows: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Programs: blocks of groups, samples."""
    sample = tl.program_id(1).to(tl.int64)
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    inner = tl.arange(0, WIDTH)
    channel = (group[:, None] * width + inner[None, :])[None, :, :]
    wanted = ((group < groups)[:, None] & (inner < width)[None, :])[None, :, :]
    channels = groups * width
    x += sample * rows * channels
    shift = tl.load(x + group * width, group < groups, other=0.0).to(tl.float32)
    one, two = _sums(x, shift, 0, rows, channels, channel, wanted, ROWS, GROUPS, WIDTH)
    centre, scale = _moments(shift, one, two, rows * 1.0 * width, eps)
    tl.store(mean + sample * groups + group, centre, group < groups)
    tl.store(rstd + sample * groups + group, scale, group < groups)
    out += sample * rows * channels
    _apply(x, weight, bias, out, centre, scale, 0, rows, channels, channel, wanted, SILU, ROWS)


@triton.jit
def norm_sums(
    x: tl.tensor,
    partial: tl.tensor,
    rows: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    span: tl.tensor,
    chunks: tl.tensor,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Fill partial [B, chunks, 2, groups]. Programs: chunks of `span` rows, blocks of groups, samples."""
    chunk, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    inner = tl.arange(0, WIDTH)
    channel = (group[:, None] * width + inner[None, :])[None, :, :]
    wanted = ((group < groups)[:, None] & (inner < width)[None, :])[None, :, :]
    channels = groups * width
    x += sample * rows * channels
    shift = tl.load(x + group * width, group < groups, other=0.0).to(tl.float32)
    first = chunk * span
    last = tl.minimum(first + span, rows)
    one, two = _sums(x, shift, first, last, channels, channel, wanted, ROWS, GROUPS, WIDTH)
    partial += (sample * chunks + chunk) * 2 * groups
    tl.store(partial + group, one, group < groups)
    tl.store(partial + groups + group, two, group < groups)


@triton.jit
def norm_apply(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    partial: tl.tensor,
    out: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    rows: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    span: tl.tensor,
    chunks: tl.tensor,
    eps: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNKS: tl.constexpr,
) -> None:
    """Add up the chunks, in the same order in every program, and normalise. Programs as in `norm_sums`."""
    chunk, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    inner = tl.arange(0, WIDTH)
    channel = (group[:, None] * width + inner[None, :])[None, :, :]
    wanted = ((group < groups)[:, None] & (inner < width)[None, :])[None, :, :]
    channels = groups * width
    x += sample * rows * channels
    shift = tl.load(x + group * width, group < groups, other=0.0).to(tl.float32)
    each = tl.arange(0, CHUNKS)
    place = partial + (sample * chunks + each[:, None]) * 2 * groups + group[None, :]
    there = (each < chunks)[:, None] & (group < groups)[None, :]
    one, two = tl.sum(tl.load(place, there, other=0.0), 0), tl.sum(tl.load(place + groups, there, other=0.0), 0)
    centre, scale = _moments(shift, one, two, rows * 1.0 * width, eps)
    told = group + chunk * groups < groups  # by the first chunk only
    tl.store(mean + sample * groups + group, centre, told)
    tl.store(rstd + sample * groups + group, scale, told)
    out += sample * rows * channels
    first = chunk * span
    last = tl.minimum(first + span, rows)
    _apply(x, weight, bias, out, centre, scale, first, last, channels, channel, wanted, SILU, ROWS)


def tile_of(channels: int, groups: int) -> dict[str, int]:
    """Rows, groups and channels of a group of one tile: powers of two."""
    width = triton.next_power_of_2(channels // groups)
    together = min(triton.next_power_of_2(groups), max(1, RUN // width))
    return {"ROWS": max(1, TILE // (width * together)), "GROUPS": together, "WIDTH": width}


def chunks_of(rows: int, step: int) -> tuple[int, int]:
    """Rows of a chunk, a multiple of `step`, and number of chunks."""
    span = triton.cdiv(triton.cdiv(rows, step), CHUNKS) * step
    return span, triton.cdiv(rows, span)


def launch_forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, one_pass: int = ONE_PASS
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise contiguous x [B, N, C]; `one_pass` is there for tests that want either way on small tensors."""
    batch, rows, channels = x.shape
    width, tile = channels // groups, tile_of(channels, groups)
    blocks = triton.cdiv(groups, tile["GROUPS"])
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    mean, rstd = (torch.empty((batch, groups), dtype=torch.float32, device=x.device) for _ in range(2))
    if rows * width < one_pass:
        inputs = (x, weight, bias, out, mean, rstd, rows, groups, width, eps)
        norm_once[(blocks, batch)](*inputs, SILU=silu, **tile, num_warps=WARPS)
        return out, mean, rstd
    span, chunks = chunks_of(rows, tile["ROWS"])
    partial = torch.empty((batch, chunks, 2, groups), dtype=torch.float32, device=x.device)
    grid, sizes = (chunks, blocks, batch), (rows, groups, width, span, chunks)
    norm_sums[grid](x, partial, *sizes, **tile, num_warps=WARPS)
    many = triton.next_power_of_2(chunks)
    results = (out, mean, rstd)
    norm_apply[grid](x, weight, bias, partial, *results, *sizes, eps, SILU=silu, **tile, CHUNKS=many, num_warps=WARPS)
    return results


def launch_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of contiguous x, and of weight and bias in float32."""
    from kernels.group_norm_silu.gpu_backward import norm_backward_apply, norm_backward_sums

    batch, rows, channels = x.shape
    groups = mean.shape[1]
    width, tile = channels // groups, tile_of(channels, groups)
    span, chunks = chunks_of(rows, tile["ROWS"])
    grid = (chunks, triton.cdiv(groups, tile["GROUPS"]), batch)
    partial = torch.empty((batch, chunks, 2, channels), dtype=torch.float32, device=x.device)
    inputs, sizes = (grad, x, weight, bias, mean, rstd), (rows, groups, width, span, chunks)
    norm_backward_sums[grid](*inputs, partial, *sizes, SILU=silu, **tile, num_warps=WARPS)
    totals = partial.sum(1)  # [B, 2, C]
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    norm_backward_apply[grid](*inputs, totals, dx, *sizes, SILU=silu, **tile, num_warps=WARPS)
    dweight, dbias = totals.sum(0)
    return dx, dweight.clone(), dbias.clone()  # an operation may not return two views of one tensor
