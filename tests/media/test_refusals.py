"""What cannot be used is refused with an error that says why; what fails leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Span
from deployments.errors import MediaError, OutputError, RenderError, SpeechError
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_chunk
from deployments.media.probe import probe
from deployments.media.sound import SoundPlan, read_sound
from deployments.media.stitch import stitch

sys.path.insert(0, str(Path(__file__).parent))
import clock


@pytest.fixture
def clip_path(tmp_path: Path) -> Path:
    return clock.make(tmp_path / "a.mp4", frames=12, sounds=(("aac", 0.5),))


def test_files_that_are_no_video(tmp_path: Path, clip_path: Path) -> None:
    whole = clip_path.read_bytes()
    bad = {
        "empty.mp4": b"",
        "text.mp4": b"this is not a video\n" * 99,
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\nhttp://example.invalid/a.ts\n",
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "cut.mp4": whole[: len(whole) // 2],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name.split(".")[0]):
            probe(tmp_path / name)
    with pytest.raises(MediaError):
        probe(tmp_path / "missing.mp4")
    with pytest.raises(MediaError):
        probe(tmp_path)


def test_a_cut_download_with_its_index_in_front(tmp_path: Path, clip_path: Path) -> None:
    clip = probe(clip_path)
    encode_chunk(clip, decode(clip, Span(0, 12)), EncodeOptions("lossless"), tmp_path / "c.mkv")
    stitch(clip, [tmp_path / "c.mkv"], clip.pts, None, tmp_path / "fast.mp4")
    whole = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(MediaError, match=r"truncated|complete"):
        probe(tmp_path / "cut.mp4")


def test_sound_without_picture_and_picture_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "s.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
    with pytest.raises(MediaError):
        probe(tmp_path / "s.wav")
    assert len(read_sound(tmp_path / "s.wav", 8000)) == 800
    with pytest.raises(SpeechError):
        read_sound(clock.make(tmp_path / "mute.mp4", frames=3))


def test_samples_that_are_no_sound() -> None:
    for samples in (np.array([0, np.nan], np.float32), np.zeros(0, np.float32), np.zeros((2, 2, 2), np.float32)):
        with pytest.raises(SpeechError):
            SoundPlan(samples, 16000)


def test_dead_channels_do_not_halve_the_voice(tmp_path: Path) -> None:
    voice = (clock.tone(0.5, 16000, 1)[0] * 30000).astype(np.int16)
    with av.open(str(tmp_path / "s.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="stereo")
        both = np.stack([voice, np.zeros_like(voice)], 1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
    assert np.abs(read_sound(tmp_path / "s.wav") * 32768 - voice).max() < 1
    shifted = read_sound(tmp_path / "s.wav", origin=Fraction(-1, 4))
    assert np.all(shifted[:4000] == 0) and len(shifted) == len(voice) + 4000


def test_outputs_that_cannot_be_written(tmp_path: Path, clip_path: Path) -> None:
    clip = probe(clip_path)
    chunk = tmp_path / "c.mkv"
    encode_chunk(clip, decode(clip, Span(0, 12)), EncodeOptions(), chunk)
    for out in (clip_path, tmp_path / "no" / "o.mp4", tmp_path / "o.txt"):
        with pytest.raises(OutputError):
            stitch(clip, [chunk], clip.pts, None, out)
    with pytest.raises(OutputError):
        encode_chunk(clip, decode(clip, Span(0, 2)), EncodeOptions(), tmp_path / "no" / "c.mkv")
    assert probe(clip_path).digest == clip.digest


def test_chunks_that_do_not_fit_leave_nothing_behind(tmp_path: Path, clip_path: Path) -> None:
    clip = probe(clip_path)
    good, other = tmp_path / "g.mkv", tmp_path / "h.mkv"
    encode_chunk(clip, decode(clip, Span(0, 6)), EncodeOptions(), good)
    encode_chunk(clip, decode(clip, Span(6, 12)), EncodeOptions("lossless"), other)
    for chunks in ([good], [good, other]):
        with pytest.raises(RenderError):
            stitch(clip, chunks, clip.pts, None, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*out*"))


def test_devices_and_folders_are_not_overwritten(tmp_path: Path, clip_path: Path) -> None:
    clip = probe(clip_path)
    os.mkfifo(tmp_path / "pipe.mkv")
    (tmp_path / "folder.mkv").mkdir()
    for name in ("pipe.mkv", "folder.mkv"):
        with pytest.raises(OutputError):
            encode_chunk(clip, decode(clip, Span(0, 12)), EncodeOptions(), tmp_path / name)


def test_a_full_disk_is_an_output_error(tmp_path: Path, clip_path: Path) -> None:
    clip = probe(clip_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
        with pytest.raises(OutputError):
            encode_chunk(clip, decode(clip, Span(0, 12)), EncodeOptions("lossless"), tmp_path / "c.mkv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert not (tmp_path / "c.mkv").exists() and not list(tmp_path.glob(".c.*.mkv"))


def test_a_matroska_file_that_was_cut_off_is_refused_and_a_whole_one_is_not(tmp_path: Path) -> None:
    source = clock.make(tmp_path / "whole.mkv", frames=60, options={"g": "10", "bf": "2"})
    assert probe(source).frames == 60
    whole = source.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"announces pictures up to 2\.4 s and holds them to .* truncated"):
        probe(tmp_path / "cut.mkv")
