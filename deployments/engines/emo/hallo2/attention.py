"""Attention blocks under the checkpoint's names (those of diffusers and of Hallo2, MIT).

N = B F pictures, L = h w places, C channels, K tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Context:
    """What every block of the denoiser looks at."""

    frames: int
    image: torch.Tensor  # [N, K, 768] tokens of the face
    audio: torch.Tensor | None = None  # [N, K, 768] tokens of the speech
    masks: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...] = ()  # per level: all, face, lips [N, L]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # how much each of the three moves
    reference: dict[str, torch.Tensor] | None = None  # features [B, 1 + M, L, C] of the reference picture and M motion frames
    alone: torch.Tensor | None = None  # [N] bool: pictures that do not look at the reference (guidance)


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, channels: int, heads: int, source: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k, self.to_v = (nn.Linear(source or channels, channels, bias=False) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0.0)])

    def forward(self, x: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        """x [N, L, C] looks at source [N, K, S], or at itself."""
        seen = x if source is None else source
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.to_q(x), self.to_k(seen), self.to_v(seen)))
        return torch.as_tensor(self.to_out[0](functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class Gate(nn.Module):
    """GEGLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] -> [..., 4 C]."""
        value, gate = self.proj(x).chunk(2, -1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Gate and linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gate(channels), nn.Dropout(0.0), nn.Linear(4 * channels, channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] -> [..., C]."""
        return torch.as_tensor(self.net[2](self.net[0](x)))


class ImageBlock(nn.Module):
    """Self-attention, which also looks at the reference; attention to the face tokens; feed-forward."""

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.attn1, self.attn2 = Attention(channels, heads), Attention(channels, heads, context)
        self.ff = FeedForward(channels)

    def forward(self, x: torch.Tensor, seen: Context, bank: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """x [N, L, C] and what a reference keeps of it [N, L, C]; `bank` [B, 1 + M, L, C]."""
        norm = self.norm1(x)
        found = self.attn1(norm) if bank is None else self._refer(norm, seen, bank)
        x = found + x
        x = self.attn2(self.norm2(x), seen.image) + x
        return self.ff(self.norm3(x)) + x, norm

    def _refer(self, norm: torch.Tensor, seen: Context, bank: torch.Tensor) -> torch.Tensor:
        first = bank[:, 0].repeat_interleave(seen.frames, 0)
        found = self.attn1(norm, torch.cat([norm, first], 1))
        if seen.alone is None:
            return torch.as_tensor(found)
        return torch.where(seen.alone[:, None, None], self.attn1(norm), found)


class AudioBlock(nn.Module):
    """Self-attention, then the speech for all of the picture, for the face and for the lips; feed-forward."""

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        self.zero_conv_full, self.zero_conv_face, self.zero_conv_lip = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.attn1 = Attention(channels, heads)
        self.attn2_0, self.attn2_1, self.attn2_2 = (Attention(channels, heads, context) for _ in range(3))
        self.ff = FeedForward(channels)

    def forward(self, x: torch.Tensor, seen: Context, size: tuple[int, int], level: int) -> torch.Tensor:
        """x [N, L, C] at a level whose pictures are `size`."""
        assert seen.audio is not None
        x = self.attn1(self.norm1(x)) + x
        norm = self.norm2(x)
        parts = ((self.attn2_0, self.zero_conv_full), (self.attn2_1, self.zero_conv_face), (self.attn2_2, self.zero_conv_lip))
        for (attend, mix), mask, scale in zip(parts, seen.masks[level], seen.scale, strict=True):
            found = attend(norm, seen.audio) * mask[..., None]
            x = x + scale * mix(found.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        return torch.as_tensor(self.ff(self.norm3(x)) + x)


class Transformer(nn.Module):
    """One block between two 1x1 convolutions, the input added; `inner` channels inside."""

    def __init__(self, channels: int, inner: int, groups: int, block: ImageBlock | AudioBlock) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.transformer_blocks = nn.ModuleList([block])

    def image(self, x: torch.Tensor, seen: Context, bank: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """x [N, C, h, w], and what a reference keeps of it [N, L, C]."""
        inside, kept = self.transformer_blocks[0](self.proj_in(self.norm(x)).flatten(2).transpose(1, 2), seen, bank)
        return self.proj_out(inside.transpose(1, 2).unflatten(2, x.shape[2:])) + x, kept

    def audio(self, x: torch.Tensor, seen: Context, level: int) -> torch.Tensor:
        """x [N, C, h, w]."""
        size = (x.shape[2], x.shape[3])
        inside = self.transformer_blocks[0](self.proj_in(self.norm(x)).flatten(2).transpose(1, 2), seen, size, level)
        return torch.as_tensor(self.proj_out(inside.transpose(1, 2).unflatten(2, size)) + x)


class Positions(nn.Module):
    """Sines that tell frames apart."""

    pe: torch.Tensor

    def __init__(self, channels: int, most: int) -> None:
        super().__init__()
        angle = torch.arange(most)[:, None] * torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., F, C] -> the same, with its place."""
        return x + self.pe[:, : x.shape[1]]


class TimeAttention(Attention):
    """Attention over frames."""

    def __init__(self, channels: int, heads: int, positions: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = Positions(channels, positions)

    def over(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """x [B F, L, C] -> the same."""
        places = x.shape[1]
        y = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # [B L, F, C]
        y = self(self.pos_encoder(y))
        return torch.as_tensor(y.unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 1))


class TimeBlock(nn.Module):
    """Twice attention over frames, feed-forward."""

    def __init__(self, channels: int, heads: int, positions: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TimeAttention(channels, heads, positions) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.ff, self.ff_norm = FeedForward(channels), nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """x [B F, L, C]."""
        for attend, norm in zip(self.attention_blocks, self.norms, strict=True):
            assert isinstance(attend, TimeAttention)
            x = attend.over(norm(x), frames) + x
        return torch.as_tensor(self.ff(self.ff_norm(x)) + x)


class TimeTransformer(nn.Module):
    """A block between two linear layers, the input added."""

    def __init__(self, channels: int, heads: int, groups: int, positions: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TimeBlock(channels, heads, positions)])


class Motion(nn.Module):
    """Temporal layers: frames look at one another and at the motion frames before them."""

    def __init__(self, channels: int, heads: int, groups: int, positions: int) -> None:
        super().__init__()
        self.temporal_transformer = TimeTransformer(channels, heads, groups, positions)

    def forward(self, x: torch.Tensor, frames: int, before: torch.Tensor | None = None) -> torch.Tensor:
        """x [B F, C, h, w]; `before` [B, M, L, C] features of the motion frames."""
        net, size = self.temporal_transformer, x.shape[2:]
        more = 0
        if before is not None and before.shape[1]:
            more = before.shape[1]
            earlier = before.transpose(2, 3).unflatten(3, size)
            x = torch.cat([earlier, x.unflatten(0, (-1, frames))], 1).flatten(0, 1)
        y = net.proj_in(net.norm(x).flatten(2).transpose(1, 2))
        y = net.proj_out(net.transformer_blocks[0](y, frames + more))
        y = y.transpose(1, 2).unflatten(2, size) + x
        return y.unflatten(0, (-1, frames + more))[:, more:].flatten(0, 1)
