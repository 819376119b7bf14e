"""Sizes of the hallo2 profile: SD-1.5 widths, the checkpoint's own audio and image branches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hallo2Config:
    """Frozen sizes; the defaults are those of the public checkpoint."""

    latent: int = 4
    channels: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    layers: int = 2  # residual blocks per level
    heads: int = 8
    groups: int = 32
    context: int = 768  # width of image and audio tokens
    positions: int = 32  # frames that temporal layers can tell apart
    face: int = 512  # face embedding
    face_tokens: int = 4
    audio_frames: int = 5  # m = 2 on both sides
    audio_layers: int = 12  # of the speech net
    audio_hidden: int = 512
    audio_tokens: int = 32
    locator: tuple[int, ...] = (16, 32, 64, 128)
