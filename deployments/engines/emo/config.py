"""Settings of the engine; every figure says why. All of them are part of an avatar's digest."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.retrieval.config import RetrievalConfig


@dataclass(frozen=True)
class WindowConfig:
    """Where the networks look: the mouth, at a size that a core can learn on in minutes."""

    density: float = 96.0  # window pixels per eye distance; a face filmed smaller is not enlarged
    pixels: int = 9216  # of the window at most
    margin: float = 0.16  # eye distances around the lips: shadow under the lip, folds beside it
    light: float = 0.06  # eye distances: what is coarser is light, which is matched and not generated
    colour_density: float = 48.0  # of the whole lower face, on which colours are matched while learning


@dataclass(frozen=True)
class LatentConfig:
    """The auto-encoder: 4 x 4 pixels become one place of the latent picture."""

    channels: int = 8  # of the latent picture
    widths: tuple[int, int] = (32, 64)  # at 1/2 and 1/4 of the window
    noise: float = 0.1  # on latents while the decoder learns: what is generated is never exact


@dataclass(frozen=True)
class DenoiserConfig:
    """The denoiser and its reference branch. EMO: a UNet of 860 M parameters; here what 3 minutes of a core can teach."""

    widths: tuple[int, int] = (96, 192)  # at 1/8 and 1/16 of the window
    heads: int = 4
    heard: int = 32  # principal parts of what the speech net hears in a frame
    around: int = 2  # frames on both sides that are heard (m of the paper)
    references: int = 4  # pictures of the person that the reference branch reads
    window: int = 8  # frames that see one another in the temporal layers
    before: int = 4  # motion frames in front of them (n of the paper)
    overlap: int = 2  # frames that two windows predict both


@dataclass(frozen=True)
class FlowConfig:
    """From the training-free picture to the generated one."""

    start: float = 0.4  # noise share of the encoded training-free picture, from where the flow starts
    steps: int = 2
    shimmer: float = 0.2  # share of the noise that belongs to a frame; the rest is the clip's and stands still
    guidance: float = 0.0  # how much more the sound says than without it; 0 needs one pass less


@dataclass(frozen=True)
class MemoryConfig:
    """How all frames together tell the look of a mouth; reaches are in the person's own spreads."""

    lips: float = 3.0  # how far lips of another shape are believed
    head: float = 6.0  # and heads held otherwise, in fifths of a radian
    sound: float = 8.0  # and other sounds
    listens: float = 0.2  # share of what is said that only alike sounds say
    noise: float = 0.2  # of a single frame, as a share of what frames differ by
    parts: int = 32  # pictures that are mixed
    most: float = 0.4  # share that is shown at most: with more, later frames were no better and stiller


@dataclass(frozen=True)
class FitConfig:
    """How one person is learned: below five minutes of one core in all."""

    code_steps: int = 250  # of the auto-encoder
    code_batch: int = 4
    code_rate: float = 1.5e-3
    steps: int = 100  # of the denoiser: from there on it only learns these frames by heart
    windows: int = 2  # in a batch
    rate: float = 5e-4
    average: float = 0.99  # of the weights over steps; the average is what is kept
    decay: float = 0.05  # of the weights
    doubt: float = 0.3  # spread of noise on what is told and heard: few frames must not be known by their numbers
    shift: int = 1  # places of 8 window pixels that everything moves by, at random
    silence: float = 0.15  # share of windows that learn without sound, for the guidance
    held_out: float = 0.12  # last share of the frames, never learned from: they stop the fit and judge it
    exclude: tuple[int, ...] = (1, 4, 12)  # frames around a learned one that are not looked up: mouths near and far
    smallest: int = 60  # usable frames; an avatar of fewer stays training-free
    most: int = 600  # frames learned from, evenly spread
    check_every: int = 25
    patience: int = 3  # checks without a better picture before it stops
    faith: float = 0.6  # in the share that is best for the held-out frames: for later ones it is smaller
    gain: float = 0.05  # dB that held-out frames must win for the learned part to be used
    seed: int = 0


@dataclass(frozen=True)
class EmoConfig(RetrievalConfig):
    """Frozen settings of the engine."""

    texture_gain: float = 1.0  # share of the nearest frame's fine texture
    sound_weight: float = 0.02  # of mouths of one shape, the one that sounded alike; more wins nothing on later frames
    window: WindowConfig = field(default_factory=WindowConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    fit: FitConfig = field(default_factory=FitConfig)
