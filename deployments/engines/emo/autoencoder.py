"""The auto-encoder of the mouth window: picture [B, 3, H, W] <-> latent picture [B, C, H/4, W/4].

encode: unshuffle 2 ─ conv ─ residual ─ stride 2 ─ 2 residuals ─ conv
decode: conv ─ 2 residuals ─ shuffle 2 ─ residual ─ shuffle 2
"""

from __future__ import annotations

import torch
from torch import nn

from deployments.engines.emo.config import LatentConfig

GROUPS = 8
FACTOR = 4  # window pixels per place of the latent picture


class Residual(nn.Module):
    """Two 3x3 convolutions, the input added; `told` numbers scale and shift between them (FiLM)."""

    def __init__(self, channels: int, told: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.norm_1, self.norm_2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.conv_1, self.conv_2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.film = zeroed(nn.Linear(told, 2 * channels)) if told else None

    def forward(self, x: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
        """[B, C, h, w], told [B, D] -> [B, C, h, w]."""
        y = self.norm_2(self.conv_1(nn.functional.silu(self.norm_1(x))))
        if self.film is not None:
            scale, shift = self.film(told)[..., None, None].chunk(2, 1)
            y = y * (1 + scale) + shift
        return torch.as_tensor(x + self.conv_2(self.dropout(nn.functional.silu(y))))


class Autoencoder(nn.Module):
    """Encoder and decoder. Latents have mean 0 and spread 1 once `standardise` was called."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        half, quarter = config.widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, half, 3, padding=1),
            Residual(half),
            nn.Conv2d(half, quarter, 3, 2, 1),
            Residual(quarter),
            Residual(quarter),
            nn.Conv2d(quarter, config.channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.channels, quarter, 3, padding=1),
            Residual(quarter),
            Residual(quarter),
            nn.Conv2d(quarter, 4 * half, 1),
            nn.PixelShuffle(2),
            Residual(half),
            nn.SiLU(),
            nn.Conv2d(half, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("mean", torch.zeros(config.channels, 1, 1))
        self.register_buffer("spread", torch.ones(config.channels, 1, 1))

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """Picture, 0..1 -> standardised latent."""
        return (self.encoder(picture.to(memory_format=torch.channels_last) - 0.5) - self.mean) / self.spread

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardised latent -> picture, about 0..1."""
        return torch.as_tensor(self.decoder(latent.to(memory_format=torch.channels_last) * self.spread + self.mean) + 0.5)

    @torch.no_grad()
    def standardise(self, pictures: torch.Tensor) -> None:
        """Take mean and spread of the latents of pictures [B, 3, H, W]."""
        self.mean.zero_(), self.spread.fill_(1)
        latent = self.encode(pictures)
        self.mean.copy_(latent.mean((0, 2, 3))[:, None, None])
        self.spread.copy_(latent.std((0, 2, 3))[:, None, None].clamp_min(1e-3))


def zeroed(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer, answering zero until it has learned."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
