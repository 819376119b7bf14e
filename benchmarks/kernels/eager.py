"""The raster in eager torch, as one would write it without a kernel: blocks of splats against all pixels of a tile."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.splats import ALPHA_MAX, ALPHA_MIN, Splats, Tiles, tile_grid

BLOCK = 32


def raster_eager(splats: Splats, opacities: Tensor, colours: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """Colours [B, H, W, C] over black and alpha [B, H, W]; gradients by autograd."""
    frames, count, size = *splats.means.shape[:2], tiles.tile
    rows, columns = tile_grid(tiles.height, tiles.width, size)
    index = torch.arange(frames * rows * columns, device=splats.means.device)
    frame, place = index // (rows * columns), index % (rows * columns)
    pixel = torch.arange(size * size, device=index.device)
    x = (place % columns * size)[:, None] + pixel % size  # [tiles, pixels]
    y = (place // columns * size)[:, None] + pixel // size
    starts, lengths = tiles.starts[:-1].long(), tiles.starts.diff().long()
    flat = [t.expand(frames, *t.shape[1:]).reshape(frames * count, -1) for t in (splats.means, splats.conics, opacities, colours)]
    through = flat[0].new_ones(len(index), size * size)
    picture = flat[0].new_zeros(len(index), size * size, colours.shape[-1])
    for first in range(0, int(lengths.max()), BLOCK):
        alive = torch.nonzero(lengths > first)[:, 0]
        step = first + torch.arange(BLOCK, device=index.device)
        inside = step < lengths[alive, None]
        entry = tiles.entries[torch.where(inside, starts[alive, None] + step, 0)].long() + frame[alive, None] * count
        mean, conic, opacity, colour = (t[entry] for t in flat)  # [alive, BLOCK, .]
        dx = x[alive, None] - mean[..., :1]
        dy = y[alive, None] - mean[..., 1:]
        power = 0.5 * (conic[..., :1] * dx * dx + conic[..., 2:] * dy * dy) + conic[..., 1:2] * dx * dy
        raw = opacity * torch.exp(-power)
        alpha = torch.where((raw >= ALPHA_MIN) & inside[..., None], raw.clamp(max=ALPHA_MAX), 0.0)
        passed = torch.cumprod(torch.cat([through[alive, None], 1 - alpha], 1), 1)  # [alive, BLOCK + 1, pixels]
        shown = torch.einsum("tkp,tkc->tpc", passed[:, :-1] * alpha, colour)
        picture = picture.index_add(0, alive, shown)
        through = through.index_copy(0, alive, passed[:, -1])
    return _untile(picture, frames, rows, columns, tiles), 1 - _untile(through[..., None], frames, rows, columns, tiles)[..., 0]


def _untile(values: Tensor, frames: int, rows: int, columns: int, tiles: Tiles) -> Tensor:
    size = tiles.tile
    grid = values.reshape(frames, rows, columns, size, size, -1).permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(frames, rows * size, columns * size, -1)[:, : tiles.height, : tiles.width]
