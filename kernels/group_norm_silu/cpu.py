"""CPU path of the fused normalisation: numba forward that reads x twice and writes once, torch backward."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.jit import Array, compiled_fast, inlined, wide_vectors
from kernels.threads import cut, run_spans

BLOCK = 128  # rows that are summed in float32 before float64 takes over
SPAN = 2**16  # values a thread; below it starting a thread costs more than it saves


@inlined
def _swish(y: np.float32) -> np.float32:
    """y / (1 + exp(-y)) with a polynomial, so that lanes stay full; error below 3e-7 of exp. NaN stays NaN."""
    t = y * np.float32(-1.442695041)
    t = np.float32(126.0) if t > np.float32(126.0) else (np.float32(-126.0) if t < np.float32(-126.0) else t)
    whole = np.floor(t + np.float32(0.5))
    f = t - whole
    p = np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1.0)
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return y / (np.float32(1.0) + p * power)


@inlined
def _wide(bits: np.uint16) -> np.float32:
    """bfloat16 as float32: its bits are the upper half."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@inlined
def _narrow(value: np.float32) -> np.uint16:
    """float32 as bfloat16, rounded to nearest even; NaN stays NaN."""
    bits = np.float32(value).view(np.uint32)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded) if not np.isnan(value) else np.uint16(0x7FC0)


@compiled_fast
def sum_rows(x: Array, sums: Array, first: int, last: int) -> None:
    """Add x less its first row, and the square of that, over rows of x [N, C] to sums [3, C] (float64); the third is the row."""
    channels = x.shape[1]
    shift = x[0].copy()
    one, two = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
    for start in range(first, last, BLOCK):
        one[:] = 0
        two[:] = 0
        for n in range(start, min(start + BLOCK, last)):
            for c in range(channels):
                value = x[n, c] - shift[c]
                one[c] += value
                two[c] += value * value
        for c in range(channels):
            sums[0, c] += one[c]
            sums[1, c] += two[c]
    sums[2] = shift


@compiled_fast
def sum_rows_bf16(x: Array, sums: Array, first: int, last: int) -> None:
    """`sum_rows` of bfloat16, seen as uint16."""
    channels = x.shape[1]
    shift = np.empty(channels, np.float32)
    for c in range(channels):
        shift[c] = _wide(x[0, c])
    one, two = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
    for start in range(first, last, BLOCK):
        one[:] = 0
        two[:] = 0
        for n in range(start, min(start + BLOCK, last)):
            for c in range(channels):
                value = _wide(x[n, c]) - shift[c]
                one[c] += value
                two[c] += value * value
        for c in range(channels):
            sums[0, c] += one[c]
            sums[1, c] += two[c]
    sums[2] = shift


@compiled_fast
def find_moments(sums: Array, rows: int, eps: float, mean: Array, rstd: Array, centre: Array, scale: Array) -> None:
    """From a sample's sums [parts, 3, C]: mean and 1 / deviation [groups], and the same for every channel [C].

    The sums of a group's channels are shifted one by one, so their spread and that of their means are added up.
    """
    width = sums.shape[2] // len(mean)
    for g in range(len(mean)):
        total = spread = 0.0
        for c in range(g * width, (g + 1) * width):
            total += sums[:, 0, c].sum() / rows + sums[0, 2, c]
        middle = total / width
        for c in range(g * width, (g + 1) * width):
            away = sums[:, 0, c].sum() / rows
            spread += max(sums[:, 1, c].sum() / rows - away * away, 0.0) + (sums[0, 2, c] + away - middle) ** 2
        mean[g], rstd[g] = middle, 1 / np.sqrt(spread / width + eps)
        centre[g * width : (g + 1) * width] = mean[g]
        scale[g * width : (g + 1) * width] = rstd[g]


@compiled_fast
def apply_rows(x: Array, centre: Array, gain: Array, offset: Array, out: Array, silu: bool, first: int, last: int) -> None:
    """Write (x - centre) * gain + offset, with SiLU or without, to rows of out [N, C]."""
    wide_vectors()
    for n in range(first, last):
        if silu:
            for c in range(x.shape[1]):
                out[n, c] = _swish((x[n, c] - centre[c]) * gain[c] + offset[c])
        else:
            for c in range(x.shape[1]):
                out[n, c] = (x[n, c] - centre[c]) * gain[c] + offset[c]


@compiled_fast
def apply_rows_bf16(x: Array, centre: Array, gain: Array, offset: Array, out: Array, silu: bool, first: int, last: int) -> None:
    """`apply_rows` of bfloat16, seen as uint16."""
    wide_vectors()
    for n in range(first, last):
        if silu:
            for c in range(x.shape[1]):
                out[n, c] = _narrow(_swish((_wide(x[n, c]) - centre[c]) * gain[c] + offset[c]))
        else:
            for c in range(x.shape[1]):
                out[n, c] = _narrow((_wide(x[n, c]) - centre[c]) * gain[c] + offset[c])


def _as_array(x: Tensor) -> Array:
    array: Array = (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
    return array


def forward(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise contiguous x [B, N, C]. float16 goes through float32; numba does not know it."""
    if x.dtype == torch.float16:
        out, mean, rstd = forward(x.float(), weight, bias, groups, eps, silu)
        return out.to(x.dtype), mean, rstd
    batch, rows, channels = x.shape
    result = torch.empty_like(x)
    means, scales = np.empty((batch, groups), np.float32), np.empty((batch, groups), np.float32)
    source, target = _as_array(x.detach()), _as_array(result)
    gains, offset = (t.detach().float().numpy() for t in (weight, bias))
    centre, scale = np.empty(channels, np.float32), np.empty(channels, np.float32)
    sums_of, apply = (sum_rows_bf16, apply_rows_bf16) if x.dtype == torch.bfloat16 else (sum_rows, apply_rows)
    bounds = cut(rows, max(1, SPAN // channels))
    for b in range(batch):
        sums = np.zeros((len(bounds) - 1, 3, channels))
        rows_in, rows_out = source[b], target[b]
        run_spans(lambda number, first, last: sums_of(rows_in, sums[number], first, last), bounds)  # noqa: B023  # done before the next turn
        find_moments(sums, rows, eps, means[b], scales[b], centre, scale)
        scale *= gains
        run_spans(lambda _, first, last: apply(rows_in, centre, scale, offset, rows_out, silu, first, last), bounds)  # noqa: B023
    return result, torch.from_numpy(means), torch.from_numpy(scales)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, and of weight and bias in float32: the formulas of `gpu_backward.py` in torch."""
    batch, rows, channels = x.shape
    width = channels // mean.shape[1]
    centre, scale = (t.repeat_interleave(width, 1)[:, None] for t in (mean, rstd))
    normal = (x.float() - centre) * scale
    slope, gain = grad.float(), weight.float()
    if silu:
        y = normal * gain + bias.float()
        share = y.sigmoid()
        slope = slope * share * (1 + y * (1 - share))
    totals = torch.stack([(slope * normal).sum(1), slope.sum(1)])  # [2, B, C]
    means = (totals * gain).reshape(2, batch, -1, width).sum(-1) / (rows * width)
    tilt, level = (t.repeat_interleave(width, 1)[:, None] for t in means)
    dweight, dbias = totals.sum(1)
    return (scale * (slope * gain - level - normal * tilt)).to(x.dtype), dweight.clone(), dbias.clone()
