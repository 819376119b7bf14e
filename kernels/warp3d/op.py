"""Registers the 3-D warp with torch: CPU is numba, CUDA is Triton, shapes are known without running either."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.threads import cut, run_spans

SPAN = 4096  # places a thread; below it starting a thread costs more than it saves


@torch.library.custom_op("lipsync::warp3d", mutates_args=(), device_types="cpu")
def warp3d(volume: Tensor, grid: Tensor) -> Tensor:
    """Volume [B or 1, D, H, W, C] at grid [B or 1, d, h, w, 3] -> [B, d, h, w, C]."""
    from kernels.warp3d.cpu import warp_rows

    out = _warp_fake(volume, grid)
    sources, places, results = (tensor.detach().numpy() for tensor in (volume, grid, out))

    def work(_: int, first: int, last: int) -> None:
        for b in range(len(results)):
            source, place = sources[b % len(sources)], places[b % len(places)].reshape(-1, 3)
            warp_rows(source, place, results[b].reshape(-1, results.shape[-1]), first, last)

    run_spans(work, cut(grid[0].numel() // 3, SPAN))
    return out


@warp3d.register_kernel("cuda")
def _warp_cuda(volume: Tensor, grid: Tensor) -> Tensor:
    from kernels.warp3d.gpu import launch_warp

    return launch_warp(volume, grid)


@warp3d.register_fake
def _warp_fake(volume: Tensor, grid: Tensor) -> Tensor:
    return volume.new_empty((max(volume.shape[0], grid.shape[0]), *grid.shape[1:4], volume.shape[-1]))
