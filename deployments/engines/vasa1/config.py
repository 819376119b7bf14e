"""Settings of the engine; every figure says why. All of them are part of an avatar's digest."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.retrieval.config import RetrievalConfig
from deployments.settings import liveportrait_folder


@dataclass(frozen=True)
class DecoderConfig:
    """The face decoder's size."""

    channels: tuple[int, ...] = (24, 48, 96, 128)  # at 1/2, 1/4, 1/8, 1/16 of the window
    blocks: tuple[int, ...] = (1, 1, 2, 2)  # residual blocks at each of them, on the way down and up
    code: int = 32  # numbers that say how the mouth looks: teeth, tongue, light and shadow
    density: float = 96.0  # window pixels per eye distance; a face filmed smaller is not enlarged
    window_pixels: int = 16384  # of the window at most: what a core can learn on in minutes


@dataclass(frozen=True)
class FitConfig:
    """How one person is learned: seconds for the look, about two minutes of one core for the decoder."""

    steps: int = 300
    batch: int = 4
    rate: float = 3e-4
    average: float = 0.99  # of the weights over steps; the average is what is kept
    held_out: float = 0.12  # last share of the frames, never learned from: they stop the fit and judge it
    exclude: tuple[int, ...] = (1, 4, 12)  # frames around a learned one that are not looked up: mouths near and far
    smallest: int = 60  # usable frames; an avatar of fewer stays training-free
    most: int = 600  # frames learned from, evenly spread
    decoder_frames: int = 400  # usable frames from which on the decoder is trained; from fewer it learned nothing that lasted
    check_every: int = 50
    patience: int = 3  # checks without a better picture before it stops
    gain: float = 0.3  # dB that the decoder must win on held-out frames to be used: less did not last on later ones
    seed: int = 0


@dataclass(frozen=True)
class MotionConfig:
    """The motion transformer. The paper: 8 layers, width 512; this one learned from minutes, not from weeks, of faces."""

    depth: int = 6
    width: int = 192
    heads: int = 6
    window: int = 48  # frames at 25 per second
    before: int = 10  # frames of the last window that the next one is told
    overlap: int = 8  # frames in which two windows are mixed
    dropout: float = 0.1
    audio_dropout: float = 0.3
    steps: int = 8  # of sampling
    temperature: float = 0.5  # size of the noise: 0 gives the most likely motion, 1 a typical one
    guidance: float = 0.0  # lambda_A (0.5 in the paper): here it widens what is wide enough and tells nothing new
    regression_share: float = 0.4  # of the shared regression in the lips' shape: the transformer shapes them better
    opening_share: float = 0.5  # of its opening that its own answer for it tells; the rest is that of its eight coefficients
    opening_smooth: float = 0.8  # frames: deviation of the smoothing of the opening, which trembles by itself


@dataclass(frozen=True)
class FaceConfig:
    """How a still picture is moved by the transformer's latents."""

    guidance: float = 1.0  # lambda_g, as in the paper
    temperature: float = 1.0  # of head, brows and gaze
    lid_temperature: float = 1.8  # at 1 the transformer never blinks, at 2.5 it blinks every two seconds
    told: float = 2.0  # spreads: farther than that it was never told; the rest of a control is put on afterwards
    smooth: float = 1.6  # frames: deviation of the smoothing of head, brows and gaze, whose tracks shake
    blink: float = -1.0  # spreads: lids that fall lower blink
    blink_gap: int = 30  # frames between two blinks at least
    turn: tuple[float, float, float] = (0.07, 0.09, 0.05)  # radians of yaw, pitch and roll that a photo stands
    shift: tuple[float, float] = (0.05, 0.03)  # eye distances
    nearer: float = 0.03  # log of the size
    brow_gain: float = 2.0  # measured brows move less than seen ones: the mesh follows them half
    ease: float = 0.6  # seconds from the photo's own pose to the generated one


def portrait_profile() -> str:
    """How a still picture is moved: "liveportrait" where the operator named a folder of its weights, else "compact"."""
    return "compact" if liveportrait_folder() is None else "liveportrait"


@dataclass(frozen=True)
class MannerConfig:
    """How one person's way of moving the head is learned."""

    seconds: float = 4.0  # of usable template at least
    judged: float = 15.0  # seconds at most on which it is judged
    held_out: float = 0.25  # last share, never learned from: it chooses, and judges
    batches: int = 8
    batch: int = 16  # windows
    ridges: tuple[float, ...] = (1.0, 0.1)  # of the mean variance of what the last layer sees
    rank: int = 4  # of its correction
    seeds: tuple[int, ...] = (0,)
    gain: float = 0.1  # share of the distance to the person's own motion that must go
    seed: int = 0


@dataclass(frozen=True)
class Vasa1Config(RetrievalConfig):
    """Frozen settings of the engine."""

    texture_gain: float = 1.0  # share of the nearest frame's fine texture
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    manner: MannerConfig = field(default_factory=MannerConfig)


@dataclass(frozen=True)
class StreamConfig:
    """How sound that is still coming is turned into frames."""

    first: int = 3  # frames of the first window that are shown
    hop: int = 10  # and of every later one
    ahead: int = 5  # frames of sound that are waited for beyond what is shown
    steps: int = 4  # of sampling: windows come four times as often as offline
    memory: float = 8.0  # seconds of sound that are heard again with every window, and by which loudness is judged
