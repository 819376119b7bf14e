"""Registers the tile lists with torch. No gradients: the lists are numbers of splats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.splats import tile_grid


@torch.library.custom_op("lipsync::gaussian_bin", mutates_args=(), device_types="cpu")
def gaussian_bin(
    means: Tensor,
    conics: Tensor,
    depths: Tensor,
    extents: Tensor,
    opacities: Tensor,
    height: int,
    width: int,
    tile: int,
    capacity: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Entries [capacity] int32, starts [B * tiles + 1] int32, needed [1] int64."""
    import numpy as np

    from kernels.gaussian_bin.cpu import depth_order, fill_tiles, find_tiles

    rows, columns = tile_grid(height, width, tile)
    frames, splats, tiles = means.shape[0], means.shape[1], rows * columns
    arrays = [t.detach().numpy() for t in (means, conics, extents, opacities)]
    entries = np.zeros(capacity, np.int32)
    ends = np.zeros(frames * tiles + 1, np.int64)  # first counts, moved by one; then where the next entry of a tile goes
    boxes, hits = np.empty((frames, splats, 4), np.int32), np.empty((frames, splats), np.uint64)
    parts: list[list[Any]] = [[array[b % array.shape[0]] for array in arrays] for b in range(frames)]
    for b, frame in enumerate(parts):
        find_tiles(*frame, height, width, tile, boxes[b], hits[b], ends[b * tiles + 1 : (b + 1) * tiles + 1])
    np.cumsum(ends, out=ends)
    starts = np.minimum(ends, capacity).astype(np.int32)
    needed = torch.from_numpy(ends[-1:].copy())
    for b, (mean, conic, extent, opacity) in enumerate(parts):
        order = depth_order(depths[b].detach().numpy(), extent)
        span = ends[b * tiles : (b + 1) * tiles]
        fill_tiles(order, mean, conic, opacity, height, width, tile, boxes[b], hits[b], span, entries)
    return torch.from_numpy(entries), torch.from_numpy(starts), needed


@gaussian_bin.register_kernel("cuda")
def _bin_cuda(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    from kernels.gaussian_bin.gpu import launch_bin

    return launch_bin(*inputs)


@gaussian_bin.register_fake
def _bin_fake(means: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    height, width, tile, capacity = rest[-4:]
    rows, columns = tile_grid(height, width, tile)
    starts = means.new_empty(means.shape[0] * rows * columns + 1, dtype=torch.int32)
    return means.new_empty(capacity, dtype=torch.int32), starts, means.new_empty(1, dtype=torch.int64)


def _no_gradient(ctx: Any, *_: Any) -> tuple[None, ...]:
    return (None,) * 9


def _nothing_to_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output)


gaussian_bin.register_autograd(_no_gradient, setup_context=_nothing_to_keep)
