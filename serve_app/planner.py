"""What the output consists of: which source frame is shown when, where speech is replaced, how it is cut up.

Pure: arrays and numbers in, a frozen plan out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Segment, Span, Track
from deployments.errors import MediaError, OptionError

if TYPE_CHECKING:
    from deployments.media.encode import Match

SyncMode = Literal["cut_off", "silence", "loop", "bounce", "remap"]
SYNC_MODES: tuple[SyncMode, ...] = get_args(SyncMode)

CHUNK_FRAMES = 300  # long enough that opening a clip does not matter, short enough for progress and retries
MIN_CHUNK_FRAMES = 25
FEWEST_STILL = 8  # frames: a chunk costs a key frame
FIRST_FRAMES = 50  # of a job that somebody may watch while it is made
FINEST_TICK = Fraction(1, 90000)  # seconds; a stretched clock needs finer steps than a frame
MAX_SIDE = 8192  # pixels
MAX_SECONDS = 4 * 3600
MIN_SIDE = 16
RAMP_SECONDS = 0.08  # a mouth needs about two frames to get from its own motion to the new one


@dataclass(frozen=True)
class Timeline:
    """The output's frames: T_out of them."""

    order: NDArray[np.int64]  # [T_out] source frame index
    pts: NDArray[np.int64]  # [T_out] in units of time_base
    duration: Fraction  # seconds
    time_base: Fraction  # seconds per pts unit: the clip's, or finer

    def is_source(self, frames: int) -> bool:
        """True if the output shows the source's frames once each, in their order."""
        return len(self.order) == frames and bool((self.order == np.arange(frames)).all())


@dataclass(frozen=True)
class Plan:
    """Timeline, the frames that may change, and the pieces of work."""

    timeline: Timeline
    weight: NDArray[np.float32]  # [T_out] 0 outside the segments, 1 inside, eased at their ends
    spans: tuple[Span, ...]  # consecutive, over output frames
    segments: tuple[Segment, ...]  # empty: the whole clip
    match: Match | None = None  # how new pictures stand beside the source's own packets; None: all are encoded
    copied: frozenset[Span] = frozenset()  # those of `spans` that are packets of the source
    note: str = ""  # why packets are not copied
    inserted: tuple[tuple[Fraction, Fraction], ...] = ()  # clip seconds behind which the output has this many more

    def still(self, span: Span) -> bool:
        """Whether nothing changes in a span."""
        return not self.weight[span.start : span.stop].any()


def check_clip(clip: Clip) -> None:
    """Refuse clips that no engine can use, before work starts. Raises MediaError."""
    if clip.frames < 1:
        raise MediaError(f"{clip.path.name}: expected at least one frame, got 0; is the file complete?")
    if min(clip.width, clip.height) < MIN_SIDE or max(clip.width, clip.height) > MAX_SIDE:
        raise MediaError(
            f"{clip.path.name}: expected a picture of {MIN_SIDE} to {MAX_SIDE} pixels a side, "
            f"got {clip.width}x{clip.height}; scale it first"
        )
    if clip.duration > MAX_SECONDS:
        raise MediaError(f"{clip.path.name}: expected at most {MAX_SECONDS} s, got {float(clip.duration):.0f} s; cut it")


def make_plan(
    clip: Clip,
    speech_seconds: Fraction,
    segments: Sequence[Segment],
    mode: SyncMode,
    chunks: int | None,
    workers: int,
    streams: bool = False,
) -> Plan:
    """Plan a job.

    Parameters
    ----------
    speech_seconds : length of the new speech, for the whole clip (no segments).
    segments : clip time whose speech is replaced; empty means the whole clip.
    chunks : number of pieces, or None to choose.
    streams : somebody may watch while it is made, so the first pieces are short.

    Raises OptionError for segments outside the clip or overlapping ones, or too many chunks.
    """
    if segments:
        ordered = check_segments(clip, segments)
        timeline = Timeline(np.arange(clip.frames), clip.pts, clip.duration, clip.time_base)
        weight = segment_weight(clip.times(), ordered)
    else:
        ordered = ()
        timeline = lay_out(clip, speech_seconds, mode)
        weight = np.ones(len(timeline.order), np.float32)
    frames = len(timeline.order)
    spans = ramp(frames, workers) if streams and chunks is None else split(frames, chunks, workers)
    return Plan(timeline, weight, spans, ordered)


