"""Sizes of the hallo2 profile: SD-1.5 widths, the checkpoint's own audio and image branches, its auto-encoder and speech net."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.errors import OptionError


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


@dataclass(frozen=True)
class VaeConfig:
    """The auto-encoder of Stable Diffusion 1.5."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2  # residual blocks per level of the encoder; the decoder has one more
    latent: int = 4
    groups: int = 32
    scale: float = 0.18215  # brings latents to unit spread

    @property
    def factor(self) -> int:
        """Pixels per place of the latent picture."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class SpeechConfig:
    """The speech net: wav2vec2-base."""

    convolutions: tuple[tuple[int, int], ...] = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel, stride
    channels: int = 512
    hidden: int = 768
    feed: int = 3072
    layers: int = 12
    heads: int = 12
    place_kernel: int = 128  # of the convolution that tells places apart
    place_groups: int = 16


@dataclass(frozen=True)
class SampleConfig:
    """How frames are made; the public pipeline takes 40 steps."""

    side: int = 512  # pixels of the square picture
    window: int = 16  # frames generated together
    before: int = 2  # motion frames carried from the window before
    steps: int = 10
    guidance: float = 3.5  # 1: one pass instead of two
    dropped: float = 0.25  # share of pixels outside the face that motion frames lose, so that faults do not pile up
    seed: int = 42
    expression: float = 1.0  # how much the sound moves face and lips
    decoded: int = 4  # pictures decoded at once

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 100:
            raise OptionError(f"expected steps of 1 to 100, got {self.steps}; 10 is the natural number")
        if not 1 <= self.guidance <= 10:
            raise OptionError(f"expected guidance of 1 to 10, got {self.guidance}; the public pipeline's is 3.5")
        if not 0 <= self.expression <= 2:
            raise OptionError(f"expected an expression of 0 to 2, got {self.expression}; 1 is the natural amount")
        if self.side % 64:
            raise OptionError(f"expected a side that 64 divides, got {self.side}; take 512")


@dataclass(frozen=True)
class ProfileConfig:
    """All of the profile's sizes."""

    net: Hallo2Config = field(default_factory=Hallo2Config)
    vae: VaeConfig = field(default_factory=VaeConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    half: bool = True  # weights in bfloat16
