"""Plans: every frame once, clocks exact, nothing outside what was asked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deployments.contracts import Clip, Segment, Track
from deployments.errors import MediaError, OptionError
from serve_app.planner import SyncMode, check_clip, cut_at, frame_ticks, make_plan, presence, ramp, segment_weight, split

TICK = Fraction(1, 90000)


def clip(frames: int = 100, seed: int | None = None, start: int = 0) -> Clip:
    """25 fps, or irregular for a seed."""
    lasting = np.full(frames, 3600) if seed is None else np.random.default_rng(seed).integers(1500, 9000, frames)
    pts = start + np.concatenate([[0], np.cumsum(lasting)[:-1]])
    duration = int(lasting.sum()) * TICK
    return Clip(Path("x.mp4"), 640, 480, 0, "h264", "yuv420p", 8, TICK, pts, np.array([0]), duration, Fraction(frames) / duration)


@pytest.mark.parametrize("frames", [1, 2, 7, 99, 1000])
@pytest.mark.parametrize("chunks", [None, 1, 2, 5, 9])
def test_chunks_cover_every_frame_once(frames: int, chunks: int | None) -> None:
    if chunks is not None and chunks > frames:
        with pytest.raises(OptionError):
            split(frames, chunks, 2)
        return
    spans = split(frames, chunks, 2)
    assert [f for span in spans for f in range(span.start, span.stop)] == list(range(frames))
    lengths = [len(span) for span in spans]
    assert max(lengths) - min(lengths) <= 1 and (chunks is None or len(spans) == chunks)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("seconds", [Fraction(1), Fraction(401, 100), Fraction(17)])
@pytest.mark.parametrize("mode", ["cut_off", "silence", "loop", "bounce", "remap"])
def test_modes(mode: SyncMode, seconds: Fraction, seed: int | None) -> None:
    source = clip(seed=seed, start=1234)
    line = make_plan(source, seconds, (), mode, None, 2).timeline
    assert len(line.order) == len(line.pts) and line.pts[0] * line.time_base == 1234 * TICK and (np.diff(line.pts) > 0).all()
    assert line.order.min() >= 0 and line.order.max() < source.frames
    expected = {"silence": source.duration, "remap": seconds, "cut_off": min(seconds, source.duration)}
    assert line.duration == expected.get(mode, seconds)
    shown = int(line.pts[-1] - line.pts[0]) * line.time_base
    assert shown < line.duration
    if mode in ("silence", "remap"):
        assert line.is_source(source.frames)
    if mode in ("loop", "bounce"):
        assert line.duration - shown <= max(frame_ticks(source)) * TICK


def test_loops_keep_how_long_every_frame_lasts() -> None:
    source = clip(seed=3)
    line = make_plan(source, source.duration * 3, (), "loop", None, 1).timeline
    lasting = frame_ticks(source)
    assert (line.order[:300] == np.tile(np.arange(100), 3)).all()
    assert (np.diff(line.pts) == lasting[line.order[:-1]]).all()


def test_bounce_never_shows_an_end_twice() -> None:
    line = make_plan(clip(), Fraction(13), (), "bounce", None, 1).timeline
    assert (np.abs(np.diff(line.order)) == 1).all()


def test_remap_refuses_two_frames_on_one_tick() -> None:
    with pytest.raises(OptionError, match="cut_off"):
        make_plan(clip(), Fraction(1, 10000), (), "remap", None, 1)


def test_weights_stay_inside_the_segments() -> None:
    times = np.arange(100) / 25
    segments = [Segment(Fraction(1), Fraction(2)), Segment(Fraction(2), Fraction(5, 2))]
    weight = segment_weight(times, segments)
    outside = (times < 1) | (times >= 2.5)
    assert (weight[outside] == 0).all() and weight.max() == 1 and (weight[30:45] == 1).all()


def test_a_face_that_is_lost_is_left_within_some_frames_and_a_cut_at_once() -> None:
    usable, shot = np.ones(40, bool), np.zeros(40, np.int32)
    usable[15:20] = usable[30:] = False
    shot[30:] = 1  # a cut to something else
    track = Track(np.zeros((40, 478, 3), np.float32), np.ones(40, np.float32), usable, shot)
    weight = presence(track, np.arange(40) / 25)
    assert (weight[~usable] == 0).all()
    assert 0 < weight[14] < weight[13] == 1 == weight[21] > weight[20] > 0, "80 ms are two frames of 40"
    assert (weight[22:30] == 1).all() and (weight[:13] == 1).all()


@pytest.mark.parametrize(
    "segments",
    [[(-1, 1)], [(1, 1)], [(2, 1)], [(3, 5)], [(0, 2), (1, 3)]],
)
def test_segments_that_mean_nothing(segments: list[tuple[int, int]]) -> None:
    with pytest.raises(OptionError):
        make_plan(clip(), Fraction(1), [Segment(Fraction(a), Fraction(b)) for a, b in segments], "cut_off", None, 1)


def test_pictures_that_are_too_small_or_large() -> None:
    from dataclasses import replace

    for width, height in ((8, 8), (640, 8), (10000, 4000)):
        with pytest.raises(MediaError, match="pixels a side"):
            check_clip(replace(clip(), width=width, height=height))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("frames", [1, 24, 49, 50, 74, 75, 101, 1500, 15000])
def test_a_ramp_covers_every_frame_once_and_begins_and_ends_short(frames: int, workers: int) -> None:
    spans = ramp(frames, workers)
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])] and spans[-1].stop == frames
    assert len(spans[0]) <= 74 and len(spans[-1]) <= 74
    assert all(25 <= len(span) <= 300 for span in spans) or frames < 25


def test_a_job_is_cut_again_where_it_was_cut_before() -> None:
    spans = ramp(700, 3)
    edges = [0, *(span.stop for span in spans)]
    assert cut_at(edges, 700) == spans
    for wrong in ([0, 10], [5, 700], [0, 300, 200, 700], [0, 700, 701], []):
        assert cut_at(wrong, 700) is None, "a plan of another length means nothing here"
