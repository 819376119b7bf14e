"""W: a field that carries the volume of the source's pose to the wanted one, and the features that the generator is given.

Wang, Mallya, Liu 2021 (face-vid2vid): every key point says where its surroundings came from; a network mixes what they say.
Frames share one source, so that its volume is read once for all of them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.vasa1.liveportrait.config import PortraitNetsConfig
from deployments.engines.vasa1.liveportrait.layers import ConvNorm, GrowingConvNorm
from kernels.warp3d import warp

SPREAD = 0.01  # variance of the blob around a key point; the picture reaches from -1 to 1


def places(size: tuple[int, int, int], like: torch.Tensor) -> torch.Tensor:
    """Place (x, y, z) of every voxel [D, H, W, 3]: the outer voxels' middles at -1 and 1, as the checkpoint learned it."""
    axes = [torch.linspace(-1, 1, count, dtype=torch.float32, device=like.device) for count in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], -1)


def channels_last(volume: torch.Tensor) -> torch.Tensor:
    """[N, C, D, H, W] -> [N, D, H, W, C] float32, as the warp wants it."""
    return volume.permute(0, 2, 3, 4, 1).float().contiguous()


class Hourglass(nn.Module):
    """Volumes [N, I, D, H, W] down to a 32nd of height and width and up again; what came in is kept beside it."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList(ConvNorm(channels if k == 0 else a, b, flat=False) for k, (a, b) in enumerate(pairwise(widths)))
        sizes = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(GrowingConvNorm(a if k == 0 else 2 * a, b) for k, (a, b) in enumerate(sizes))
        self.width = widths[0] + channels
        self.last = ConvNorm(self.width, self.width, flat=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, I, D, H, W] -> [N, `width`, D, H, W]."""
        kept = [x]
        for layer in self.down:
            y = layer(kept[-1])
            kept.append(functional.avg_pool2d(y.flatten(1, 2), 2).unflatten(1, y.shape[1:3]))
        x = kept.pop()
        for layer in self.up:
            x = torch.cat([layer(x), kept.pop()], 1)
        return torch.as_tensor(self.last(x))


class Field(nn.Module):
    """The field and what is covered: key points [B, P, 3] of frames and [1, P, 3] of the source."""

    def __init__(self, config: PortraitNetsConfig) -> None:
        super().__init__()
        compress = config.warp.compress
        self.compress = ConvNorm(config.channels, compress, kernel=1, flat=False)
        self.hourglass = Hourglass((config.points + 1) * (compress + 1), config.warp.hourglass)
        self.weigh = nn.Conv3d(self.hourglass.width, config.points + 1, 7, padding=3)
        self.cover = nn.Conv2d(self.hourglass.width * config.depth, 1, 7, padding=3)

    def forward(self, volume: torch.Tensor, source: torch.Tensor, driving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Field [B, D, H, W, 3] to read the volume [1, C, D, H, W] at, and what is to be seen [B, 1, H, W]."""
        small = self.compress(volume)
        depth, height, width = small.shape[2:]
        grid = places((depth, height, width), small)
        still = grid[None, None].expand(len(driving), 1, *grid.shape)
        came = torch.cat([still, grid + (source - driving)[:, :, None, None, None]], 1)  # [B, 1 + P, D, H, W, 3]
        read = warp(channels_last(small), came.flatten(0, 1).contiguous()).unflatten(0, came.shape[:2])
        blobs = blob(grid, driving) - blob(grid, source)
        blobs = torch.cat([torch.zeros_like(blobs[:, :1]), blobs], 1)[..., None]  # [B, 1 + P, D, H, W, 1]
        told = torch.cat([blobs, read], -1).permute(0, 1, 5, 2, 3, 4).flatten(1, 2).to(small.dtype)
        found = self.hourglass(told)
        shares = self.weigh(found).float().softmax(1)  # of standing still and of following each point
        moves = torch.einsum("bpdhw,bpc->bdhwc", shares[:, 1:], source - driving)
        return grid + moves, self.cover(found.flatten(1, 2)).sigmoid()


def blob(grid: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """How near every voxel of the grid [D, H, W, 3] lies to every point [N, P, 3]: [N, P, D, H, W], 1 at the point."""
    x, y, z = (
        torch.exp(-0.5 * (axis - points[..., k, None]) ** 2 / SPREAD)
        for k, axis in enumerate((grid[0, 0, :, 0], grid[0, :, 0, 1], grid[:, 0, 0, 2]))
    )  # a blob is a product of its three axes
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


class Warping(nn.Module):
    """Moves the volume of the source [1, C, D, H, W] and makes the generator's features of it."""

    def __init__(self, config: PortraitNetsConfig) -> None:
        super().__init__()
        self.field = Field(config)
        self.join = ConvNorm(config.channels * config.depth, config.warp.width, slope=0.01)
        self.mix = nn.Conv2d(config.warp.width, config.warp.width, 1)

    def forward(self, volume: torch.Tensor, source: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """Features [B, 256, H, W] of the source's picture with key points [1, P, 3] moved to [B, P, 3]."""
        field, seen = self.field(volume, source, driving)
        carried = warp(channels_last(volume), field.contiguous()).permute(0, 4, 1, 2, 3).to(volume.dtype)
        return torch.as_tensor(self.mix(self.join(carried.flatten(1, 2))) * seen)
