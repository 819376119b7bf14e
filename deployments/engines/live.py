"""A portrait that speaks while its sound is still coming, for a server: pieces of sound in, pieces of film out."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.errors import MediaError, OptionError, SpeechError

Form = Literal["mp4", "jpeg"]
RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
SIDES = (128, 1024)  # pixels of the larger side
FPS = 25
MODEL_RATE = 16000
JPEG_QUALITY = 88
STAMP = struct.Struct(">Q")  # microseconds from the beginning of the sound, before every JPEG


@dataclass(frozen=True)
class LiveTask:
    """All that a replica is told of a live portrait. Raises OptionError."""

    engine: str
    image: str  # its key in the store
    rate: int  # Hz of the sound: mono, signed 16 bits, little-endian
    form: Form = "mp4"
    side: int = 512  # the picture is made smaller until its larger side is this
    seconds: float = 600.0  # of sound at most
    options: dict[str, Any] = field(default_factory=dict)
    avatar: str = ""  # key of a fitted person, whose way of moving is taken; empty: everybody's

    def __post_init__(self) -> None:
        if self.rate not in RATES:
            raise OptionError(f"expected a rate of {', '.join(map(str, RATES))} Hz, got {self.rate}; resample the sound")
        if not SIDES[0] <= self.side <= SIDES[1]:
            raise OptionError(f"expected a side of {SIDES[0]} to {SIDES[1]} pixels, got {self.side}")


class Talking(Protocol):
    """What an engine's `stream.open_stream` gives: frames [H, W, 3] for mono sound [N] at 16 kHz as it comes."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    @property
    def look_ahead(self) -> float:
        """Seconds of sound that a frame waits for, at most."""
        ...

    def push(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.uint8]]:
        """Frames that can be made now."""
        ...

    def finish(self) -> Iterator[NDArray[np.uint8]]:
        """The last frames."""
        ...


@dataclass(frozen=True)
class Started:
    """What the caller must know before the first frame."""

    width: int
    height: int
    fps: int
    mime: str
    sound_rate: int  # of the film; 0 without sound in it
    look_ahead: float  # seconds of sound that a frame waits for, at most


@dataclass(frozen=True)
class Piece:
    """Some frames, and up to where they go."""

    data: tuple[bytes, ...]  # one part of an MP4 file, or JPEGs with their time stamps
    frames: int  # made so far


def run_live(
    task: LiveTask, image: Path, avatar: Path | None, sound: Iterator[bytes], emit: Callable[[Started | Piece], None]
) -> int:
    """Speak what comes; returns how many frames were made. Raises MediaError, NoFaceError, OptionError or SpeechError."""
    module = import_module(f"deployments.engines.{task.engine}.stream")
    talking: Talking = module.open_stream(read_picture(image, task.side), task.options, avatar)
    height, width = talking.size
    packing = _Mp4(width, height, task.rate) if task.form == "mp4" else _Jpegs()
    emit(Started(width, height, FPS, packing.mime, packing.sound_rate, talking.look_ahead))
    heard = 0
    to_model = _Resampled(task.rate, MODEL_RATE)
    for piece in sound:
        samples = samples_of(piece)
        heard += len(samples)
        if heard > task.seconds * task.rate:
            raise SpeechError(f"expected at most {task.seconds:g} s of sound in one stream, got more; open another one")
        packing.hear(samples)
        _send(packing, talking.push(to_model.push(samples)), emit)
    _send(packing, _joined(talking, to_model.finish()), emit)
    if last := packing.finish():
        emit(Piece((last,), packing.frames))
    return packing.frames


def _joined(talking: Talking, rest: NDArray[np.float32]) -> Iterator[NDArray[np.uint8]]:
    yield from talking.push(rest)
    yield from talking.finish()


def _send(packing: _Mp4 | _Jpegs, frames: Iterator[NDArray[np.uint8]], emit: Callable[[Started | Piece], None]) -> None:
    """Frames a few at a time: a burst of ten is not held back until its last one is drawn."""
    few: list[NDArray[np.uint8]] = []
    began = time.monotonic()
    for frame in frames:
        few.append(frame)
        if time.monotonic() - began > 2 / FPS:
            emit(Piece(packing.pack(few), packing.frames))
            few, began = [], time.monotonic()
    if few:
        emit(Piece(packing.pack(few), packing.frames))


class _Mp4:
    """Frames and sound as parts of one fragmented MP4."""

    def __init__(self, width: int, height: int, rate: int) -> None:
        from deployments.media.live import SOUND_RATES, LiveFilm

        self.sound_rate = rate if rate in SOUND_RATES else 2 * rate  # a block of AAC would last too long at 8 kHz
        self._resampled = _Resampled(rate, self.sound_rate)
        self._film = LiveFilm(width, height, FPS, self.sound_rate)
        self.mime, self.frames = self._film.mime, 0

    def hear(self, samples: NDArray[np.float32]) -> None:
        self._film.hear(self._resampled.push(samples))

    def pack(self, frames: Sequence[NDArray[np.uint8]]) -> tuple[bytes, ...]:
        self.frames += len(frames)
        return (self._film.show(frames),)

    def finish(self) -> bytes:
        self._film.hear(self._resampled.finish())
        return self._film.finish()


class _Jpegs:
    """Every frame by itself, with its time; the sound is the caller's own."""

    mime, sound_rate = "image/jpeg", 0

    def __init__(self) -> None:
        self.frames = 0

    def hear(self, samples: NDArray[np.float32]) -> None:
        """The caller has it."""

    def pack(self, frames: Sequence[NDArray[np.uint8]]) -> tuple[bytes, ...]:
        return tuple(self._one(frame) for frame in frames)

    def finish(self) -> bytes:
        return b""

    def _one(self, frame: NDArray[np.uint8]) -> bytes:
        import cv2

        stamp = STAMP.pack(self.frames * 1_000_000 // FPS)
        self.frames += 1
        _, data = cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return stamp + data.tobytes()


class _Resampled:
    """Sound at another rate, piece by piece: the result does not depend on how it is cut."""

    def __init__(self, source: int, target: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ") if source != target else None

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples if self._stream is None else np.asarray(self._stream.resample_chunk(samples), np.float32)

    def finish(self) -> NDArray[np.float32]:
        none = np.zeros(0, np.float32)
        return none if self._stream is None else np.asarray(self._stream.resample_chunk(none, last=True), np.float32)


def samples_of(piece: bytes) -> NDArray[np.float32]:
    """Signed 16-bit samples as -1..1. Raises SpeechError for half a sample."""
    if len(piece) % 2:
        raise SpeechError(f"expected whole samples of 2 bytes, got a piece of {len(piece)} bytes")
    return np.asarray(np.frombuffer(piece, "<i2"), np.float32) / np.float32(32768)


def read_picture(path: Path, side: int) -> NDArray[np.uint8]:
    """Upright picture [H, W, 3] RGB with even sides, the larger one `side` at most. Raises MediaError."""
    import cv2

    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise MediaError(f"{path.name}: expected a picture (PNG, JPEG, WebP, …), got something else")
    scale = side / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = picture.shape[:2]
    even: NDArray[np.uint8] = np.ascontiguousarray(picture[: height // 2 * 2, : width // 2 * 2, ::-1], dtype=np.uint8)
    return even
