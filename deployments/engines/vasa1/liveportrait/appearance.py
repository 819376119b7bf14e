"""F: the picture as a volume of features, made once for a person."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.vasa1.liveportrait.config import PortraitNetsConfig
from deployments.engines.vasa1.liveportrait.layers import ConvNorm, VolumeBlock


class Appearance(nn.Module):
    """Picture [N, 3, S, S] in 0..1 -> volume [N, C, D, S/4, S/4]."""

    def __init__(self, config: PortraitNetsConfig) -> None:
        super().__init__()
        widths = config.appearance.widths
        self.depth = config.depth
        self.stem = ConvNorm(3, widths[0])
        self.down = nn.ModuleList(ConvNorm(a, b) for a, b in pairwise(widths))
        self.lift = nn.Conv2d(widths[-1], config.channels * config.depth, 1)
        self.blocks = nn.ModuleList(VolumeBlock(config.channels) for _ in range(config.appearance.blocks))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Every layer downwards halves the picture; the last one's channels become channels and depth."""
        x = self.stem(picture)
        for layer in self.down:
            x = functional.avg_pool2d(layer(x), 2)
        volume = self.lift(x).unflatten(1, (-1, self.depth))
        for block in self.blocks:
            volume = block(volume)
        return torch.as_tensor(volume)
