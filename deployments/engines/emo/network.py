"""The denoiser: what the training-free picture lacks, from noise, sound, the person's own pictures and the frames around.

    x_t, start, planes ─ unshuffle 2 ─ residual ─ down ─ [ reference ─ audio ─ temporal ] x 2 ─ up ─ residual ─ what is missing
                                                    │            │
    reference pictures ─── reference branch ────────┤            └ speech features of 5 frames
    4 motion frames ────── reference branch ────────┘ (temporal layers)

B windows, W frames in each, N motion frames, R references, L = h w places at 1/16 of the window, D = channels there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from deployments.engines.emo.autoencoder import Residual, zeroed
from deployments.engines.emo.config import DenoiserConfig, LatentConfig

PLANES = 8  # mask, lips, inner mouth, place on the face 2, nearest picture against the mean 3
MOTION = 11  # lip shape 8, head angles 3
SPEEDS = 5  # buckets of the head's turning speed
FOURIER = 8
TOLD = 96
DROPOUT = 0.1


@dataclass(frozen=True)
class Shots:
    """What is known of the frames of windows before anything is generated."""

    start: torch.Tensor  # [B, W, C, H/4, W/4] encoded training-free pictures
    planes: torch.Tensor  # [B, W, 8, H/4, W/4]
    told: torch.Tensor  # [B, W, 16] lip shape, head angles, speed
    heard: torch.Tensor  # [B, W, 5, F] speech around every frame
    hears: torch.Tensor  # [B] 1: with sound, 0: without
    before: torch.Tensor  # [B, N, C, H/4, W/4] encoded training-free pictures of the motion frames
    together: torch.Tensor  # [B, W, N + W] bool: may this frame look at that one
    apart: torch.Tensor  # [B, W, R] bool: may this frame look at that reference


class Attention(nn.Module):
    """Scaled dot-product attention with a residual path; answers zero until it has learned."""

    def __init__(self, channels: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query, self.both = nn.Linear(channels, channels), nn.Linear(source, 2 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x [B, Q, D], source [B or 1, K, S] (1: all look at the same), mask [B, Q, K] (True: look) -> [B, Q, D]."""
        query = self._split(self.query(self.norm(x)))
        key, value = (self._split(part).expand(len(x), -1, -1, -1) for part in self.both(source).chunk(2, -1))
        allowed = None if mask is None else mask[:, None]
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return x + self.out(found.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ReferenceNet(nn.Module):
    """Features of pictures of the person: of the references, and of the motion frames."""

    def __init__(self, latent: LatentConfig, config: DenoiserConfig) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.net = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * latent.channels, fine, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine, coarse, 3, 2, 1),
            Residual(coarse),
        )
        self.norm = nn.LayerNorm(coarse)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, C, H/4, W/4] -> [B, L, D]."""
        return torch.as_tensor(self.norm(self.net(latents).flatten(2).transpose(1, 2)))


class Block(nn.Module):
    """A residual, then EMO's three attentions: reference, audio, time."""

    def __init__(self, channels: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.residual = Residual(channels, TOLD, DROPOUT)
        self.reference = Attention(channels, channels, heads)
        self.audio = Attention(channels, hidden, heads)
        self.time = Attention(channels, channels, heads)

    def forward(self, x: torch.Tensor, told: torch.Tensor, seen: Seen, shots: Shots) -> torch.Tensor:
        """x [B W, D, h, w] -> the same."""
        x = self.residual(x, told)
        shape, windows = x.shape, len(shots.hears)
        y = x.flatten(2).transpose(1, 2)  # [B W, L, D]
        places = y.shape[1]
        allowed = shots.apart.flatten(0, 1).repeat_interleave(places, 1)[:, None].expand(-1, places, -1)
        y = self.reference(y, seen.references, allowed)
        y = self.audio(y, seen.sound)
        inside = y.unflatten(0, (windows, -1)).transpose(1, 2).flatten(0, 1)  # [B L, W, D]
        before = seen.before.transpose(1, 2).flatten(0, 1)  # [B L, N, D]
        mask = shots.together.repeat_interleave(places, 0)
        inside = self.time(inside, torch.cat([before, inside], 1) + seen.order, mask)
        y = inside.unflatten(0, (windows, places)).transpose(1, 2).flatten(0, 1)
        return torch.as_tensor(y.transpose(1, 2).reshape(shape))


@dataclass(frozen=True)
class Seen:
    """What all blocks look at; the same in every step."""

    references: torch.Tensor  # [1, R L, D]
    before: torch.Tensor  # [B, N, L, D]
    sound: torch.Tensor  # [B W, 5, D]
    order: torch.Tensor  # [N + W, D]


class Denoiser(nn.Module):
    """Predicts the clean latent: the start and what it lacks."""

    references: torch.Tensor

    def __init__(self, latent: LatentConfig, config: DenoiserConfig, size: tuple[int, int]) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.config = config
        self.register_buffer("references", torch.zeros(config.references, latent.channels, *size))
        self.branch = ReferenceNet(latent, config)
        self.tell = nn.Sequential(nn.Linear(2 * FOURIER + MOTION + SPEEDS, TOLD), nn.SiLU(), nn.Linear(TOLD, TOLD), nn.SiLU())
        self.hear = nn.Linear(config.heard, coarse)
        self.silent = nn.Parameter(torch.zeros(coarse))
        self.offset = nn.Parameter(torch.randn(2 * config.around + 1, coarse) * 0.02)
        self.order = nn.Parameter(torch.randn(config.before + config.window, coarse) * 0.02)
        self.enter = nn.Conv2d(4 * (2 * latent.channels + PLANES), fine, 3, padding=1)
        self.first, self.last = Residual(fine, TOLD, DROPOUT), Residual(fine, TOLD, DROPOUT)
        self.down, self.up = nn.Conv2d(fine, coarse, 3, 2, 1), nn.Conv2d(coarse, 4 * fine, 1)
        self.blocks = nn.ModuleList(Block(coarse, coarse, config.heads) for _ in range(2))
        self.leave = zeroed(nn.Conv2d(fine, 4 * latent.channels, 3, padding=1))

    def forward(self, x: torch.Tensor, t: torch.Tensor, shots: Shots, seen: Seen | None = None) -> torch.Tensor:
        """x [B, W, C, H/4, W/4] at noise t [B] -> clean latents, the same shape. `seen` is given where it is known already."""
        shape = x.shape
        seen = self.look(shots) if seen is None else seen
        told = self._tell(t, shots)
        planes = torch.cat([x, shots.start, shots.planes], 2).flatten(0, 1)
        y = self.enter(nn.functional.pixel_unshuffle(planes, 2).to(memory_format=torch.channels_last))
        skip = y = self.first(y, told)
        y = self.down(y)
        for block in self.blocks:
            y = block(y, told, seen, shots)
        y = self.last(skip + nn.functional.pixel_shuffle(self.up(y), 2), told)
        missing = nn.functional.pixel_shuffle(self.leave(nn.functional.silu(y)), 2)
        return shots.start + missing.reshape(shape)

    def pages(self) -> torch.Tensor:
        """Features [1, R L, D] of the person's own pictures; the same for a whole clip."""
        return self.branch(self.references).flatten(0, 1)[None]

    def look(self, shots: Shots, pages: torch.Tensor | None = None) -> Seen:
        """What all steps look at; `pages` are given where they are known already."""
        windows, count = shots.before.shape[:2]
        before = self.branch(shots.before.flatten(0, 1)).unflatten(0, (windows, count))
        sound = self.hear(shots.heard) * shots.hears.view(-1, 1, 1, 1) + self.silent * (1 - shots.hears.view(-1, 1, 1, 1))
        references = self.pages() if pages is None else pages
        return Seen(references, before, (sound + self.offset).flatten(0, 1), self.order)

    def _tell(self, t: torch.Tensor, shots: Shots) -> torch.Tensor:
        pitch = torch.exp2(torch.arange(FOURIER, device=t.device, dtype=t.dtype))
        angle = t[:, None] * pitch
        wave = torch.cat([angle.sin(), angle.cos()], 1)[:, None].expand(-1, shots.told.shape[1], -1)
        return torch.as_tensor(self.tell(torch.cat([wave, shots.told], 2)).flatten(0, 1))
