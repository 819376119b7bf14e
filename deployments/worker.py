"""One chunk, plain Python: open the clip, decode the span, render, paste, encode. Frames never leave this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, Deepens, Engine, Motion, Patch, Progress, Span, Track
from deployments.engines.registry import get_engine
from deployments.errors import LipSyncError, OutputError, RenderError
from deployments.media.decode import YuvPicture, decode, decode_order
from deployments.media.encode import EncodeOptions, encode_chunk
from deployments.records import load_motion, load_track, pick_rows

Tick = Callable[[int], None]
"""`tick(frames)` after every few frames; raises `Cancelled` to stop."""


@dataclass(frozen=True)
class StreamTask:
    """What a chunk's piece of the stream needs besides its frames: the clock of the output, and its sound."""

    pts: NDArray[np.int64]  # [T_out] in units of `time_base`
    time_base: Fraction
    sound: Path | None  # encoded once for the job
    out: Path
    metadata: dict[str, str] = field(default_factory=dict)  # the output's tags


@dataclass(frozen=True)
class FitTask:
    """What a worker is told that shall learn a person."""

    engine: str
    clip: Clip
    track: Path
    out: Path  # folder
    deeper: bool = False  # with what `limits().deeper` asks for


@dataclass(frozen=True)
class ReportTask:
    """What a worker is told that shall measure a result."""

    out: Path
    clip: Path
    track: Path
    facts: dict[str, Any]
    folder: Path
    run: Callable[..., Iterable[Any]] = map  # pieces of the tracking side by side, where there are hands for it


@dataclass(frozen=True)
class ChunkTask:
    """All that a worker is told."""

    clip: Clip
    span: Span  # output frames
    order: NDArray[np.int64] | None  # [T_out] source frame of every output frame; None: as filmed from the first
    engine: str
    avatar: Avatar
    motion: Path
    track: Path  # of the source's frames
    encode: EncodeOptions
    out: Path
    stream: StreamTask | None = None  # None: nobody watches while it is made
    copied: bool = False  # the source's own packets: nothing changes in whole closed groups


@dataclass(frozen=True)
class ChunkResult:
    """What a worker answers."""

    span: Span
    out: Path
    patched: int  # frames that were changed
    seconds: float


def render_chunk(task: ChunkTask, tick: Tick) -> ChunkResult:
    """Render one chunk to `task.out`, whole or not at all.

    Raises RenderError naming the frames and the cause; errors meant for users (no space, cancelled) pass as they are.
    """
    _one_thread()
    started = time.monotonic()
    try:
        patched = _copy(task, tick) if task.copied else _render(task, tick)
        if task.stream is not None:
            _fragment(task, task.stream)
    except LipSyncError:
        raise
    except OSError as error:
        raise OutputError(f"expected room and write access at {task.out.parent}, got: {error}") from error
    except Exception as error:
        where = f"frames {task.span.start} to {task.span.stop - 1}"
        raise RenderError(f"{task.engine}: {where} failed: {type(error).__name__}: {error}") from error
    return ChunkResult(task.span, task.out, patched, time.monotonic() - started)


def load_engine(name: str) -> None:
    """Import all that rendering with an engine needs; a first chunk would wait a second or two for it."""
    get_engine(name)


def fit_engine(task: FitTask, progress: Progress) -> Avatar:
    """What the engine learns of the person of a clip, in the folder `task.out`. Raises the engine's errors."""
    engine = get_engine(task.engine)
    avatar = engine.fit(task.clip, load_track(task.track), task.out, progress)
    if task.deeper and isinstance(engine, Deepens):
        engine.deepen(avatar, task.clip, progress)
    return avatar


def write_quality_report(task: ReportTask, progress: Progress) -> Path:
    """Quality report of a result: numbers as JSON and a page to look at; returns the page."""
    from deployments.quality.evaluate import evaluate
    from deployments.quality.report import write_report

    found = evaluate(task.out, task.clip, task.facts, progress, load_track(task.track), task.run)
    return write_report(found, task.folder)


