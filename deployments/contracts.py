"""What crosses a room or a process: plain frozen records, and the engine contract.

Shapes use T frames, N samples, V = 478 mesh points, K = 8 lip coefficients.
Pictures are upright (display orientation): x grows to the right, y down, in pixels of the displayed picture.
Time is `Fraction` seconds or integer pts, never float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

MESH_POINTS = 478
LIP_COEFFICIENTS = 8

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`; raises `Cancelled` to stop the work."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress: the default where nobody watches."""


@dataclass(frozen=True)
class Span:
    """Half-open range of frame indices `[start, stop)`."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"a span needs 0 <= start <= stop, got [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Segment:
    """Half-open range of clip time, in seconds, whose speech is replaced."""

    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class AudioStream:
    """One audio stream of a clip."""

    index: int  # stream index inside the container
    codec: str
    rate: int  # Hz
    channels: int
    start: Fraction  # seconds, on the clip's clock
    duration: Fraction  # seconds


@dataclass(frozen=True)
class Clip:
    """A media file as probed. `pts` lists every frame in display order, in units of `time_base`."""

    path: Path
    width: int  # displayed (after rotation), pixels
    height: int
    rotation: int  # degrees counter-clockwise needed for display: 0, 90, 180, 270
    codec: str
    pix_fmt: str
    bit_depth: int
    time_base: Fraction  # seconds per pts unit
    pts: NDArray[np.int64]  # [T]
    keyframes: NDArray[np.int64]  # frame indices of the frames where decoding can start
    duration: Fraction  # seconds, end of the last frame minus the first pts
    average_rate: Fraction  # frames per second
    color: dict[str, int] = field(default_factory=dict)  # primaries, trc, space, range as FFmpeg's integers
    audio: tuple[AudioStream, ...] = ()
    digest: str = ""  # sha256 of the file's bytes
    mirrored: bool = False  # shown left for right, after the rotation; all work is done on pictures that are not

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return len(self.pts)

    def times(self) -> NDArray[np.float64]:
        """Presentation times [T] in seconds from the first frame, for signal processing (not for muxing)."""
        return (self.pts - self.pts[0]) * float(self.time_base)


@dataclass(frozen=True)
class Track:
    """One face through a clip. Where `usable` is False the other rows are undefined."""

    landmarks: NDArray[np.float32]  # [T, 478, 3] x, y in pixels, z in the same unit
    score: NDArray[np.float32]  # [T] face presence, 0..1
    usable: NDArray[np.bool_]  # [T]
    shot: NDArray[np.int32]  # [T] number of the shot between two cuts
    light: NDArray[np.float32] | None = None  # [T, 3] median RGB of the face's skin; None: not measured


@dataclass(frozen=True)
class Speech:
    """New speech, mono.  `samples` [N] float32 in -1..1."""

    samples: NDArray[np.float32]
    rate: int  # Hz
    text: str = ""
    phonemes: tuple[tuple[str, float, float], ...] = ()  # (symbol, start s, end s), where the voice tells them

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Motion:
    """What the mouth shall do, for every output frame.

    `coefficients` live in the lip space (`deployments.motion.lip_space`), in units of the eye distance.
    `weight` 0 leaves the template's own mouth, 1 replaces it; between: eased.
    """

    coefficients: NDArray[np.float32]  # [T, 8]
    weight: NDArray[np.float32]  # [T]
    info: dict[str, Any] = field(default_factory=dict)  # offset, correlation, source: for the report
    extra: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # what one engine's `animate` tells its `render` besides


@dataclass(frozen=True)
class Patch:
    """A rendered piece of one frame, in upright pixel coordinates. Outside `alpha` > 0 nothing changes."""

    x: int
    y: int
    rgb: NDArray[np.uint8]  # [h, w, 3]
    alpha: NDArray[np.float32]  # [h, w] 0..1


@dataclass(frozen=True)
class Avatar:
    """What an engine learned of one person from one clip: a folder of safetensors and JSON."""

    engine: str
    path: Path
    digest: str


@dataclass(frozen=True)
class EngineLimits:
    """What an engine asks of the planner."""

    context_frames: int  # frames of `motion` it wants to see on both sides of a chunk
    sequential: bool  # True: chunks must be rendered in order
    options: tuple[str, ...]
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)  # lowest and highest value of an option that has them
    deeper: tuple[str, ...] = ()  # options that need more of the person than `fit` learns: `Deepens`, before the motion


class Picture(Protocol):
    """One decoded frame. Pixels that no patch touches keep their stored YUV values to the bit."""

    index: int

    def rgb(self) -> NDArray[np.uint8]:
        """Upright picture [H, W, 3], RGB."""
        ...

    def size(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        ...

    def window(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """The part [height, width, 3] of `rgb()` at (x, y), inside the picture; cheaper than all of it."""
        ...

    def paste(self, patch: Patch) -> None:
        """Blend a patch into the stored planes, in place."""
        ...


class Engine(Protocol):
    """The contract of every engine: four verbs."""

    name: str

    def limits(self) -> EngineLimits:
        """Context, order and options."""
        ...

    def fit(self, clip: Clip, track: Track, out: Path, progress: Progress = no_progress) -> Avatar:
        """Learn the person of a clip into the folder `out`. Deterministic; resumable."""
        ...

    def animate(self, speech: Speech, clip: Clip, track: Track, avatar: Avatar, options: dict[str, Any]) -> Motion:
        """Mouth motion for all frames of the clip; once per job. Speech time 0 is the first frame's time."""
        ...

    def render(
        self, avatar: Avatar, motion: Motion, pictures: Iterable[Picture], track: Track, span: Span
    ) -> Iterator[Patch | None]:
        """One patch (or None: leave the frame) for every picture of the span, in order. Pure."""
        ...


@runtime_checkable
class Deepens(Protocol):
    """An engine that can learn more of a person than most jobs need."""

    def deepen(self, avatar: Avatar, clip: Clip, progress: Progress = no_progress) -> None:
        """Learn what the options `limits().deeper` need into a fitted avatar. Deterministic; resumable."""
        ...
