"""S: key points that keep the rest of the picture where it is; and two nets that close lips and lids by key points."""

from __future__ import annotations

import torch
from torch import nn

from deployments.engines.vasa1.liveportrait.config import PortraitNetsConfig
from deployments.engines.vasa1.liveportrait.layers import chain


class Stitching(nn.Module):
    """Three small nets on key points [N, P, 3]."""

    def __init__(self, config: PortraitNetsConfig) -> None:
        super().__init__()
        row, sizes = 3 * config.points, config.stitch
        self.stitch = chain([2 * row, *sizes.stitch, row + 2], nn.ReLU)
        self.lips = chain([row + 2, *sizes.lips, row], nn.ReLU)
        self.eyes = chain([row + 3, *sizes.eyes, row], nn.ReLU)

    def forward(self, source: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """Driving points [N, P, 3] put so that shoulders and rim fit the source's [1, P, 3]."""
        both = torch.cat([source.expand_as(driving).flatten(1), driving.flatten(1)], 1)
        moves = self.stitch(both)
        shift = torch.cat([moves[:, -2:], torch.zeros_like(moves[:, :1])], 1)
        return driving + moves[:, :-2].unflatten(1, (-1, 3)) + shift[:, None]

    def close_lips(self, source: torch.Tensor, now: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Moves [N, P, 3] from an opening [N] of the lips to another; openings are shares of the mouth's width."""
        told = torch.cat([source.flatten(1), now[:, None], wanted[:, None]], 1)
        return torch.as_tensor(self.lips(told).unflatten(1, (-1, 3)))

    def close_eyes(self, source: torch.Tensor, now: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Moves [N, P, 3] from openings [N, 2] of both eyes to one for both [N]; openings are shares of the eye's width."""
        told = torch.cat([source.flatten(1), now, wanted[:, None]], 1)
        return torch.as_tensor(self.eyes(told).unflatten(1, (-1, 3)))
