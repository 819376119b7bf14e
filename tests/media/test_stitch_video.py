"""Chunks joined again: every frame, at its own time, as it was tagged."""

from __future__ import annotations

import importlib.util
import itertools
import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Span
from deployments.errors import OutputError, RenderError
from deployments.media.decode import decode, decode_order
from deployments.media.encode import EncodeOptions, encode_chunk, encode_new
from deployments.media.probe import probe
from deployments.media.stitch import stitch

_SPEC = importlib.util.spec_from_file_location("media_clock", Path(__file__).with_name("conftest.py"))
clock = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clock)

HIGH = EncodeOptions()
NTSC_FILM = Fraction(24000, 1001)
B_FRAMES = {"bf": "3", "g": "24"}
CLIPS = {
    "h264 with B-frames": {"options": B_FRAMES},
    "variable rate": {"rate": Fraction(600), "steps": (20, 35, 21, 90), "options": B_FRAMES},
    "23.976": {"rate": NTSC_FILM, "options": B_FRAMES},
    "60 fps": {"rate": Fraction(60), "options": B_FRAMES},
    "rotated": {"rotation": 90, "options": B_FRAMES},
    "rotated the other way": {"rotation": -90},
    "upside down": {"rotation": 180},
    "hevc 10 bit": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "mpeg1": {"codec": "mpeg1video", "name": "source.mpg"},
    "vp9": {"codec": "libvpx-vp9", "name": "source.mkv"},
}


def chunked(clip: Clip, parts: int, folder: Path, options: EncodeOptions = HIGH) -> list[Path]:
    """The clip in `parts` uneven chunks."""
    borders = np.unique(np.linspace(0, 1, parts + 1) ** 1.3 * clip.frames).astype(int)
    chunks = []
    for k, (start, stop) in enumerate(itertools.pairwise(borders)):
        chunks.append(folder / f"chunk{k}.mkv")
        assert encode_chunk(clip, decode(clip, Span(int(start), int(stop))), options, chunks[-1]) == stop - start
    return chunks


def copy_of(clip: Clip, folder: Path, name: str = "out.mp4", parts: int = 2) -> Path:
    """Decode, encode and join a clip."""
    out = folder / name
    stitch(clip, chunked(clip, parts, folder), clip.pts, None, out)
    return out


@pytest.mark.parametrize("parts", [1, 2, 5, 9])
@pytest.mark.parametrize("kind", list(CLIPS))
def test_every_frame_at_its_time(make_clock: clock.ClockMaker, tmp_path: Path, kind: str, parts: int) -> None:
    clip = probe(make_clock(**CLIPS[kind]))
    out = copy_of(clip, tmp_path, parts=parts)
    numbers, times = clock.read_clock(out)
    assert numbers == list(range(clip.frames))
    assert times == [int(stamp) * clip.time_base for stamp in clip.pts]
    again = probe(out)
    assert (again.rotation, again.bit_depth) == (clip.rotation, clip.bit_depth)
    assert (again.width, again.height) == (clip.width, clip.height)
    assert again.duration == clip.duration
    tags = clip.color | {"range": max(clip.color["range"], 1)}  # unsaid means limited
    assert again.color | {"range": max(again.color["range"], 1)} == tags


@pytest.mark.parametrize("kind", ["h264 with B-frames", "variable rate", "23.976"])
def test_matroska_keeps_times_to_its_millisecond(make_clock: clock.ClockMaker, tmp_path: Path, kind: str) -> None:
    clip = probe(make_clock(**CLIPS[kind]))
    numbers, times = clock.read_clock(copy_of(clip, tmp_path, "out.mkv"))
    assert numbers == list(range(clip.frames))
    wanted = [int(stamp) * clip.time_base for stamp in clip.pts]
    assert max(abs(t - w) for t, w in zip(times, wanted, strict=True)) <= Fraction(1, 1000)