def check_segments(clip: Clip, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments in order of time. Raises OptionError if one leaves the clip, is empty, or overlaps another."""
    ordered = sorted(segments, key=lambda segment: segment.start)
    for segment in ordered:
        if not 0 <= segment.start < segment.end:
            raise OptionError(f"expected 0 <= start < end, got {describe(segment)}")
        if segment.end > clip.duration:
            raise OptionError(f"expected segments inside 0-{float(clip.duration):.3f} s, got {describe(segment)}")
    for first, second in pairwise(ordered):
        if second.start < first.end:
            raise OptionError(f"expected segments apart, got {describe(first)} and {describe(second)}; join them")
    return tuple(ordered)


def describe(segment: Segment) -> str:
    """Segment as a person writes it."""
    return f"{float(segment.start):g}-{float(segment.end):g} s"


def lay_out(clip: Clip, speech_seconds: Fraction, mode: SyncMode) -> Timeline:
    """Frames and times of the output when the whole clip gets new speech.

    `cut_off` ends with the shorter of the two, `silence` keeps the clip's length, `loop` and `bounce` go on with
    the clip until a longer speech ends, `remap` stretches the clip's time to the speech's.
    """
    if mode not in SYNC_MODES:
        raise OptionError(f"expected a sync mode of {', '.join(SYNC_MODES)}; got {mode!r}")
    whole = Timeline(np.arange(clip.frames), clip.pts, clip.duration, clip.time_base)
    if mode == "silence" or speech_seconds == clip.duration:
        return whole
    if mode == "remap":
        return stretch(clip, speech_seconds)
    if speech_seconds < clip.duration or mode == "cut_off":
        return cut(whole, clip, min(speech_seconds, clip.duration))
    return cut(repeat(clip, speech_seconds, back_and_forth=mode == "bounce"), clip, speech_seconds)


def cut(timeline: Timeline, clip: Clip, seconds: Fraction) -> Timeline:
    """The frames that start before `seconds`; at least one."""
    ticks = seconds / clip.time_base
    count = max(1, int(np.searchsorted(timeline.pts - timeline.pts[0], float(ticks), side="left")))
    return Timeline(timeline.order[:count], timeline.pts[:count], seconds, timeline.time_base)


def stretch(clip: Clip, seconds: Fraction) -> Timeline:
    """Every frame once, its time scaled, in ticks of at most `FINEST_TICK`. Two frames never share a tick."""
    finer = max(1, -int(-clip.time_base // FINEST_TICK))
    factor = seconds / clip.duration * finer
    pts = np.asarray([round(int(tick) * factor) for tick in clip.pts - clip.pts[0]], np.int64)
    if (np.diff(pts) < 1).any():
        raise OptionError(
            f"expected a longer speech, got {float(seconds):.3f} s for {clip.frames} frames; use --sync-mode cut_off"
        )
    return Timeline(np.arange(clip.frames), pts + int(clip.pts[0]) * finer, seconds, clip.time_base / finer)


def repeat(clip: Clip, seconds: Fraction, back_and_forth: bool) -> Timeline:
    """The clip again and again (forwards, or forwards and backwards) until `seconds` are covered."""
    forwards = np.arange(clip.frames)
    backwards = forwards[-2:0:-1] if back_and_forth else forwards[:0]
    lasting = frame_ticks(clip)
    turn = np.concatenate([forwards, backwards])
    times = int(seconds / (int(lasting[turn].sum()) * clip.time_base)) + 1
    order = np.tile(turn, times)
    starts = np.concatenate([[0], np.cumsum(lasting[order])[:-1]])
    return Timeline(order, starts + int(clip.pts[0]), seconds, clip.time_base)


def frame_ticks(clip: Clip) -> NDArray[np.int64]:
    """How long every frame is shown [T], in units of the clip's time base, at least 1."""
    end = int(clip.pts[0]) + round(clip.duration / clip.time_base)
    return np.maximum(np.diff(np.append(clip.pts, end)), 1)


def presence(track: Track, times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weight [T]: 0 without a usable face; where a face is lost or found within a shot, eased over `RAMP_SECONDS`, so that
    its mouth gets from one movement to the other."""
    usable = track.usable
    weight = usable.astype(np.float32)
    gone = np.flatnonzero(~usable)
    if not len(gone) or not usable.any():
        return weight
    after = np.searchsorted(gone, np.arange(len(usable)))
    for near in (gone[np.maximum(after - 1, 0)], gone[np.minimum(after, len(gone) - 1)]):
        rising = np.clip(np.abs(times - times[near]) / RAMP_SECONDS, 0, 1)
        eased = rising * rising * (3 - 2 * rising)
        weight = np.where(usable & (track.shot == track.shot[near]), np.minimum(weight, eased), weight)
    return weight.astype(np.float32)


def segment_weight(times: NDArray[np.float64], segments: Sequence[Segment]) -> NDArray[np.float32]:
    """Weight [T] in 0..1: 0 outside the segments, eased to 1 within `RAMP_SECONDS` inside them."""
    weight = np.zeros(len(times), np.float32)
    for segment in segments:
        inside = (times >= float(segment.start)) & (times < float(segment.end))
        ramp = min(RAMP_SECONDS, float(segment.end - segment.start) / 4)
        edge = np.minimum(times - float(segment.start), float(segment.end) - times)
        rising = np.clip(edge / ramp, 0, 1)
        weight = np.where(inside, rising * rising * (3 - 2 * rising), weight).astype(np.float32)
    return weight


def ramp(frames: int, workers: int) -> tuple[Span, ...]:
    """Consecutive spans that begin short, so that the first can be shown soon, and end short, so that all workers end
    together; between them as long as is good for a chunk."""
    edges = [0]
    while edges[-1] < frames:
        rest, number = frames - edges[-1], len(edges) - 1
        size = min(FIRST_FRAMES * (1 + number // workers), max(FIRST_FRAMES, rest // (2 * workers)), CHUNK_FRAMES)
        edges.append(frames if rest - size < MIN_CHUNK_FRAMES else edges[-1] + size)
    return tuple(Span(start, stop) for start, stop in pairwise(edges))


def cut_around(
    changing: NDArray[np.bool_], whole: NDArray[np.bool_], entries: NDArray[np.int64], workers: int
) -> tuple[Span, ...]:
    """Consecutive spans in which all or none of the frames change.

    Groups between two `entries` that are `whole` [T] and have no frame that is `changing` [T] stay as they are. All
    others are encoded, and cut where changes begin and end: what does not change is the same for all jobs of a clip, so
    it is cut for no number of workers.
    """
    frames = len(changing)
    edges = np.unique(np.concatenate([[0], entries, [frames]]))
    groups = [(int(a), int(b), bool(whole[a:b].all() and not changing[a:b].any())) for a, b in pairwise(edges)]
    spans: list[Span] = []
    for stays, run in groupby(groups, key=lambda group: group[2]):
        members = list(run)
        start, stop = members[0][0], members[-1][1]
        if stays:
            spans += gather([end for _, end, _ in members], start)
            continue
        for first, last, moves in alternate(changing, start, stop):
            parts = split(last - first, None, workers) if moves else split(last - first, None, 1)
            spans += [Span(first + part.start, first + part.stop) for part in parts]
    return tuple(spans)


def gather(ends: Sequence[int], start: int) -> list[Span]:
    """Groups joined to spans of about `CHUNK_FRAMES`."""
    spans = []
    for end in ends:
        if end - start >= CHUNK_FRAMES or end == ends[-1]:
            spans.append(Span(start, end))
            start = end
    return spans


def alternate(changing: NDArray[np.bool_], start: int, stop: int) -> list[tuple[int, int, bool]]:
    """(first, last, whether it changes) of the parts of a range; rests of a few frames belong to what changes."""
    parts: list[tuple[int, int, bool]] = []
    for moves, run in groupby(range(start, stop), key=lambda frame: bool(changing[frame])):
        members = list(run)
        moving = moves or len(members) < FEWEST_STILL
        if parts and parts[-1][2] == moving:
            parts[-1] = (parts[-1][0], members[-1] + 1, moving)
        else:
            parts.append((members[0], members[-1] + 1, moving))
    return parts


def cut_at(edges: Sequence[int], frames: int) -> tuple[Span, ...] | None:
    """The spans of an earlier plan, so that its finished chunks are found; None if it was for another length."""
    whole = len(edges) > 1 and edges[0] == 0 and edges[-1] == frames and all(a < b for a, b in pairwise(edges))
    return tuple(Span(start, stop) for start, stop in pairwise(edges)) if whole else None


def split(frames: int, chunks: int | None, workers: int) -> tuple[Span, ...]:
    """`frames` in consecutive spans of nearly equal length. Raises OptionError for a count that cannot be."""
    if chunks is None:
        wanted = max(-(-frames // CHUNK_FRAMES), min(workers, frames // MIN_CHUNK_FRAMES))
        chunks = max(1, min(frames, -(-wanted // workers) * workers if wanted > 1 else wanted))
    if not 1 <= chunks <= frames:
        raise OptionError(f"expected 1 to {frames} chunks for {frames} frames, got {chunks}")
    edges = [frames * number // chunks for number in range(chunks + 1)]
    return tuple(Span(start, stop) for start, stop in pairwise(edges))
