"""Triton path of the last step: a run of pixels of two rows; each place that is read serves the taps of both.

Of two rows a value is normalised six times a pixel instead of nine, and colours are summed over channels once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 16  # columns of a program
CHANNELS = 16  # read at a time; with twice as many of either, registers spill


@triton.jit
def decode_out_forward(
    x: tl.tensor,
    scale: tl.tensor,
    offset: tl.tensor,
    kernel: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLOURS: tl.constexpr,
    NV12: tl.constexpr,
) -> None:
    """Programs: runs of columns, pairs of rows, samples. scale and offset [B, C] normalise; kernel is [3, 3, 3, C].

    COLOURS: of NV12 the twelve numbers from RGB to Y, U and V.
    """
    sample = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) * 2
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x += sample * height * width * channels
    zero = tl.zeros((BLOCK, CHANNELS), tl.float32)
    red, green, blue = zero, zero, zero
    red_2, green_2, blue_2 = zero, zero, zero
    for first in range(0, channels, CHANNELS):
        c = first + tl.arange(0, CHANNELS)
        real = c < channels
        gain = tl.load(scale + sample * channels + c, real, other=0.0)[None, :]
        level = tl.load(offset + sample * channels + c, real, other=0.0)[None, :]
        for side in range(3):
            z = column + side - 1
            for line in tl.static_range(4):
                y = tl.zeros((BLOCK,), tl.int32) + row + line - 1  # a scalar's comparison confuses the interpreter's masks
                inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
                both = inside[:, None] & real[None, :]
                place = (y * width + z).to(tl.int64)[:, None] * channels + c[None, :]
                value = tl.load(x + place, both, other=0.0).to(tl.float32) * gain + level
                # the border is zero after the normalisation, not before
                value = tl.where(both, value / (1.0 + tl.exp(-value)), 0.0)
                if line < 3:
                    at = kernel + (line * 3 + side) * channels + c
                    red += value * tl.load(at, real, other=0.0)[None, :]
                    green += value * tl.load(at + 9 * channels, real, other=0.0)[None, :]
                    blue += value * tl.load(at + 18 * channels, real, other=0.0)[None, :]
                if line > 0:
                    at = kernel + ((line - 1) * 3 + side) * channels + c
                    red_2 += value * tl.load(at, real, other=0.0)[None, :]
                    green_2 += value * tl.load(at + 9 * channels, real, other=0.0)[None, :]
                    blue_2 += value * tl.load(at + 18 * channels, real, other=0.0)[None, :]
    r, g, b = _level(red, shift), _level(green, shift + 1), _level(blue, shift + 2)
    r_2, g_2, b_2 = _level(red_2, shift), _level(green_2, shift + 1), _level(blue_2, shift + 2)
    here = column < width
    if NV12:
        to = out + sample * (height // 2 * 3 * width)
        tl.store(to + row * width + column, _byte(_colour(r, g, b, COLOURS, 0)), here)
        tl.store(to + (row + 1) * width + column, _byte(_colour(r_2, g_2, b_2, COLOURS, 0)), here)
        r, g, b = _pair_mean(r + r_2), _pair_mean(g + g_2), _pair_mean(b + b_2)
        left = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK // 2) * 2
        to += (height + row // 2) * width + left
        tl.store(to, _byte(_colour(r, g, b, COLOURS, 1)), left < width)
        tl.store(to + 1, _byte(_colour(r, g, b, COLOURS, 2)), left < width)
    else:
        to = out + ((sample * height + row) * width + column) * 3
        _store(to, r, g, b, here)
        _store(to + width * 3, r_2, g_2, b_2, here & (row + 1 + tl.zeros((BLOCK,), tl.int32) < height))


@triton.jit
def _level(parts: tl.tensor, shift: tl.tensor) -> tl.tensor:
    """-1..1 to 0..255, not yet rounded."""
    return (tl.minimum(tl.maximum(tl.sum(parts, 1) + tl.load(shift), -1.0), 1.0) + 1.0) * 127.5


@triton.jit
def _store(to: tl.tensor, red: tl.tensor, green: tl.tensor, blue: tl.tensor, here: tl.tensor) -> None:
    tl.store(to, _byte(red), here)
    tl.store(to + 1, _byte(green), here)
    tl.store(to + 2, _byte(blue), here)


@triton.jit
def _byte(value: tl.tensor) -> tl.tensor:
    return (value + 0.5).to(tl.uint8)


@triton.jit
def _colour(red: tl.tensor, green: tl.tensor, blue: tl.tensor, COLOURS: tl.constexpr, K: tl.constexpr) -> tl.tensor:
    """Y, U or V."""
    mixed = COLOURS[4 * K] * red + COLOURS[4 * K + 1] * green + COLOURS[4 * K + 2] * blue + COLOURS[4 * K + 3]
    return tl.minimum(tl.maximum(mixed, 0.0), 255.0)


@triton.jit
def _pair_mean(both_rows: tl.tensor) -> tl.tensor:
    """Mean of 2x2 pixels from the sum of two rows."""
    return tl.sum(tl.reshape(both_rows, (both_rows.shape[0] // 2, 2)), 1) * 0.25


def launch_decode_out(x: Tensor, scale: Tensor, offset: Tensor, kernel: Tensor, shift: Tensor, nv12: Sequence[float]) -> Tensor:
    """Contiguous tensors; kernel [3, C, 3, 3] is laid out channels last here."""
    batch, height, width, channels = x.shape
    shape = (batch, height * 3 // 2, width) if nv12 else (batch, height, width, 3)
    out = torch.empty(shape, dtype=torch.uint8, device=x.device)
    taps = kernel.permute(0, 2, 3, 1).contiguous()
    programs = (triton.cdiv(width, BLOCK), triton.cdiv(height, 2), batch)
    sizes = (height, width, channels)
    decode_out_forward[programs](
        *(x, scale, offset, taps, shift, out, *sizes),
        **{"BLOCK": BLOCK, "CHANNELS": CHANNELS, "COLOURS": tuple(nv12), "NV12": bool(nv12)},
        num_warps=4,
    )
    return out
