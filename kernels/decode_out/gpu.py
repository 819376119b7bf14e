"""Triton path of the last step: a run of pixels of one row, nine taps; features are normalised where they are read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 32  # pixels of a program
CHANNELS = 32  # read at a time


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
) -> None:
    """Programs: runs of a row, rows, samples. scale and offset [B, C] are the normalisation; kernel is [3, 3, 3, C]."""
    sample = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x += sample * height * width * channels
    red = tl.zeros((BLOCK,), tl.float32)
    green = tl.zeros((BLOCK,), tl.float32)
    blue = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, channels, CHANNELS):
        c = first + tl.arange(0, CHANNELS)
        real = c < channels
        a = tl.load(scale + sample * channels + c, real, other=0.0)
        b = tl.load(offset + sample * channels + c, real, other=0.0)
        for tap in range(9):
            z = column + tap % 3 - 1
            y = tl.zeros((BLOCK,), tl.int32) + row + tap // 3 - 1
            inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
            both = inside[:, None] & real[None, :]
            place = (y * width + z).to(tl.int64)[:, None] * channels + c[None, :]
            value = tl.load(x + place, both, other=0.0).to(tl.float32) * a[None, :] + b[None, :]
            # the border is zero after the normalisation, not before
            value = tl.where(both, value / (1.0 + tl.exp(-value)), 0.0)
            at = kernel + tap * channels + c
            red += tl.sum(value * tl.load(at, real, other=0.0)[None, :], 1)
            green += tl.sum(value * tl.load(at + 9 * channels, real, other=0.0)[None, :], 1)
            blue += tl.sum(value * tl.load(at + 18 * channels, real, other=0.0)[None, :], 1)
    here = column < width
    to = out + ((sample * height + row) * width + column) * 3
    tl.store(to, _byte(red + tl.load(shift)), here)
    tl.store(to + 1, _byte(green + tl.load(shift + 1)), here)
    tl.store(to + 2, _byte(blue + tl.load(shift + 2)), here)


@triton.jit
def _byte(value: tl.tensor) -> tl.tensor:
    """-1..1 to 0..255."""
    return ((tl.minimum(tl.maximum(value, -1.0), 1.0) + 1.0) * 127.5 + 0.5).to(tl.uint8)


def launch_decode_out(x: Tensor, scale: Tensor, offset: Tensor, kernel: Tensor, shift: Tensor) -> Tensor:
    """Contiguous tensors; kernel [3, C, 3, 3] is laid out channels last here."""
    batch, height, width, channels = x.shape
    out = torch.empty((batch, height, width, 3), dtype=torch.uint8, device=x.device)
    taps = kernel.permute(0, 2, 3, 1).contiguous()
    programs = (triton.cdiv(width, BLOCK), height, batch)
    decode_out_forward[programs](
        x, scale, offset, taps, shift, out, height, width, channels, BLOCK=BLOCK, CHANNELS=CHANNELS, num_warps=4
    )
    return out