def _copy(task: ChunkTask, tick: Tick) -> int:
    from deployments.media.smart import copy_chunk

    assert task.encode.match is not None, "copied packets need the header that new ones share with them"
    span = task.span
    if task.order is not None:  # packets are known by the source's frames
        span = Span(int(task.order[span.start]), int(task.order[span.stop - 1]) + 1)
    tick(copy_chunk(task.clip, span, task.encode.match, task.out))
    return 0


def _fragment(task: ChunkTask, stream: StreamTask) -> None:
    from deployments.media.fragments import make_fragment

    clip = replace(task.clip, time_base=stream.time_base)
    make_fragment(
        clip, task.out, task.span, stream.pts, stream.sound, stream.out, first=task.span.start == 0, metadata=stream.metadata
    )


def _render(task: ChunkTask, tick: Tick) -> int:
    motion = load_motion(task.motion)
    track = shown_track(task, len(motion.weight))
    painted = _Painted(task, get_engine(task.engine), motion, track, tick)
    encoded = encode_chunk(task.clip, iter(painted), task.encode, task.out)
    if encoded != len(task.span):
        raise RenderError(f"expected {len(task.span)} frames from {task.span.start} on, got {encoded}")
    return painted.patched


def shown_track(task: ChunkTask, frames: int) -> Track:
    """The track of the output's frames."""
    state = task.track.stat() if task.track.is_file() else None
    order = None if task.order is None else task.order.astype(np.int64).tobytes()
    return _shown_track(task.track, state and (state.st_mtime_ns, state.st_size, state.st_ino), order, frames)


@lru_cache(maxsize=1)
def _shown_track(path: Path, state: tuple[int, int, int] | None, order: bytes | None, frames: int) -> Track:
    """Kept while the file stays as it is: the chunks of a job ask for the same again and again."""
    track = load_track(path)
    if order is not None or frames != len(track.usable):
        track = pick_rows(track, np.arange(frames) if order is None else np.frombuffer(order, np.int64))
        track.landmarks.flags.writeable = False  # what is made of it may be kept, too
    return track


class _Painted:
    """The pictures of a chunk with their patches on, one by one."""

    def __init__(self, task: ChunkTask, engine: Engine, motion: Motion, track: Track, tick: Tick) -> None:
        self.patched = 0
        self._task, self._engine, self._motion, self._track, self._tick = task, engine, motion, track, tick

    def __iter__(self) -> Iterator[YuvPicture]:
        task = self._task
        for_output, for_engine = tee(pictures(task.clip, task.order, task.span))
        patches = readable(self._engine.render(task.avatar, self._motion, for_engine, self._track, task.span))
        for picture, patch in zip(for_output, patches, strict=True):
            # an engine that eases may paint at the rim of a segment; outside nothing may change
            if patch is not None and self._motion.weight[picture.index] > 0:
                picture.paste(patch)
                self.patched += 1
            yield picture
            self._tick(1)


def readable(patches: Iterator[Patch | None]) -> Iterator[Patch | None]:
    """The same patches; a file that an engine cannot read is not taken for a disk that cannot be written."""
    try:
        yield from patches
    except OSError as error:
        raise RenderError(f"expected to read what the engine needs, got: {error}; fit the avatar again") from error


def pictures(clip: Clip, order: NDArray[np.int64] | None, span: Span) -> Iterator[YuvPicture]:
    """Decoded pictures of a span of output frames; `index` counts output frames."""
    if order is None:
        yield from decode(clip, span)
        return
    chosen = order[span.start : span.stop].tolist()
    for frame, picture in enumerate(decode_order(clip, chosen), span.start):
        picture.index = frame
        yield picture


def _one_thread() -> None:
    """Chunks are the parallelism; libraries that take all cores on top of it only fight."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
