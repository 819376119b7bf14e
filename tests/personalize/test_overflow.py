"""A slot that gets longer: its frames go back and forth (`bounce`) or run slower (`remap`); what follows comes later."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Segment, Span
from deployments.errors import OptionError
from deployments.media.decode import decode
from deployments.media.lengthen import lengthen
from deployments.media.probe import probe
from deployments.media.sound import SourceSound, read_sound
from serve_app.cache import Cache
from serve_app.executor import SerialExecutor
from serve_app.overflow import back_and_forth, give_room, longer, shown_in
from serve_app.personalize import Wanted, create_template, personalize
from serve_app.planner import make_plan
from serve_app.request import check_slot_mode
from serve_app.script import Value
from serve_app.templates import Templates

RATE = 48000
LONG = "Maximilian Alexander Bartholomew the Third"


def clip_of(steps: list[int], base: Fraction = Fraction(1, 100)) -> Clip:
    """A clip whose frames last so many hundredths each."""
    pts = np.concatenate([[0], np.cumsum(steps)[:-1]]) + 7
    return Clip(
        *(Path("x.mp4"), 64, 64, 0, "h264", "yuv420p", 8, base, pts, np.zeros(0, np.int64)), sum(steps) * base, Fraction(25)
    )


def seconds(a: int, b: int) -> Segment:
    return Segment(Fraction(a, 100), Fraction(b, 100))


@pytest.mark.parametrize("more", [1, 4, 9, 40, 41, 95, 400])
def test_every_step_of_a_longer_slot_is_to_a_neighbour_and_just_long_enough(more: int) -> None:
    clip, slot = clip_of([4] * 50), seconds(40, 80)  # frames 10 to 19
    extra = back_and_forth(clip, slot, Fraction(more, 100))
    whole = [*range(20), *extra.tolist(), *range(20, 50)]
    assert {abs(b - a) for a, b in pairwise(whole)} <= {1}
    assert set(extra) <= set(range(10, 20)) and more <= 4 * len(extra) < more + 8
    assert longer(clip, slot, Fraction(40 + more, 100)) == Fraction(40 + 4 * len(extra), 100)
    assert longer(clip, slot, Fraction(39, 100)) == Fraction(40, 100)


@pytest.mark.parametrize("more", [1, 4, 9, 12])
def test_a_slower_slot_never_goes_back_and_holds_no_frame_long(more: int) -> None:
    clip, slot = clip_of([4] * 50), seconds(40, 80)  # frames 10 to 19
    order = shown_in(clip, slot, Fraction(more, 100), "remap")
    steps = np.diff(order)
    assert set(order) == set(range(10, 20)) and (order[0], order[-1]) == (10, 19) and set(steps) <= {0, 1}
    held = np.flatnonzero(steps == 0)
    assert more <= 4 * len(held) < more + 4 and (np.diff(held) > 2).all(), "evenly spread"
    assert longer(clip, slot, Fraction(40 + more, 100), "remap") == Fraction(40 + 4 * len(held), 100)


def test_what_a_slower_slot_cannot_hold_goes_back_and_forth() -> None:
    clip, slot = clip_of([4] * 50), seconds(40, 80)
    order = shown_in(clip, slot, Fraction(50, 100), "remap")
    assert 4 * (len(order) - 10) >= 50 and set(np.abs(np.diff(order))) <= {0, 1} and order[-1] == 19
    assert (np.diff(order[:13]) >= 0).all() and int((np.diff(order) == 0).sum()) == 3, "a third slower, and no more"


def test_what_follows_keeps_its_own_clock() -> None:
    steps = [3, 5, 4, 4, 2, 6, 4, 4, 5, 3]
    clip = clip_of(steps)
    slots = [seconds(8, 18), seconds(24, 33)]
    plan = make_plan(clip, Fraction(1), slots, "bounce", None, 1)
    wide = give_room(plan, clip, {slots[0]: Fraction(20, 100), slots[1]: Fraction(9, 100)}, None, 1, False)
    order, pts = wide.timeline.order, wide.timeline.pts
    assert order.tolist() == [0, 1, 2, 3, 4, 3, 2, 3, 4, 5, 6, 7, 8, 9] and pts[0] == 7
    assert np.diff(pts).tolist() == [steps[k] for k in order[:-1]], "every frame lasts as long as it was filmed"
    by = Fraction(14, 100)
    assert wide.inserted == ((slots[0].end, by),) and wide.timeline.duration == clip.duration + by
    assert wide.segments == (Segment(slots[0].start, slots[0].end + by), Segment(slots[1].start + by, slots[1].end + by))
    assert (wide.weight[:2] == 0).all() and wide.weight[4:8].min() > 0 and sum(map(len, wide.spans)) == len(order)
    assert give_room(plan, clip, {slots[0]: Fraction(1, 100)}, None, 1, False) is plan
    with pytest.raises(OptionError, match="at least 3 frames"):
        back_and_forth(clip, seconds(8, 13), Fraction(1))


def test_sound_behind_what_is_inserted_is_the_same_and_later_by_the_sample() -> None:
    sound = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)
    source = SourceSound(sound, 100, Fraction(-1, 10))
    out = lengthen(source, Fraction(0), [(Fraction(2), Fraction(1, 3)), (Fraction(4), Fraction(1, 3))]).samples
    assert len(out) == 1000 + 67 and (out[:210] == sound[:210]).all() and (out[243:443] == sound[210:410]).all()
    assert (out[477:] == sound[410:]).all() and (out[242] == sound[210]).all(), "joins without a jump"
    assert lengthen(source, Fraction(0), []).samples is not None and len(lengthen(source, Fraction(0), []).samples) == 1000


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        found = [(p.pts * p.time_base, bytes(p)) for p in container.demux(container.streams.video[0]) if p.size]
    return sorted(found)


def test_words_too_long_for_their_slot_make_the_video_longer(message: Path, tracked: Cache, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text('segments: [{start: 0.9, end: 1.5, text: "{{name}}"}]')
    template = create_template(
        Templates(tracked.folder), "wide", (message, tmp_path / "s.yaml"), "fake", "largest", tracked, SerialExecutor()
    )
    out = tmp_path / "out.mp4"
    job = personalize(template, {"name": Value(LONG)}, out, Wanted("fake", "bounce"), tracked, SerialExecutor())
    before, after = probe(message), probe(out)
    more = after.frames - before.frames
    assert more > 20 and more % 2 == 0 and after.duration - before.duration == pytest.approx(more / 25, abs=0.02)
    assert (np.diff(after.pts * float(after.time_base)) == pytest.approx(1 / 25, abs=1e-6)) and job.copied == 50
    was, now = packets(message), packets(out)
    shift = Fraction(more, 25)
    kept = {round(time * 25) for time, data in was if (time, data) in now}
    late = {round(time * 25) for time, data in was if (time + shift, data) in now}
    assert kept == set(range(20)) and late == set(range(40, 70)), "the source's packets, before and behind"
    shown = [picture.rgb().astype(int) for picture in decode(after, Span(0, after.frames))]
    filmed = [picture.rgb().astype(int) for picture in decode(before, Span(0, before.frames))]
    assert all(np.abs(shown[k + more] - filmed[k]).mean() < 0.5 for k in range(40, 70))
    old, new = read_sound(message, RATE), read_sound(out, RATE)
    rest, moved = old[round(1.7 * RATE) : round(2.6 * RATE)], round(shift * RATE)
    lag = np.argmax(np.correlate(new[round(1.7 * RATE) + moved - 300 :][: len(rest) + 600], rest, "valid")) - 300
    assert abs(lag) <= 2 and "a slot is longer than it was filmed" in comment(out)
    slow = tmp_path / "slow.mp4"
    personalize(template, {"name": Value("Maximilian")}, slow, Wanted("fake", "remap"), tracked, SerialExecutor())
    late = probe(slow).frames - before.frames
    assert late > 0 and {round(t * 25) for t, data in was if (t + Fraction(late, 25), data) in packets(slow)} == set(
        range(40, 70)
    )
    again = tmp_path / "short.mp4"
    personalize(template, {"name": Value("Ann")}, again, Wanted("fake", "bounce"), tracked, SerialExecutor())
    assert probe(again).frames == before.frames, "what fits stays as long as it was filmed"
    check_slot_mode("remap")
    with pytest.raises(OptionError, match="back and forth"):
        check_slot_mode("loop")


def comment(path: Path) -> str:
    with av.open(str(path)) as container:
        return str(container.metadata.get("comment", ""))
