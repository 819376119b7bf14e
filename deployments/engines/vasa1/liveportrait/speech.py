"""The speech net of the motion transformer: HuBERT base (Hsu et al. 2021, arXiv 2106.07447), 50 rows a second."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.vasa1.liveportrait.config import SpeechConfig

REACH = 40  # samples that a window is mirrored by on both sides, so that its rows cover it


class Attention(nn.Module):
    """Self-attention over rows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.offer, self.say, self.leave = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, C] -> the same."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.ask, self.offer, self.say))
        return torch.as_tensor(self.leave(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Attention and feed-forward, a norm behind each."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        width = config.width
        self.attend = Attention(width, config.heads)
        self.norm_attend, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, config.inner), nn.Linear(config.inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, C] -> the same."""
        x = self.norm_attend(x + self.attend(x))
        return torch.as_tensor(self.norm_out(x + self.narrow(functional.gelu(self.widen(x)))))


class SpeechNet(nn.Module):
    """Samples [N, S] at 16 kHz -> rows [N, T, 768]."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        channels, width = config.channels, config.width
        self.waves = nn.ModuleList(
            nn.Conv1d(1 if k == 0 else channels, channels, kernel, stride, bias=False)
            for k, (kernel, stride) in enumerate(config.convolutions)
        )
        self.wave_norm = nn.GroupNorm(channels, channels)
        self.enter_norm, self.enter = nn.LayerNorm(channels), nn.Linear(channels, width)
        kernel = config.position_kernel
        self.where = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.position_groups)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, samples: torch.Tensor, rows: int) -> torch.Tensor:
        """Rows [N, `rows`, 768]: the waves' own rows are interpolated to that number."""
        x = mirrored(samples)[:, None]
        for k, wave in enumerate(self.waves):
            x = wave(x)
            x = functional.gelu(self.wave_norm(x) if k == 0 else x)
        x = functional.interpolate(x[:, :, :rows], size=rows, mode="linear", align_corners=False)
        x = self.enter(self.enter_norm(x.transpose(1, 2)))
        near = self.where(x.transpose(1, 2))[:, :, : x.shape[1]]
        x = self.norm(x + functional.gelu(near).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return torch.as_tensor(x)


def mirrored(samples: torch.Tensor) -> torch.Tensor:
    """[N, S] with 40 samples more on both sides, mirrored twice by 20 as the transformer learned it."""
    for _ in range(2):
        samples = functional.pad(samples, (REACH // 2, REACH // 2), mode="reflect")
    return samples
