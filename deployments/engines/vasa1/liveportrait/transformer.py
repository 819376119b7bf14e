"""JoyVASA's motion transformer (Cao et al. 2024, arXiv 2411.09209): motion of a window from its sound and what came before.

Each frame hears its own sound alone: attention over one thing is that thing, whatever was asked. So what a layer hears
is a linear map of the sound, the same in every step of sampling, and is made once.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from deployments.engines.vasa1.liveportrait.config import MotionConfig
from deployments.engines.vasa1.liveportrait.layers import Folds, chain
from deployments.engines.vasa1.liveportrait.speech import SpeechNet


def waves(count: int, width: int) -> torch.Tensor:
    """Sines and cosines in turn [count, width], of ever longer waves."""
    pitch = np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = np.arange(count)[:, None] * pitch
    return torch.from_numpy(np.stack([np.sin(angle), np.cos(angle)], -1).reshape(count, width).astype(np.float32))


class Attention(nn.Module):
    """Attention whose three maps lie in one matrix, as torch has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, C] looks at itself."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.enter(x).chunk(3, -1))
        return torch.as_tensor(self.leave(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))

    def alone(self, sound: torch.Tensor) -> torch.Tensor:
        """What is heard if every row sees nothing but its own row of `sound`."""
        weight, bias = self.enter.weight.chunk(3)[2], self.enter.bias.chunk(3)[2]
        return torch.as_tensor(self.leave(functional.linear(sound, weight, bias)))


class Layer(Folds):
    """Attention over frames, sound, feed-forward; a norm behind each."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        width = config.width
        self.attend, self.hear = Attention(width, config.heads), Attention(width, config.heads)
        self.widen, self.narrow = nn.Linear(width, config.inner), nn.Linear(config.inner, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.heard: nn.Linear | None = None

    @torch.no_grad()
    def fold(self) -> None:
        """Both maps that the sound goes through become one, multiplied in float64."""
        if self.heard is None:
            out, weight, bias = self.hear.leave, self.hear.enter.weight.chunk(3)[2], self.hear.enter.bias.chunk(3)[2]
            self.heard = nn.Linear(weight.shape[1], len(weight)).to(weight)
            self.heard.weight.copy_(out.weight.double() @ weight.double())
            self.heard.bias.copy_(out.weight.double() @ bias.double() + out.bias.double())
            del self.hear

    def listen(self, sound: torch.Tensor) -> torch.Tensor:
        """What this layer hears of the sound [N, T, C]."""
        return self.hear.alone(sound) if self.heard is None else torch.as_tensor(self.heard(sound))

    def forward(self, x: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        """[N, T, C] -> the same."""
        x = self.norms[0](x + self.attend(x))
        x = self.norms[1](x + heard)
        return torch.as_tensor(self.norms[2](x + self.narrow(functional.gelu(self.widen(x)))))


class MotionNet(nn.Module):
    """Speech net and denoiser. N samples, T = before + window frames, D numbers of a frame."""

    where: torch.Tensor
    when: torch.Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.speech = SpeechNet(config.speech)
        self.sound = nn.Linear(config.speech.width, width)
        self.first_motion = nn.Parameter(torch.zeros(1, config.before, config.latent))
        self.first_sound = nn.Parameter(torch.zeros(1, config.before, width))
        self.no_sound = nn.Parameter(torch.zeros(1, 1, width))
        self.step = chain([width, width, width], nn.GELU)
        self.enter = nn.Linear(config.latent, width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.leave = chain([width, width // 2, config.latent], nn.GELU)
        self.register_buffer("where", waves(config.before + config.window, width), persistent=False)
        self.register_buffer("when", waves(config.steps + 1, width), persistent=False)

    def hear(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples of a window [N, 640 x window] at 16 kHz -> sound [N, window, C]."""
        rows = self.speech(samples, 2 * self.config.window).transpose(1, 2)
        rows = functional.interpolate(rows, size=self.config.window, mode="linear", align_corners=False)
        return torch.as_tensor(self.sound(rows.transpose(1, 2)))

    def listen(self, sound: torch.Tensor) -> list[torch.Tensor]:
        """What every layer hears of the sound [N, T, C]."""
        return [layer.listen(sound) for layer in self.layers if isinstance(layer, Layer)]

    def forward(self, noisy: torch.Tensor, before: torch.Tensor, heard: list[torch.Tensor], step: int) -> torch.Tensor:
        """The clean motion [N, window, D] behind a noisy one at a step, `before` [N, before, D] it."""
        told = self.step(self.when[step])
        x = self.enter(torch.cat([before, noisy], 1)) + self.where + told
        for layer, sound in zip(self.layers, heard, strict=True):
            x = layer(x, sound)
        return torch.as_tensor(self.leave(x)[:, self.config.before :])
