"""Pieces of the stream: joined, they are the stitched file."""

from __future__ import annotations

import importlib.util
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Segment, Span
from deployments.errors import RenderError
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_chunk
from deployments.media.fragments import make_fragment, prepare_sound
from deployments.media.probe import probe
from deployments.media.sound import SoundPlan
from deployments.media.stitch import stitch

_SPEC = importlib.util.spec_from_file_location("media_clock", Path(__file__).with_name("conftest.py"))
clock = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clock)

OURS = {"comment": "ours"}
OF_THE_CONTAINER = ("major_brand", "minor_version", "compatible_brands", "encoder")
B_FRAMES = {"bf": "3", "g": "24"}
CLIPS = {
    "b-frames": {"options": B_FRAMES},
    "variable rate": {"rate": Fraction(600), "steps": (20, 35, 21, 90), "options": B_FRAMES},
    "23.976": {"rate": Fraction(24000, 1001), "options": B_FRAMES},
    "23.976 counted in frames": {"name": "source.avi", "codec": "mpeg4", "rate": Fraction(24000, 1001)},
    "rotated": {"rotation": 90, "options": B_FRAMES},
    "hevc 10 bit": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
}


def spans_of(frames: int, parts: int) -> list[Span]:
    borders = np.unique(np.linspace(0, 1, parts + 1) ** 1.3 * frames).astype(int)
    return [Span(int(start), int(stop)) for start, stop in itertools.pairwise(borders)]


def pieces(clip: Clip, sound: SoundPlan, parts: int, folder: Path, backwards: bool = False) -> tuple[list[Path], list[Path]]:
    """Chunks and their pieces of the stream."""
    ready = prepare_sound(clip, clip.pts, sound, folder / "sound.m4a")
    chunks, made = [], []
    spans = spans_of(clip.frames, parts)
    for span in reversed(spans) if backwards else spans:
        chunk = folder / f"{span.start:05d}.mkv"
        encode_chunk(clip, decode(clip, span), EncodeOptions(), chunk)
        make_fragment(clip, chunk, span, clip.pts, ready, chunk.with_suffix(".m4s"), first=span.start == 0, metadata=OURS)
        chunks.append(chunk)
        made.append(chunk.with_suffix(".m4s"))
    return sorted(chunks), sorted(made)


def joined(parts: list[Path], out: Path) -> Path:
    out.write_bytes(b"".join(part.read_bytes() for part in parts))
    return out


def plan(clip: Clip, seconds: float | None = None) -> SoundPlan:
    return SoundPlan(clock.tone(seconds or float(clip.duration), 330.0), clock.SOUND_RATE)


@pytest.mark.parametrize("parts", [1, 2, 5, 9])
@pytest.mark.parametrize("kind", list(CLIPS))
def test_pieces_play_every_frame_at_its_time(make_clock: clock.ClockMaker, tmp_path: Path, kind: str, parts: int) -> None:
    clip = probe(make_clock(**CLIPS[kind]))
    _, made = pieces(clip, plan(clip), parts, tmp_path)
    out = joined(made, tmp_path / "stream.mp4")
    numbers, times = clock.read_clock(out)
    assert numbers == list(range(clip.frames))
    wanted = [int(stamp) * clip.time_base for stamp in clip.pts - clip.pts[0]]
    assert times == wanted, "the clock begins at 0"
    assert probe(out).rotation == clip.rotation


@pytest.mark.parametrize("parts", [1, 4])
def test_the_sound_is_the_stitched_files(make_clock: clock.ClockMaker, tmp_path: Path, parts: int) -> None:
    clip = probe(make_clock(options=B_FRAMES))
    chunks, made = pieces(clip, plan(clip), parts, tmp_path)
    stitch(clip, chunks, clip.pts, plan(clip), tmp_path / "out.mp4")
    streamed = [data for _, data in clock.sound_packets(joined(made, tmp_path / "stream.mp4"))]
    assert streamed == [data for _, data in clock.sound_packets(tmp_path / "out.mp4")] and len(streamed) > 10
    times = [time for time, _ in clock.sound_packets(tmp_path / "stream.mp4")]
    assert set(np.diff(times)) == {Fraction(1024, 48000)}, "no gap and no repeat"


