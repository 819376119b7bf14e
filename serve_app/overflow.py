"""Speech that is too long for its slot: its frames go on back and forth, or run slower, until it ends; what follows comes later.

Pure: numbers in, a longer plan out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Clip, Segment
from deployments.errors import OptionError
from serve_app.planner import Plan, SyncMode, Timeline, describe, frame_ticks, ramp, segment_weight, split

FEWEST_FRAMES = 3  # of a slot that shall go back and forth
ONE_OF = 3  # frames of a slot that runs slower is shown twice, at most: beyond that a person wades
LENGTHENING = ("bounce", "remap")  # the modes that make a slot longer


def slot_frames(clip: Clip, segment: Segment) -> tuple[int, int]:
    """First and last + 1 of the frames that are shown in a segment. Raises OptionError for too few of them."""
    ticks = clip.pts - clip.pts[0]
    first, last = (int(np.searchsorted(ticks, float(t / clip.time_base), side="left")) for t in (segment.start, segment.end))
    if last - first < FEWEST_FRAMES:
        raise OptionError(f"expected at least {FEWEST_FRAMES} frames in the slot {describe(segment)} to make it longer")
    return first, last


def back_and_forth(clip: Clip, segment: Segment, more: Fraction) -> NDArray[np.int64]:
    """Frames to show once more after the slot's last one, for at least `more` seconds: backwards, and up to the last again.

    Every step is to a neighbour, so the picture never jumps: not where the slot begins to turn, and not where it goes on.
    """
    first, last = slot_frames(clip, segment)
    lasting = frame_ticks(clip)
    wanted, turns = more / clip.time_base, []
    while wanted > 0:
        for reach in range(1, last - first):
            turn = np.concatenate([np.arange(last - 2, last - 2 - reach, -1), np.arange(last - reach, last)])
            if int(lasting[turn].sum()) >= wanted:
                break
        turns.append(turn)
        wanted -= int(lasting[turn].sum())
    return np.concatenate(turns) if turns else np.zeros(0, np.int64)


def slower(clip: Clip, segment: Segment, more: Fraction) -> NDArray[np.int64]:
    """The slot's frames, as many of them shown twice as last `more` seconds together, evenly spread; or as many as may be."""
    first, last = slot_frames(clip, segment)
    lasting, frames = frame_ticks(clip), np.arange(first, last)
    for count in range(1, len(frames) // ONE_OF + 1):
        twice = first + (np.arange(count) * len(frames) + len(frames) // 2) // count
        if int(lasting[twice].sum()) * clip.time_base >= more:
            break
    return np.sort(np.concatenate([frames, twice]))


def shown_in(clip: Clip, segment: Segment, more: Fraction, mode: SyncMode) -> NDArray[np.int64]:
    """Frames that a slot shows that shall last at least `more` seconds longer.

    `remap` runs it slower, by a third at most; what is still missing then, and with `bounce` all, goes back and forth.
    """
    first, last = slot_frames(clip, segment)
    order = slower(clip, segment, more) if mode == "remap" else np.arange(first, last)
    missing = more - added(clip, segment, order)
    return np.concatenate([order, back_and_forth(clip, segment, missing)]) if missing > 0 else order


def added(clip: Clip, segment: Segment, order: NDArray[np.int64]) -> Fraction:
    """Seconds by which the frames of a slot last longer than it was filmed."""
    first, last = slot_frames(clip, segment)
    lasting = frame_ticks(clip)
    return (int(lasting[order].sum()) - int(lasting[first:last].sum())) * clip.time_base


def longer(clip: Clip, segment: Segment, seconds: Fraction, mode: SyncMode = "bounce") -> Fraction:
    """How long a slot becomes that shall hold `seconds`: whole frames more, or as long as it is."""
    length = segment.end - segment.start
    if seconds <= length:
        return length
    return length + added(clip, segment, shown_in(clip, segment, seconds - length, mode))


def give_room(
    plan: Plan,
    clip: Clip,
    wanted: Mapping[Segment, Fraction],
    chunks: int | None,
    workers: int,
    streams: bool,
    mode: SyncMode = "bounce",
) -> Plan:
    """The plan with every slot as long as `wanted` tells; what follows a slot keeps its frames and comes later."""
    pieces: list[NDArray[np.int64]] = []
    moved: list[Segment] = []
    inserted: list[tuple[Fraction, Fraction]] = []
    shown, late = 0, Fraction(0)
    for segment in plan.segments:
        length = segment.end - segment.start
        more, by = wanted.get(segment, length) - length, Fraction(0)
        if more > 0:
            first, last = slot_frames(clip, segment)
            order = shown_in(clip, segment, more, mode)
            by = added(clip, segment, order)
            pieces += [np.arange(shown, first), order]
            shown = last
            inserted.append((segment.end, by))
        moved.append(Segment(segment.start + late, segment.end + late + by))
        late += by
    if not inserted:
        return plan
    timeline = in_order(clip, np.concatenate([*pieces, np.arange(shown, clip.frames)]), clip.duration + late)
    times = (timeline.pts - timeline.pts[0]) * float(timeline.time_base)
    frames = len(timeline.order)
    spans = ramp(frames, workers) if streams and chunks is None else split(frames, chunks, workers)
    weight = segment_weight(times, moved)
    return replace(plan, timeline=timeline, weight=weight, spans=spans, segments=tuple(moved), inserted=tuple(inserted))


def in_order(clip: Clip, order: NDArray[np.int64], seconds: Fraction) -> Timeline:
    """Frames one after the other, each for as long as in the clip."""
    lasting = frame_ticks(clip)[order]
    return Timeline(order, int(clip.pts[0]) + np.concatenate([[0], np.cumsum(lasting)[:-1]]), seconds, clip.time_base)


def as_filmed(order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which output frames [T_out] are shown for the first time: all but those that a slot was made longer by."""
    first = np.zeros(len(order), np.bool_)
    first[np.unique(order, return_index=True)[1]] = True
    return first
