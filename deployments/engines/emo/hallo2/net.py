"""All five networks of the checkpoint; `weights` fills them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.emo.hallo2.config import Hallo2Config
from deployments.engines.emo.hallo2.unet import UNet


class FaceLocator(nn.Module):
    """Where the face may be: mask picture [N, 3, H, W] -> what is added to the first layer [N, C, H/8, W/8]."""

    def __init__(self, config: Hallo2Config) -> None:
        super().__init__()
        widths = config.locator
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList(conv for a, b in pairs for conv in (nn.Conv2d(a, a, 3, padding=1), nn.Conv2d(a, b, 3, 2, 1)))
        self.conv_out = nn.Conv2d(widths[-1], config.channels[0], 3, padding=1)

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        """Mask, 0..1."""
        x = functional.silu(self.conv_in(mask))
        for block in self.blocks:
            x = functional.silu(block(x))
        return torch.as_tensor(self.conv_out(x))


class FaceTokens(nn.Module):
    """A face embedding [B, 512] as tokens [B, 4, 768]."""

    def __init__(self, config: Hallo2Config) -> None:
        super().__init__()
        self.proj, self.norm = nn.Linear(config.face, config.face_tokens * config.context), nn.LayerNorm(config.context)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """[B, 512] -> [B, 4, 768]."""
        return torch.as_tensor(self.norm(self.proj(embedding).unflatten(-1, (-1, self.norm.normalized_shape[0]))))


class AudioTokens(nn.Module):
    """Speech features of five frames, all layers [N, 5, 12, 768], as tokens [N, 32, 768]."""

    def __init__(self, config: Hallo2Config) -> None:
        super().__init__()
        self.proj1 = nn.Linear(config.audio_frames * config.audio_layers * config.context, config.audio_hidden)
        self.proj2 = nn.Linear(config.audio_hidden, config.audio_hidden)
        self.proj3 = nn.Linear(config.audio_hidden, config.audio_tokens * config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, 5, 12, 768] -> [N, 32, 768]."""
        x = functional.relu(self.proj2(functional.relu(self.proj1(features.flatten(1)))))
        return torch.as_tensor(self.norm(self.proj3(x).unflatten(-1, (-1, self.norm.normalized_shape[0]))))


class Hallo2(nn.Module):
    """The checkpoint's networks under its own names."""

    def __init__(self, config: Hallo2Config | None = None) -> None:
        super().__init__()
        config = config or Hallo2Config()
        self.reference_unet, self.denoising_unet = UNet(config, moves=False), UNet(config, moves=True)
        self.face_locator, self.imageproj, self.audioproj = FaceLocator(config), FaceTokens(config), AudioTokens(config)
