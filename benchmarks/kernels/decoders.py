"""A decoder in the layout of diffusers' `AutoencoderKL`, as plain torch: the peer that the kernels are measured against.

Widths (128, 256, 512, 512) with 4 latent channels are the decoder of Stable Diffusion 1.5; weights are random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Resnet(nn.Module):
    """Two convolutions, each after normalisation and SiLU, the input added."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs, eps=1e-6), nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nonlinearity, self.dropout, self.time_emb_proj = nn.SiLU(), nn.Dropout(0.0), None
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        y = self.conv1(self.nonlinearity(self.norm1(x)))
        y = self.conv2(self.dropout(self.nonlinearity(self.norm2(y))))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class Attention(nn.Module):
    """One head over all places."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0.0)])

    def forward(self, x: Tensor) -> Tensor:
        places = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = (to(places)[:, None] for to in (self.to_q, self.to_k, self.to_v))
        y = self.to_out[0](functional.scaled_dot_product_attention(query, key, value)[:, 0])
        return x + y.transpose(1, 2).reshape(x.shape)


class Upsample(nn.Module):
    """Nearest doubling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: Tensor, output_size: None = None) -> Tensor:
        return self.conv(functional.interpolate(hidden_states, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Mid(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))  # type: ignore[no-any-return]


class Up(nn.Module):
    """Residual blocks, then a doubling except in the last stage."""

    def __init__(self, inputs: int, outputs: int, groups: int, layers: int, doubles: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(inputs if k == 0 else outputs, outputs, groups) for k in range(layers))
        self.upsamplers = nn.ModuleList([Upsample(outputs)]) if doubles else None

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        for upsampler in self.upsamplers or ():
            x = upsampler(x)
        return x


class Decoder(nn.Module):
    """Latent [B, C, h, w] -> picture [B, 3, H, W], each stage but the last twice the size."""

    def __init__(
        self, latent: int = 4, widths: tuple[int, ...] = (128, 256, 512, 512), groups: int = 32, layers: int = 3
    ) -> None:
        super().__init__()
        order = widths[::-1]
        self.conv_in = nn.Conv2d(latent, order[0], 3, padding=1)
        self.mid_block = Mid(order[0], groups)
        pairs = zip((order[0], *order), order, strict=False)
        self.up_blocks = nn.ModuleList(Up(a, b, groups, layers, k < len(order) - 1) for k, (a, b) in enumerate(pairs))
        self.conv_norm_out, self.conv_act = nn.GroupNorm(groups, order[-1], eps=1e-6), nn.SiLU()
        self.conv_out = nn.Conv2d(order[-1], 3, 3, padding=1)

    def forward(self, sample: Tensor, latent_embeds: None = None) -> Tensor:
        sample = self.mid_block(self.conv_in(sample))
        for block in self.up_blocks:
            sample = block(sample)
        return self.conv_out(self.conv_act(self.conv_norm_out(sample)))  # type: ignore[no-any-return]


def make_decoder(seed: int = 0, **how: object) -> Decoder:
    """Random weights, and scales and shifts of the normalisations that are not one and zero."""
    torch.manual_seed(seed)
    decoder = Decoder(**how).eval().requires_grad_(False)  # type: ignore[arg-type]
    for part in decoder.modules():
        if isinstance(part, nn.GroupNorm):
            part.weight.uniform_(0.7, 1.3)
            part.bias.normal_(0, 0.2)
    return decoder
