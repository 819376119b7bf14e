"""The auto-encoder of Stable Diffusion under the names of diffusers' `AutoencoderKL`: picture [N, 3, H, W] <-> [N, 4, H/8, W/8].

`nonlinearity`, `conv_act` and `group_norm` are named so that `kernels.latent_decode.accelerate` finds them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from deployments.engines.emo.hallo2.config import VaeConfig

EPS = 1e-6


class VaeResnet(nn.Module):
    """Residual block without a time step."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels, EPS), nn.GroupNorm(groups, out, EPS)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.nonlinearity = nn.SiLU()
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] -> [N, D, h, w]."""
        y = self.conv1(self.nonlinearity(self.norm1(x)))
        y = self.conv2(self.nonlinearity(self.norm2(y)))
        return torch.as_tensor((x if self.conv_shortcut is None else self.conv_shortcut(x)) + y)


class VaeAttention(nn.Module):
    """Every place looks at every other; one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0.0)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] -> the same."""
        places = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (part(places)[:, None] for part in (self.to_q, self.to_k, self.to_v))
        found = self.to_out[0](functional.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + torch.as_tensor(found).transpose(1, 2).unflatten(2, x.shape[2:])


class Halve(nn.Module):
    """Half the size; padded right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] -> [N, C, h/2, w/2]."""
        return torch.as_tensor(self.conv(functional.pad(x, (0, 1, 0, 1))))


class Double(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] -> [N, C, 2 h, 2 w]."""
        return torch.as_tensor(self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest")))


class VaeLevel(nn.Module):
    """Residual blocks, then what changes the size, where anything does."""

    downsamplers: nn.ModuleList
    upsamplers: nn.ModuleList

    def __init__(self, channels: int, out: int, count: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(VaeResnet(channels if k == 0 else out, out, groups) for k in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w]."""
        for part in (*self.resnets, *getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())):
            x = part(x)
        return x


class VaeMiddle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([VaeAttention(channels, groups)])
        self.resnets = nn.ModuleList(VaeResnet(channels, channels, groups) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w]."""
        return torch.as_tensor(self.resnets[1](self.attentions[0](self.resnets[0](x))))


class VaeEncoder(nn.Module):
    """Picture to mean and spread."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.channels, config.groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(VaeLevel(a, b, config.layers, groups) for a, b in pairwise((widths[0], *widths)))
        for level, width in zip(list(self.down_blocks)[:-1], widths, strict=False):
            level.downsamplers = nn.ModuleList([Halve(width)])
        self.mid_block = VaeMiddle(widths[-1], groups)
        self.conv_norm_out, self.conv_act = nn.GroupNorm(groups, widths[-1], EPS), nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 8, h, w]."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return torch.as_tensor(self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x)))))


class VaeDecoder(nn.Module):
    """Latent to picture."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.channels[::-1], config.groups
        self.conv_in = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        self.mid_block = VaeMiddle(widths[0], groups)
        self.up_blocks = nn.ModuleList(VaeLevel(a, b, config.layers + 1, groups) for a, b in pairwise((widths[0], *widths)))
        for level, width in zip(list(self.up_blocks)[:-1], widths, strict=False):
            level.upsamplers = nn.ModuleList([Double(width)])
        self.conv_norm_out, self.conv_act = nn.GroupNorm(groups, widths[-1], EPS), nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 4, h, w] -> [N, 3, H, W]."""
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return torch.as_tensor(self.conv_out(self.conv_act(self.conv_norm_out(x))))


class Vae(nn.Module):
    """Pictures in -1..1 <-> latents of about unit spread."""

    def __init__(self, config: VaeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VaeConfig()
        self.encoder, self.decoder = VaeEncoder(config), VaeDecoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W], -1..1 -> the mean latent [N, 4, h, w]."""
        return torch.as_tensor(self.quant_conv(self.encoder(picture))[:, : self.config.latent] * self.config.scale)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """[N, 4, h, w] -> picture [N, 3, H, W], about -1..1."""
        return torch.as_tensor(self.decoder(self.post_quant_conv(latent / self.config.scale)))


def vae_name(name: str) -> str:
    """A key as it is called today, of one as older files call it."""
    if ".attentions.0." not in name:
        return name
    for old, new in (("query.", "to_q."), ("key.", "to_k."), ("value.", "to_v."), ("proj_attn.", "to_out.0.")):
        name = name.replace(f".attentions.0.{old}", f".attentions.0.{new}")
    return name
