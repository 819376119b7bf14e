"""The face decoder: how much of each picture to show where, and what to add to their mix.

    window of 6 pictures, frame, mesh ─ unshuffle ─ down ─ down ─ down ─┐
                                                                       FiLM(mouth code, motion)
    logits of 6, residual RGB ───────── shuffle ─── up ─── up ──── up ──┘

The last layer starts at zero, so the first picture is the mix that it is given.  B batch, H, W window, K code.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from deployments.engines.vasa1.config import DecoderConfig

PICTURES = 6  # five looked up, one painted
PLANES = 3 * PICTURES + 8  # and: frame outside the mask 3, place on the face 2, lips, inner mouth, mask
MOTION = 11
GROUPS = 8
LOGIT_SCALE = 4.0  # logits must go farther than colours


class Residual(nn.Module):
    """Two 3x3 convolutions, the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.conv_1, self.conv_2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> the same."""
        y = self.conv_1(nn.functional.silu(self.norm_1(x)))
        return x + self.conv_2(nn.functional.silu(self.norm_2(y)))


class Decoder(nn.Module):
    """U-Net over the window."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        widths, blocks = config.channels, config.blocks
        self.enter = nn.Conv2d(4 * PLANES, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_stack(w, n) for w, n in zip(widths, blocks, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.film = nn.Sequential(nn.Linear(config.code + MOTION, 64), nn.SiLU(), nn.Linear(64, 2 * widths[-1]))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up_blocks = nn.ModuleList(_stack(w, n) for w, n in zip(widths[:-1], blocks[:-1], strict=True))
        self.leave = nn.Conv2d(widths[0], 4 * (PICTURES + 3), 3, padding=1)
        last = self.film[2]
        assert isinstance(last, nn.Linear)
        for layer in (self.leave, last):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, planes: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Planes [B, 26, H, W], condition [B, K + 11] -> logits [B, 6, H, W], residual [B, 3, H, W] (1 = white)."""
        x = self.enter(nn.functional.pixel_unshuffle(planes, 2))
        skips = []
        for level, block in enumerate(self.down_blocks):
            x = block(x)
            if level < len(self.downs):
                skips.append(x)
                x = self.downs[level](x)
        scale, shift = self.film(condition)[..., None, None].chunk(2, 1)
        x = x * (1 + scale) + shift
        for level in reversed(range(len(self.ups))):
            x = skips[level] + nn.functional.interpolate(self.ups[level](x), scale_factor=2.0, mode="nearest")
            x = self.up_blocks[level](x)
        out = nn.functional.pixel_shuffle(self.leave(nn.functional.silu(x)), 2)
        return LOGIT_SCALE * out[:, :PICTURES], out[:, PICTURES:]


def mixed(pictures: torch.Tensor, weights: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [B, 6, 3, H, W] mixed by softmax(log weights [B, 6] + logits): picture [B, 3, H, W], shares [B, 6, H, W]."""
    shares = torch.softmax(torch.log(weights.clamp_min(1e-4))[..., None, None] + logits, 1)
    return (pictures * shares[:, :, None]).sum(1), shares


def _stack(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels) for _ in range(count)))
