"""The speech net wav2vec 2.0 base (Baevski et al. 2020) under its public names: all hidden layers, at the frames' own rate.

Between the convolutions and the transformer features are brought to 25 a second, as Hallo2 does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from deployments.engines.emo.hallo2.config import SpeechConfig

RATE, FPS = 16000, 25
PART_SECONDS = 60  # long speech is heard in parts: attention over all of it would need memory by the square
SMALLEST = 1e-7
AROUND = 2
UNUSED = ("lm_head.", "masked_spec_embed", "quantizer.", "project_hid.", "project_q.")  # of training and of other uses


class Convolution(nn.Module):
    """One layer over samples; the first one is normalised per channel."""

    def __init__(self, source: int, channels: int, kernel: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(source, channels, kernel, stride, bias=False)
        self.layer_norm = nn.GroupNorm(channels, channels) if norm else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, N]."""
        y = self.conv(x)
        return functional.gelu(y if self.layer_norm is None else self.layer_norm(y))


class PlaceConvolution(nn.Module):
    """Convolution whose kernel has a length (`weight_g`) and a direction (`weight_v`) at each of its places."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        width, kernel = config.hidden, config.place_kernel
        self.groups = config.place_groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.randn(width, width // config.place_groups, kernel) * 0.02)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, T] -> the same."""
        kernel = self.weight_v.shape[2]
        direction = self.weight_v.float()
        weight = self.weight_g.float() * direction / direction.norm(dim=(0, 1), keepdim=True)
        y = functional.conv1d(x, weight.to(x.dtype), self.bias, padding=kernel // 2, groups=self.groups)
        return functional.gelu(y[..., : x.shape[2]])


class SpeechAttention(nn.Module):
    """Attention of all frames to all frames."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, C] -> the same."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        return torch.as_tensor(self.out_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class SpeechLayer(nn.Module):
    """Attention and feed-forward, normalised behind each."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.attention = SpeechAttention(config.hidden, config.heads)
        self.layer_norm, self.final_layer_norm = nn.LayerNorm(config.hidden), nn.LayerNorm(config.hidden)
        self.feed_forward = nn.ModuleDict(
            {
                "intermediate_dense": nn.Linear(config.hidden, config.feed),
                "output_dense": nn.Linear(config.feed, config.hidden),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, C] -> the same."""
        x = self.layer_norm(x + self.attention(x))
        inner = functional.gelu(self.feed_forward["intermediate_dense"](x))
        return torch.as_tensor(self.final_layer_norm(x + self.feed_forward["output_dense"](inner)))


class SpeechNet(nn.Module):
    """Samples to the hidden states of all layers."""

    def __init__(self, config: SpeechConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpeechConfig()
        layers = [
            Convolution(1 if k == 0 else config.channels, config.channels, *size, norm=k == 0)
            for k, size in enumerate(config.convolutions)
        ]
        self.feature_extractor = nn.ModuleDict({"conv_layers": nn.ModuleList(layers)})
        self.feature_projection = nn.ModuleDict(
            {"layer_norm": nn.LayerNorm(config.channels), "projection": nn.Linear(config.channels, config.hidden)}
        )
        self.encoder = nn.ModuleDict(
            {
                "pos_conv_embed": nn.ModuleDict({"conv": PlaceConvolution(config)}),
                "layer_norm": nn.LayerNorm(config.hidden),
                "layers": nn.ModuleList(SpeechLayer(config) for _ in range(config.layers)),
            }
        )

    def forward(self, samples: torch.Tensor, frames: int) -> torch.Tensor:
        """Samples [N] of zero mean and unit spread -> hidden states [frames, layers, C]."""
        x = samples[None, None]
        for layer in self.feature_extractor["conv_layers"].children():
            x = layer(x)
        x = functional.interpolate(x.float(), size=frames, align_corners=True, mode="linear").to(samples.dtype)
        x = self.feature_projection["projection"](self.feature_projection["layer_norm"](x.transpose(1, 2)))
        x = x + self.encoder["pos_conv_embed"]["conv"](x.transpose(1, 2)).transpose(1, 2)  # type: ignore[index]
        x = self.encoder["layer_norm"](x)
        kept = []
        for layer in self.encoder["layers"].children():
            x = layer(x)
            kept.append(x[0])
        return torch.stack(kept, 1)


@torch.inference_mode()
def hear(net: SpeechNet, samples: NDArray[np.float32], window: int) -> tuple[torch.Tensor, int]:
    """What is heard around every frame [T, 5, layers, C], T filled up to whole windows; and how many frames are wanted.

    `samples` [N] mono at 16 kHz.
    """
    weight = next(net.parameters())
    wanted = frame_count(len(samples))
    filled = -(-wanted // window) * window
    parts = []
    for start in range(0, len(samples), PART_SECONDS * RATE):
        part = samples[start : start + PART_SECONDS * RATE]
        part = (part - part.mean()) / math.sqrt(float(part.var()) + SMALLEST)
        last = start + len(part) >= len(samples)
        count = filled - start * FPS // RATE if last else frame_count(len(part))
        part = np.pad(part, (0, max(0, count * RATE // FPS - len(part)))) if last else part
        parts.append(net(torch.from_numpy(part.astype(np.float32)).to(weight), count))
    states = torch.cat(parts)
    around = torch.arange(filled)[:, None] + torch.arange(-AROUND, AROUND + 1)
    return states[around.clamp(0, filled - 1).to(states.device)], wanted


def frame_count(samples: int) -> int:
    """Frames that cover so many samples."""
    return -(-samples * FPS // RATE)


def speech_name(name: str) -> str | None:
    """A key of the speech net, of one as public files call it; None: of a part that is not used."""
    name = name.removeprefix("wav2vec2.")
    if name.startswith(UNUSED):
        return None
    for old, new in (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v")):
        name = name.replace(old, new)
    return name
