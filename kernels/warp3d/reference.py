"""What the 3-D warp means: torch, any float type, autograd; eight corners, one after another."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor


def warp_reference(volume: Tensor, grid: Tensor) -> Tensor:
    """Sample volume [B or 1, D, H, W, C] at grid [B or 1, d, h, w, 3] (x, y, z in -1..1) -> [B, d, h, w, C]."""
    batch = max(volume.shape[0], grid.shape[0])
    volume, grid = volume.expand(batch, *volume.shape[1:]), grid.expand(batch, *grid.shape[1:])
    depth, height, width = volume.shape[1:4]
    finite = grid.isfinite().all(-1)
    size = torch.tensor([width, height, depth], dtype=grid.dtype, device=grid.device)
    place = ((torch.where(finite[..., None], grid, -9.0) + 1) * size - 1) / 2
    low = place.floor()
    share = place - low
    sample = torch.arange(batch, device=grid.device).view(-1, 1, 1, 1)
    out = torch.zeros((*grid.shape[:4], volume.shape[-1]), dtype=volume.dtype, device=volume.device)
    for step in product((0, 1), repeat=3):
        at = low + torch.tensor(step, dtype=grid.dtype, device=grid.device)
        inside = ((at >= 0) & (at < size)).all(-1)
        x, y, z = torch.where(inside[..., None], at, 0).long().unbind(-1)
        weight = torch.stack([share[..., k] if one else 1 - share[..., k] for k, one in enumerate(step)]).prod(0)
        out = out + (weight * inside)[..., None] * volume[sample, z, y, x]
    return out
