"""Triton path of the 3-D warp: a block of places, a block of channels, eight gathers that read whole runs of channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 32  # places of a program
MOST_CHANNELS = 64  # of a program; a volume with more takes several


@triton.jit
def _corner(
    volume: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    mask: tl.tensor,
    channel: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    DX: tl.constexpr,
    DY: tl.constexpr,
    DZ: tl.constexpr,
) -> tl.tensor:
    """[BLOCK, CHANNELS] of the voxel beside place (x, y, z) times its weight; zeros outside."""
    left, top, front = tl.floor(x), tl.floor(y), tl.floor(z)
    wx = x - left if DX else 1.0 - (x - left)
    wy = y - top if DY else 1.0 - (y - top)
    wz = z - front if DZ else 1.0 - (z - front)
    cx, cy, cz = left.to(tl.int32) + DX, top.to(tl.int32) + DY, front.to(tl.int32) + DZ
    inside = mask & (cx >= 0) & (cy >= 0) & (cz >= 0) & (cx < width) & (cy < height) & (cz < depth)
    start = ((cz * height + cy) * width + cx) * channels
    both = inside[:, None] & (channel < channels)[None, :]
    return (wx * wy * wz)[:, None] * tl.load(volume + start[:, None] + channel[None, :], both, other=0.0)


@triton.jit
def warp_forward(
    volume: tl.tensor,
    grid: tl.tensor,
    out: tl.tensor,
    places: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    volume_step: tl.tensor,
    grid_step: tl.tensor,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Programs: blocks of places, blocks of channels, samples. A step of 0 shares a tensor between samples."""
    sample = tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)  # [CHANNELS]
    here = place < places
    grid += sample * grid_step
    volume += sample * volume_step
    x = ((tl.load(grid + place * 3, here, other=-9.0) + 1.0) * width - 1.0) * 0.5
    y = ((tl.load(grid + place * 3 + 1, here, other=-9.0) + 1.0) * height - 1.0) * 0.5
    z = ((tl.load(grid + place * 3 + 2, here, other=-9.0) + 1.0) * depth - 1.0) * 0.5
    # false for what is not finite, too: nothing of it may become an index
    near = here & (x > -1.0) & (y > -1.0) & (z > -1.0) & (x < width) & (y < height) & (z < depth)
    x, y, z = tl.where(near, x, 0.0), tl.where(near, y, 0.0), tl.where(near, z, 0.0)
    total = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for corner in tl.static_range(8):
        total += _corner(volume, x, y, z, near, channel, depth, height, width, channels, corner % 2, corner // 2 % 2, corner // 4)
    row = (sample * places + place).to(tl.int64)
    both = here[:, None] & (channel < channels)[None, :]
    tl.store(out + row[:, None] * channels + channel[None, :], total, both)


def launch_warp(volume: Tensor, grid: Tensor) -> Tensor:
    """Warp contiguous tensors on their device."""
    batch = max(volume.shape[0], grid.shape[0])
    depth, height, width, channels = volume.shape[1:]
    places = grid[0].numel() // 3
    out = torch.empty((batch, *grid.shape[1:4], channels), dtype=volume.dtype, device=volume.device)
    block = channel_block(channels)
    steps = [tensor[0].numel() if tensor.shape[0] > 1 else 0 for tensor in (volume, grid)]
    programs = (triton.cdiv(places, BLOCK), triton.cdiv(channels, block), batch)
    sizes = (places, depth, height, width, channels)
    warp_forward[programs](volume, grid, out, *sizes, *steps, BLOCK=BLOCK, CHANNELS=block, num_warps=4)
    return out


def channel_block(channels: int) -> int:
    """Channels of a program: a power of two."""
    return min(MOST_CHANNELS, triton.next_power_of_2(channels))
