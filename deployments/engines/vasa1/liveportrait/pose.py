"""M: key points of the face at rest, head pose and expression of a picture (ConvNeXt V2: Woo et al. 2023, arXiv 2301.00808)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.vasa1.liveportrait.config import PortraitNetsConfig

EPSILON = 1e-6


class Block(nn.Module):
    """Spatial mixing per channel, then a wide layer whose channels compete (global response normalisation)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gain, self.lift = (nn.Parameter(torch.zeros(1, 1, 1, 4 * width)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same."""
        y = functional.gelu(self.widen(self.norm(self.mix(x).permute(0, 2, 3, 1))))
        strength = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)
        strength = strength / (strength.mean(-1, keepdim=True) + EPSILON)
        y = self.narrow(self.gain * (y * strength) + self.lift + y)
        return x + y.permute(0, 3, 1, 2)


class PictureNorm(nn.LayerNorm):
    """Layer norm over the channels of a picture [N, C, H, W]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PoseNet(nn.Module):
    """Picture [N, 3, S, S] in 0..1 -> a number row for each of `heads`."""

    def __init__(self, config: PortraitNetsConfig) -> None:
        super().__init__()
        depths, widths = config.pose.depths, config.pose.widths
        self.stem, self.stem_norm = nn.Conv2d(3, widths[0], 4, 4), PictureNorm(widths[0], eps=EPSILON)
        self.shrink_norms = nn.ModuleList(PictureNorm(width, eps=EPSILON) for width in widths[:-1])
        self.shrinks = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=EPSILON)
        points, bins = 3 * config.points, config.pose.bins
        sizes = {"rest": points, "size": 1, "pitch": bins, "yaw": bins, "roll": bins, "shift": 3, "expression": points}
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1], count) for name, count in sizes.items()})

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """Rows of every head, before any meaning is read from them (`keypoints.read_face` does)."""
        x = self.stages[0](self.stem_norm(self.stem(picture)))
        for norm, shrink, stage in zip(self.shrink_norms, self.shrinks, list(self.stages)[1:], strict=True):
            x = stage(shrink(norm(x)))
        row = self.norm(x.mean((-2, -1)))
        return {name: head(row) for name, head in self.heads.items()}
