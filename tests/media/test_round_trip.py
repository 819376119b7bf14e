"""Every frame and every time stamp survives probe, decode, encode in chunks, and stitch; so does the sound."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Segment, Span
from deployments.media.decode import decode, decode_order
from deployments.media.encode import EncodeOptions, encode_chunk, encode_new
from deployments.media.probe import probe
from deployments.media.sound import SoundPlan, decode_track, read_sound
from deployments.media.stitch import stitch

_spec = importlib.util.spec_from_file_location("media_clock", Path(__file__).with_name("clock.py"))
assert _spec and _spec.loader
clock = sys.modules.setdefault("media_clock", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(clock)

IRREGULAR = np.cumsum([0, *np.random.default_rng(3).integers(9, 90, 39)]).tolist()
B_FRAMES = {"bf": "3", "g": "12", "x264-params": "scenecut=0:b-adapt=0:open-gop=0"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "b_frames": ("a.mp4", {"options": B_FRAMES, "sounds": (("aac", 1.6),)}),
    "open_gop": ("a.mp4", {"options": B_FRAMES | {"x264-params": "scenecut=0:b-adapt=0:open-gop=1"}}),
    "variable_rate": ("a.mp4", {"times": IRREGULAR, "options": {"bf": "2"}}),
    "film_rate": ("a.mov", {"rate": Fraction(24000, 1001)}),
    "fast": ("a.mp4", {"rate": Fraction(60)}),
    "turned_90": ("a.mp4", {"rotation": 90, "sounds": (("aac", 1.6),)}),
    "turned_270": ("a.mp4", {"rotation": -90}),
    "turned_180": ("a.mp4", {"rotation": 180}),
    "odd_size_444": ("a.mkv", {"size": (321, 239), "pix_fmt": "yuv444p"}),
    "odd_size_420": ("a.webm", {"codec": "libvpx-vp9", "size": (321, 239), "options": {"cpu-used": "8", "deadline": "realtime"}}),
    "ten_bits": (
        "a.mp4",
        {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}, "color": 9},
    ),
    "mpeg1": ("a.mpg", {"codec": "mpeg1video", "options": {"bf": "2", "g": "9"}, "sounds": (("mp2", 1.6),)}),
    "transport": ("a.ts", {"options": B_FRAMES}),
    "vp9": (
        "a.webm",
        {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}, "sounds": (("libopus", 1.6),)},
    ),
    "mpeg4_avi": ("a.avi", {"codec": "mpeg4"}),
    "sound_shorter": ("a.mp4", {"sounds": (("aac", 0.7),)}),
    "sound_longer": ("a.mp4", {"sounds": (("aac", 3.0),)}),
    "two_tracks": ("a.mkv", {"sounds": (("aac", 1.6), ("flac", 1.6))}),
    "one_frame": ("a.mp4", {"frames": 1}),
}


def shown(clip: Clip, order: list[int] | None = None) -> list[int]:
    source = decode(clip, Span(0, clip.frames)) if order is None else decode_order(clip, order)
    return [clock.read(picture.rgb()) for picture in source]


def seconds(clip: Clip) -> list[Fraction]:
    return [int(stamp) * clip.time_base for stamp in clip.pts]


def join(clip: Clip, parts: int, folder: Path, sound: SoundPlan | None = None, name: str = "out.mp4") -> Path:
    cuts = [clip.frames * k // parts for k in range(parts + 1)]
    chunks = []
    for k, (start, stop) in enumerate(pairwise(cuts)):
        if stop > start:
            chunks.append(folder / f"chunk{k}.mkv")
            assert encode_chunk(clip, decode(clip, Span(start, stop)), EncodeOptions(), chunks[-1]) == stop - start
    stitch(clip, chunks, clip.pts, sound, folder / name)
    return folder / name


def pcm(path: Path, track: int) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(container.streams.audio[track])]


def packets(path: Path, track: int) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[track]) if packet.size]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_times_survive(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    clip = probe(clock.make(tmp_path / name, **options))
    count = options.get("frames", 40)
    assert clip.frames == count
    assert shown(clip) == list(range(count))
    for parts in (1, 2, 5, 9) if kind in ("b_frames", "variable_rate") else (3,):
        out = probe(join(clip, parts, tmp_path))
        begin = seconds(clip)[0] - seconds(out)[0] if kind == "transport" else 0  # its clock begins anywhere
        assert seconds(out) == [time - begin for time in seconds(clip)]
        assert shown(out) == list(range(count))
        assert (out.width, out.height, out.rotation) == (clip.width, clip.height, clip.rotation)
        assert out.bit_depth == clip.bit_depth
        assert out.color | {"range": out.color["range"] or 1} == clip.color | {"range": clip.color["range"] or 1}
        assert len(out.audio) == len(clip.audio)
        for track in range(len(clip.audio)):
            assert packets(clip.path, track) == packets(out.path, track)
            if clip.audio[track].codec == out.audio[track].codec != "opus":  # MP4 cannot say where Opus ends
                before, after = pcm(clip.path, track), pcm(out.path, track)
                assert np.array_equal(np.concatenate(before, -1), np.concatenate(after, -1))


@pytest.mark.parametrize("kind", ["b_frames", "open_gop", "variable_rate", "mpeg1", "transport", "vp9", "turned_90"])
def test_any_span_and_any_order(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    clip = probe(clock.make(tmp_path / name, **options))
    for start, stop in ((0, 1), (11, 14), (12, 13), (23, 40), (39, 40), (7, 7)):
        assert [clock.read(p.rgb()) for p in decode(clip, Span(start, stop))] == list(range(start, stop))
    order = [5, 6, 7, 7, 6, 5, 4, 39, 38, 0, 0, 30, 2, 3, 20, 21, 19]
    assert shown(clip, order) == order


def test_lossless_chunks_keep_every_sample(tmp_path: Path) -> None:
    clip = probe(clock.make(tmp_path / "a.mp4", size=(98, 66), color=1))
    encode_chunk(clip, decode(clip, Span(0, 9)), EncodeOptions("lossless"), tmp_path / "c.mkv")
    again = probe(tmp_path / "c.mkv")
    for before, after in zip(decode(clip, Span(0, 9)), decode(again, Span(0, 9)), strict=True):
        assert np.array_equal(before.rgb(), after.rgb())


def test_new_sound_starts_with_the_first_frame(tmp_path: Path) -> None:
    clip = probe(clock.make(tmp_path / "a.mp4", sounds=(("aac", 1.6),)))
    samples = np.zeros(16000 * 3, np.float32)
    samples[8000:8400] = 0.8
    out = join(clip, 2, tmp_path, SoundPlan(samples, 16000))
    heard = read_sound(out, 16000, origin=Fraction(0))
    assert abs(int(np.argmax(np.abs(heard) > 0.3)) - 8000) <= 16
    assert abs(len(heard) / 16000 - 1.6) < 0.03


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_segments_leave_the_rest_of_the_sound_alone(name: str, tmp_path: Path) -> None:
    clip = probe(clock.make(tmp_path / "a.mp4", frames=100, sounds=(("aac", 4.0),)))
    plan = SoundPlan(np.zeros(4 * 24000, np.float32), 24000, (Segment(Fraction(3, 2), Fraction(5, 2)),))
    out = join(clip, 2, tmp_path, plan, name)
    before, after = decode_track(clip.path).samples, decode_track(out).samples
    after = after[len(after) - len(before) :]  # Matroska keeps the encoder's priming as a common shift of all clocks
    low, high = round(1.5 * 44100), round(2.5 * 44100)
    margin = 4 * 1024
    kept = [a == b for a, b in zip(packets(clip.path, 0), packets(out, 0), strict=True)]
    assert all(kept[: low // 1024 - 2]) and all(kept[high // 1024 + 4 :]) and not any(kept[low // 1024 + 2 : high // 1024])
    assert np.array_equal(before[: low - margin], after[: low - margin])
    assert np.abs(before[high + margin :] - after[high + margin :]).max() < 5e-3  # AAC's noise bands roll new dice
    assert np.abs(after[low + margin : high - margin]).max() < 1e-3
    assert np.sqrt(np.mean((before[low - margin : low] - after[low - margin : low]) ** 2)) < 0.01
    assert np.abs(np.diff(after, axis=0)).max() < 1.5 * np.abs(np.diff(before, axis=0)).max()


@pytest.mark.parametrize(("name", "out"), [("a.mkv", "out.mp4"), ("a.mkv", "out.mkv"), ("a.ts", "out.mp4"), ("a.ts", "out.mkv")])
def test_sound_with_rounded_times_is_spliced_to_the_sample(name: str, out: str, tmp_path: Path) -> None:
    """Matroska rounds times to milliseconds, a broadcast wraps each packet in a header of its own."""
    clip = probe(clock.make(tmp_path / name, frames=100, sounds=(("aac", 4.0),)))
    plan = SoundPlan(np.zeros(4 * 24000, np.float32), 24000, (Segment(Fraction(3, 2), Fraction(5, 2)),))
    result = join(clip, 2, tmp_path, plan, out)
    header = 7 * (name == "a.ts")
    old, new = [p[header:] for p in packets(clip.path, 0)], packets(result, 0)
    changed = [number for number, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    assert 60 < changed[0] < changed[-1] < 113 and changed == list(range(changed[0], changed[-1] + 1))
    before, after = decode_track(clip.path), decode_track(result)
    lead = round((seconds(clip)[0] - before.start) * 44100)
    low, high = lead + round(1.5 * 44100), lead + round(2.5 * 44100)
    assert np.array_equal(before.samples[: low - 4096], after.samples[: low - 4096])
    assert np.abs(before.samples[high + 4096 :] - after.samples[high + 4096 :]).max() < 5e-3
    difference = np.abs(before.samples - after.samples).max(axis=1)
    assert difference[low - 4096 : low - 50].max() < 0.02 > difference[high + 50 : high + 4096].max()  # no sample off
    assert np.abs(after.samples[low + 4096 : high - 4096]).max() < 1e-3
    times = seconds(clip)[0] - before.start - (seconds(probe(result))[0] - after.start)
    assert abs(times) < Fraction(2, 1000)


def test_segments_without_source_sound_are_silent_outside(tmp_path: Path) -> None:
    clip = probe(clock.make(tmp_path / "a.mp4", frames=50))
    plan = SoundPlan(clock.tone(2, 48000, 1)[0], 48000, (Segment(Fraction(1, 2), Fraction(1)),))
    heard = read_sound(join(clip, 1, tmp_path, plan), 48000, origin=Fraction(0))
    assert np.abs(heard[:23000]).max() < 0.01
    assert np.abs(heard[26000:46000]).max() > 0.1
    assert np.abs(heard[50000:]).max() < 0.01


def test_a_source_that_cannot_be_spliced_says_so(tmp_path: Path) -> None:
    clip = probe(clock.make(tmp_path / "a.mpg", codec="mpeg1video", frames=50, sounds=(("mp2", 2.0),)))
    plan = SoundPlan(np.zeros(2 * 16000, np.float32), 16000, (Segment(Fraction(1), Fraction(3, 2)),))
    out = join(clip, 1, tmp_path, plan)
    with av.open(str(out)) as container:
        assert "encoded again" in container.metadata["comment"]
    before = read_sound(clip.path, 44100, origin=seconds(clip)[0])
    after = read_sound(out, 44100, origin=seconds(probe(out))[0])
    assert np.corrcoef(before[4000:40000], after[4000:40000])[0, 1] > 0.99
    assert np.abs(after[46000:64000]).max() < 0.01


def test_portrait_video(tmp_path: Path) -> None:
    frames = (clock.picture(number, 96, 64) for number in range(30))
    sound = SoundPlan(clock.tone(1.2, 22050, 1)[0], 22050)
    encode_new(96, 64, Fraction(30000, 1001), frames, sound, EncodeOptions(), tmp_path / "p.mp4")
    clip = probe(tmp_path / "p.mp4")
    assert shown(clip) == list(range(30))
    assert clip.average_rate == Fraction(30000, 1001)
    assert clip.audio[0].rate == 44100
