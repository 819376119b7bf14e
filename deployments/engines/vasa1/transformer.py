"""The diffusion transformer: what the face does next, from noise, sound and what it did before.

After VASA-1: a transformer encoder that predicts the clean latents X0 (not the noise) of a window of frames, given the
last K frames of the window before, the sound of both, and gaze, head distance and emotion as tokens of their own. Every
condition is left out now and then while training, so that it can be guided when sampling.

B batch, W window, K frames before, D = 18 latents, A audio features of a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from deployments.engines.vasa1.config import MotionConfig
from deployments.engines.vasa1.latents import EMOTION, LATENT

AUDIO = 2 * (212 + 9)  # two steps of hidden features, mel bands and the shared regression's answer
CONTROLS = ("gaze", "distance", "emotion")
CONTROL_SIZES = {"gaze": 2, "distance": 1, "emotion": EMOTION}


@dataclass(frozen=True)
class Conditions:
    """What a window is told. A condition that is left out has `keep` 0 for that sample."""

    audio: torch.Tensor  # [B, K + W, A]
    before: torch.Tensor  # [B, K, D]
    controls: dict[str, torch.Tensor]  # gaze [B, 2], distance [B, 1], emotion [B, 2]
    keep: dict[str, torch.Tensor]  # "audio", "before" and the controls: [B] 0 or 1


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm and added to its input."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.net = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> the same."""
        batch, tokens, width = x.shape
        q, k, v = self.queries(self.norm_1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.drop(self.out(seen))
        return x + self.drop(self.net(self.norm_2(x)))


class MotionTransformer(nn.Module):
    """H(X_t, t, C) -> X0."""

    latent_spread: torch.Tensor
    audio_mean: torch.Tensor
    audio_std: torch.Tensor
    lip_gain: torch.Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        width = config.width
        self.audio_in = nn.Sequential(nn.Dropout(config.audio_dropout), nn.Linear(AUDIO, width))
        self.frame_in, self.before_in = nn.Linear(LATENT, width), nn.Linear(LATENT, width)
        self.time_in = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.controls_in = nn.ModuleDict({name: nn.Linear(size, width) for name, size in CONTROL_SIZES.items()})
        self.nothing = nn.ParameterDict({name: torch.zeros(width) for name in ("audio", "before", *CONTROLS)})
        tokens = config.before + config.window + 1 + len(CONTROLS)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, LATENT)
        self.register_buffer("latent_spread", torch.ones(LATENT))
        self.register_buffer("audio_mean", torch.zeros(AUDIO))
        self.register_buffer("audio_std", torch.ones(AUDIO))
        self.register_buffer("lip_gain", torch.ones(8))
        self.config = config

    def forward(self, noisy: torch.Tensor, time: torch.Tensor, told: Conditions) -> torch.Tensor:
        """Noisy latents [B, W, D] at times [B] in 0..1 -> clean latents [B, W, D]."""
        audio = self.audio_in((told.audio - self.audio_mean) / self.audio_std)
        audio = self._or_nothing("audio", audio, told.keep["audio"])
        past = self._or_nothing("before", self.before_in(told.before), told.keep["before"])
        frames = torch.cat([past, self.frame_in(noisy)], 1) + audio
        clock = self.time_in(angles_of(time, frames.shape[-1]))[:, None]
        tokens = [self._or_nothing(n, self.controls_in[n](told.controls[n])[:, None], told.keep[n]) for n in CONTROLS]
        x = torch.cat([clock, *tokens, frames + clock], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return torch.as_tensor(self.out(self.norm(x[:, -noisy.shape[1] :])))

    def _or_nothing(self, name: str, tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        share = keep[:, None, None]
        return share * tokens + (1 - share) * self.nothing[name]


def angles_of(time: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines [B, width] of times [B] in 0..1."""
    speeds = torch.exp(torch.arange(width // 2, device=time.device) * (-math.log(1000.0) / (width // 2 - 1))) * 1000.0
    phase = time[:, None] * speeds / 10
    return torch.cat([phase.sin(), phase.cos()], 1)


def signal_share(time: torch.Tensor) -> torch.Tensor:
    """Cosine schedule: share of signal variance [B] at times [B] in 0..1 (1 = nearly noise alone)."""
    return torch.cos((time * 0.98 + 0.008) / 1.008 * math.pi / 2) ** 2