def test_sound_that_is_ready_is_not_encoded_again(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES, tracks=("mp2",), name="source.mkv"))
    sound = SoundPlan(clock.tone(float(clip.duration), 660.0), clock.SOUND_RATE, (Segment(Fraction(1, 2), Fraction(1)),), True)
    chunks, _ = pieces(clip, sound, 2, tmp_path)
    stitch(clip, chunks, clip.pts, sound, tmp_path / "a.mp4", OURS)
    stitch(clip, chunks, clip.pts, sound, tmp_path / "b.mp4", OURS, ready=tmp_path / "sound.m4a")
    assert clock.sound_packets(tmp_path / "a.mp4") == clock.sound_packets(tmp_path / "b.mp4")
    comments = []
    for name in ("a.mp4", "b.mp4"):
        with av.open(str(tmp_path / name)) as container:
            comments.append(container.metadata["comment"])
    assert comments[0] == comments[1] and "encoded again" in comments[0]


def test_picture_and_sound_keep_their_distance(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES))
    chunks, made = pieces(clip, plan(clip), 3, tmp_path)
    stitch(clip, chunks, clip.pts, plan(clip), tmp_path / "out.mp4")
    stream = joined(made, tmp_path / "stream.mp4")

    def distance(path: Path) -> Fraction:
        return clock.read_clock(path)[1][0] - clock.sound_packets(path)[0][0]

    assert abs(distance(stream) - distance(tmp_path / "out.mp4")) <= Fraction(1, 48000)


def said_and_heard(path: Path) -> tuple[dict[str, str], list[tuple[int, int]], bytes]:
    """A file's tags, and its decoded sound: the times of its frames, and all samples."""
    with av.open(str(path)) as container:
        tags = {name: value for name, value in container.metadata.items() if name not in OF_THE_CONTAINER}
        frames = list(container.decode(audio=0))
    times = [(frame.pts * frame.time_base, frame.samples) for frame in frames]
    return tags, times, b"".join(frame.to_ndarray().tobytes() for frame in frames)


@pytest.mark.parametrize("kind", ["new sound", "a segment, and a codec that is encoded again"])
def test_the_stream_says_what_the_file_does_and_sounds_from_the_same_sample_on(
    make_clock: clock.ClockMaker, tmp_path: Path, kind: str
) -> None:
    clip = probe(make_clock(options=B_FRAMES, tracks=("mp2",), name="source.mkv"))
    sound = plan(clip)
    if kind != "new sound":
        sound = SoundPlan(
            clock.tone(float(clip.duration), 660.0), clock.SOUND_RATE, (Segment(Fraction(1, 2), Fraction(1)),), True
        )
    chunks, made = pieces(clip, sound, 3, tmp_path)
    stitch(clip, chunks, clip.pts, sound, tmp_path / "out.mp4", OURS, ready=tmp_path / "sound.m4a")
    stream = joined(made, tmp_path / "stream.mp4")
    (tags, times, samples), (wanted_tags, wanted_times, wanted) = map(said_and_heard, (stream, tmp_path / "out.mp4"))
    assert tags == wanted_tags and "ours" in tags["comment"]
    assert ("encoded again" in tags["comment"]) == (kind != "new sound")
    assert times == wanted_times
    assert samples == wanted


def test_every_beginning_plays_and_the_order_of_making_does_not_matter(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, forwards = pieces(clip, plan(clip), 4, tmp_path / "a")
    _, backwards = pieces(clip, plan(clip), 4, tmp_path / "b", backwards=True)
    assert [path.read_bytes() for path in forwards] == [path.read_bytes() for path in backwards]
    for count, span in enumerate(spans_of(clip.frames, 4), 1):
        assert clock.read_clock(joined(forwards[:count], tmp_path / "begin.mp4"))[0] == list(range(span.stop))


def test_a_segments_sound_is_laid_over_the_sources(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES, tracks=("aac",)))
    sound = SoundPlan(clock.tone(float(clip.duration), 660.0), clock.SOUND_RATE, (Segment(Fraction(1, 2), Fraction(1)),), True)
    chunks, made = pieces(clip, sound, 3, tmp_path)
    stitch(clip, chunks, clip.pts, sound, tmp_path / "out.mp4")
    streamed = [data for _, data in clock.sound_packets(joined(made, tmp_path / "stream.mp4"))]
    assert streamed == [data for _, data in clock.sound_packets(tmp_path / "out.mp4")]


def test_a_chunk_of_another_length_is_refused(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock())
    encode_chunk(clip, decode(clip, Span(0, 20)), EncodeOptions(), tmp_path / "a.mkv")
    with pytest.raises(RenderError, match="expected 21 frames"):
        make_fragment(clip, tmp_path / "a.mkv", Span(0, 21), clip.pts, None, tmp_path / "a.m4s", first=True)
    assert not list(tmp_path.glob("*.m4s"))