def test_backwards(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES))
    order = list(range(clip.frames))[::-1]
    encode_chunk(clip, decode_order(clip, order), EncodeOptions(), tmp_path / "chunk.mkv")
    stitch(clip, [tmp_path / "chunk.mkv"], clip.pts, None, tmp_path / "out.mp4")
    assert clock.read_clock(tmp_path / "out.mp4")[0] == order


def test_lossless_is_bit_exact(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES))
    stitch(clip, chunked(clip, 3, tmp_path, EncodeOptions("lossless")), clip.pts, None, tmp_path / "out.mp4")
    with av.open(str(clip.path)) as old, av.open(str(tmp_path / "out.mp4")) as new:
        for before, after in zip(old.decode(video=0), new.decode(video=0), strict=True):
            assert np.array_equal(before.to_ndarray(format="yuv420p"), after.to_ndarray(format="yuv420p"))


def test_same_input_same_bytes(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock(options=B_FRAMES))
    first, second = copy_of(clip, tmp_path, "a.mp4"), copy_of(clip, tmp_path, "b.mp4")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("size", [(129, 97), (128, 97), (129, 96)])
def test_odd_sizes_stay(tmp_path: Path, size: tuple[int, int]) -> None:
    pictures = (np.full((size[1], size[0], 3), 20 * k, np.uint8) for k in range(5))
    encode_new(*size, Fraction(25), pictures, None, EncodeOptions(), tmp_path / "odd.mp4")
    clip = probe(tmp_path / "odd.mp4")
    assert (clip.width, clip.height, clip.frames) == (*size, 5)


def test_new_video_shows_its_colours(tmp_path: Path) -> None:
    color = np.array([200, 60, 90], np.uint8)
    encode_new(64, 48, Fraction(25), (np.full((48, 64, 3), color) for _ in range(4)), None, EncodeOptions(), tmp_path / "new.mp4")
    clip = probe(tmp_path / "new.mp4")
    assert clip.color == {"primaries": 1, "trc": 1, "space": 1, "range": 1}
    seen = next(iter(decode(clip, Span(0, 1)))).rgb()[20, 20]
    assert np.abs(seen.astype(int) - color).max() <= 3


def test_wrong_number_of_frames_is_refused(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock())
    chunks = chunked(clip, 3, tmp_path)
    with pytest.raises(RenderError, match="48 frames"):
        stitch(clip, chunks[:2], clip.pts, None, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*out*"))


def test_other_encoder_settings_are_refused(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock())
    encode_chunk(clip, decode(clip, Span(0, 20)), EncodeOptions(), tmp_path / "a.mkv")
    encode_chunk(clip, decode(clip, Span(20, 48)), EncodeOptions("lossless"), tmp_path / "b.mkv")
    with pytest.raises(RenderError, match="encoder settings"):
        stitch(clip, [tmp_path / "a.mkv", tmp_path / "b.mkv"], clip.pts, None, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*out*"))


def test_output_must_not_be_the_input(make_clock: clock.ClockMaker, tmp_path: Path) -> None:
    clip = probe(make_clock())
    before = clip.path.read_bytes()
    chunks = chunked(clip, 1, tmp_path)
    (tmp_path / "link.mp4").symlink_to(clip.path)
    for out in (clip.path, tmp_path / "link.mp4"):
        with pytest.raises(OutputError, match="input itself"):
            stitch(clip, chunks, clip.pts, None, out)
    assert clip.path.read_bytes() == before


@pytest.mark.parametrize("name", ["missing/out.mp4", "out.avi", "out"])
def test_places_that_cannot_be_written(make_clock: clock.ClockMaker, tmp_path: Path, name: str) -> None:
    clip = probe(make_clock())
    with pytest.raises(OutputError):
        stitch(clip, chunked(clip, 1, tmp_path), clip.pts, None, tmp_path / name)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 3000 bytes, as on a disk without space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_broken_off_work_leaves_nothing(tmp_path: Path) -> None:
    def pictures():
        yield np.zeros((48, 64, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_new(64, 48, Fraction(25), pictures(), None, EncodeOptions(), tmp_path / "new.mp4")
    assert not list(tmp_path.iterdir())
