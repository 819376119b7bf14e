"""Sizes of the liveportrait profile. The defaults are those of the public checkpoints; tests use smaller ones."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AppearanceConfig:
    """From the picture to a volume of features: F."""

    widths: tuple[int, ...] = (64, 128, 256)  # at full, half and quarter size
    blocks: int = 6


@dataclass(frozen=True)
class PoseConfig:
    """From the picture to key points and pose, a ConvNeXt V2 (tiny): M."""

    depths: tuple[int, int, int, int] = (3, 3, 9, 3)
    widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    bins: int = 66  # classes of an angle, 3 degrees each


@dataclass(frozen=True)
class WarpConfig:
    """From key points to a field that moves the volume: W."""

    compress: int = 4  # channels of the volume that the field is judged by
    hourglass: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)  # at 1, 1/2, .. 1/32 of the volume's height and width
    width: int = 256  # channels of what the generator is given


@dataclass(frozen=True)
class GeneratorConfig:
    """From moved features to the picture, a SPADE decoder: G."""

    middle: int = 6  # blocks before the picture grows
    last: int = 64  # channels at four times the size of the features
    told: int = 128  # channels inside every modulation


@dataclass(frozen=True)
class StitchConfig:
    """Small nets on key points: S and the two retargeting ones."""

    stitch: tuple[int, ...] = (128, 128, 64)
    lips: tuple[int, ...] = (128, 128, 64)
    eyes: tuple[int, ...] = (256, 256, 128, 128, 64)


@dataclass(frozen=True)
class PortraitNetsConfig:
    """LivePortrait."""

    side: int = 256  # of the picture that is read; twice as large is what is drawn
    points: int = 21
    channels: int = 32  # of the volume
    depth: int = 16
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    warp: WarpConfig = field(default_factory=WarpConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    stitch: StitchConfig = field(default_factory=StitchConfig)


@dataclass(frozen=True)
class SpeechConfig:
    """The speech net that the motion transformer was trained on: HuBERT base."""

    convolutions: tuple[tuple[int, int], ...] = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel, stride
    channels: int = 512
    width: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    position_kernel: int = 128
    position_groups: int = 16


@dataclass(frozen=True)
class MotionConfig:
    """JoyVASA's motion transformer. A file that tells other window lengths, steps or more numbers is followed (`load`)."""

    points: int = 21
    width: int = 512
    layers: int = 8
    heads: int = 8
    inner: int = 2048
    window: int = 100  # frames at 25 per second
    before: int = 10  # frames of the last window that the next one is told
    steps: int = 500  # of the cosine schedule it learned with
    extra: int = 0  # numbers of a frame behind those that are read
    speech: SpeechConfig = field(default_factory=SpeechConfig)

    @property
    def latent(self) -> int:
        """Numbers of a frame: 3 of each point, size, 3 of the shift, 3 angles."""
        return 3 * self.points + 7 + self.extra


@dataclass(frozen=True)
class SamplingConfig:
    """How motion is drawn from the transformer, and how it is put onto a face."""

    steps: int | None = None  # None, all of the schedule: the published ancestral sampler; fewer: DDIM
    guidance: float = 2.8  # the published default
    smooth: float = 0.01  # share of the new value in the running mean of head and size, as published


@dataclass(frozen=True)
class CropConfig:
    """The square that the networks see."""

    scale: float = 2.3  # side in larger sides of the face's box
    up: float = 0.125  # share of the side that the square lies above the box's middle
    border: float = 0.1  # share of the side over which the pasted face fades out
