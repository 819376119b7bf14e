"""What a result takes over from its file: the part that is shown, when it begins, and what the file says of itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Span
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_chunk
from deployments.media.probe import probe
from deployments.media.smart import copying
from deployments.media.sound import SoundPlan
from deployments.media.stitch import stitch

_SPEC = importlib.util.spec_from_file_location("media_clock", Path(__file__).with_name("conftest.py"))
clock = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clock)

ClockMaker = Callable[..., Path]
RATE = 25


def remuxed(source: Path, out: Path, earlier: Fraction = Fraction(0), **tags: str) -> Path:
    """The packets again, all `earlier` by so many seconds: MP4 hides what would be shown before 0 behind an edit list."""
    with av.open(str(source)) as old, av.open(str(out), "w") as new:
        new.metadata.update(tags)
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                ticks = round(earlier / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, streams[packet.stream.index]
                new.mux(packet)
    return out


def made_again(clip: Clip, out: Path, sound: SoundPlan | None = None) -> Path:
    chunk = out.with_name("chunk.mkv")
    encode_chunk(clip, decode(clip, Span(0, clip.frames)), EncodeOptions(), chunk)
    stitch(clip, [chunk], clip.pts, sound, out, {"comment": "made here"})
    return out


def tags_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {name.lower(): value for name, value in container.metadata.items()}


@pytest.mark.parametrize("group", [48, 8], ids=["one group", "six groups"])
def test_a_clip_that_was_trimmed_without_being_encoded_again_is_what_is_shown_of_it(
    make_clock: ClockMaker, tmp_path: Path, group: int
) -> None:
    whole = make_clock(options={"g": str(group), "bf": "2", "sc_threshold": "0"}, tracks=["aac"])
    clip = probe(remuxed(whole, tmp_path / "trimmed.mp4", Fraction(20, RATE)))
    assert clip.frames == 28 < 0.95 * 48
    numbers, times = clock.read_clock(clip.path)
    assert numbers == list(range(20, 48)), "a player shows the rest"
    assert clock.read_clock(made_again(clip, tmp_path / "out.mp4")) == (numbers, times)
    kept = copying(clip, "high").whole
    shown_whole = 0 if group == 48 else 24  # 24 to 47 begin with a key frame of their own
    assert kept.tolist() == [False] * (28 - shown_whole) + [True] * shown_whole


@pytest.mark.parametrize(("name", "begins"), [("late.mkv", 0), ("late.ts", 0), ("late.mp4", 3)])
def test_a_result_begins_when_players_show_the_source_to(make_clock: ClockMaker, tmp_path: Path, name: str, begins: int) -> None:
    whole = make_clock(options={"bf": "2"}, tracks=["aac"])
    clip = probe(remuxed(whole, tmp_path / name, Fraction(-3)))
    speech = SoundPlan(np.full(RATE * 1000, 0.1, np.float32), 16000)
    for out in (made_again(clip, tmp_path / "copied.mp4"), made_again(clip, tmp_path / "spoken.mp4", speech)):
        numbers, times = clock.read_clock(out)
        assert numbers == list(range(48)) and begins <= times[0] < begins + Fraction(1, 10)
        assert [time - times[0] for time in times] == [Fraction(k, RATE) for k in range(48)]
        with av.open(str(out)) as container:
            sound = next(container.decode(audio=0))
            assert abs(sound.pts * sound.time_base - times[0]) < 0.05, "sound and picture stay together"


def shown_by(path: Path) -> bytes:
    with av.open(str(path)) as container:
        matrix = next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
        return bytes(matrix) if matrix else b""


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_a_mirrored_clip_is_shown_mirrored_and_its_face_stays_upright(make_clock: ClockMaker, tmp_path: Path, turn: int) -> None:
    plain, clip = (probe(make_clock(f"{mirrored}.mp4", rotation=turn, mirrored=mirrored)) for mirrored in (False, True))
    assert (clip.rotation, clip.mirrored) == (turn % 360, True) and (plain.rotation, plain.mirrored) == (turn % 360, False)
    one, other = (next(iter(decode(c, Span(9, 10)))).rgb() for c in (plain, clip))
    assert np.array_equal(one, other), "turned as the plain one is: what looks for faces sees them upright"
    assert shown_by(made_again(clip, tmp_path / "out.mp4")) == shown_by(clip.path) != shown_by(plain.path)


def test_chapters_stay_where_the_clip_keeps_its_times(make_clock: ClockMaker, tmp_path: Path) -> None:
    base, parts = Fraction(1, 1000), ((0, 800, "Hello"), (800, 1920, "Goodbye"))
    told = [{"id": k, "start": a, "end": b, "time_base": base, "metadata": {"title": t}} for k, (a, b, t) in enumerate(parts)]
    with av.open(str(make_clock())) as old, av.open(str(tmp_path / "book.mp4"), "w") as new:
        new.set_chapters(told)
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    with av.open(str(made_again(probe(tmp_path / "book.mp4"), tmp_path / "out.mp4"))) as made:
        found = [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"]) for c in made.chapters()]
    assert found == [(a * base, b * base, title) for a, b, title in parts]


def test_what_a_file_says_of_itself_stays_and_what_is_left_out_is_said(make_clock: ClockMaker, tmp_path: Path) -> None:
    two = make_clock(tracks=["aac", "aac"])
    said = {"title": "Für Anna", "comment": "take 3", "creation_time": "2026-11-23T10:00:00.000000Z", "unheard": "x" * 9}
    clip = probe(remuxed(two, tmp_path / "tagged.mp4", **said))
    speech = SoundPlan(np.full(16000, 0.1, np.float32), 16000)
    copied, spoken = tags_of(made_again(clip, tmp_path / "a.mp4")), tags_of(made_again(clip, tmp_path / "b.mp4", speech))
    for tags in (copied, spoken):
        assert (tags["title"], tags["creation_time"]) == (said["title"], said["creation_time"])
    assert copied["comment"] == "take 3; made here"
    assert spoken["comment"] == "take 3; made here; left out: 1 sound track"
