"""A stranger's file is what it is said to be, or is refused: by a process that has little to lose."""

from __future__ import annotations

import socket
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deployments.errors import InputError, MediaError, NoFaceError, SpeechError
from serve_app.intake import MediaFacts, MediaLimits, check_media
from serve_app.intake.check import Kind, environment

LIMITS = MediaLimits(max_fps=240)


def clip(path: Path, frames: int = 8, rate: int = 25, times: list[int] | None = None, streams: int = 1) -> Path:
    """A small video; `times` are milliseconds."""
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=rate, options={"bf": "0"}) for _ in range(streams)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
            track.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
        for number in range(len(times) if times else frames):
            for track in tracks:
                frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * number % 256, np.uint8), format="rgb24")
                frame.pts, frame.time_base = times[number] if times else number, track.codec_context.time_base
                container.mux(track.encode(frame.reformat(format="yuv420p")))
        for track in tracks:
            container.mux(track.encode(None))
    return path


def wav(path: Path, samples: np.ndarray, kind: int = 3, rate: int = 16000) -> Path:
    """A mono sound file; `kind` 3: floats, 1: integers."""
    data, wide = samples.tobytes(), samples.itemsize
    form = struct.pack("<HHIIHH", kind, 1, rate, rate * wide, wide, 8 * wide)
    parts = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(parts)) + parts)
    return path


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def say_length(path: Path, seconds: int) -> Path:
    """Let the header of an MP4 claim another length; the frames stay as they are."""
    content = bytearray(path.read_bytes())
    movie = content.index(b"mvhd")
    (movie_scale,) = struct.unpack_from(">I", content, movie + 16)
    struct.pack_into(">I", content, movie + 20, seconds * movie_scale)
    struct.pack_into(">I", content, content.index(b"tkhd") + 24, seconds * movie_scale)
    media = content.index(b"mdhd")
    (scale,) = struct.unpack_from(">I", content, media + 16)
    struct.pack_into(">I", content, media + 20, seconds * scale)
    return file(path, bytes(content))


def refused(path: Path, kind: Kind, limits: MediaLimits = LIMITS) -> InputError:
    with pytest.raises(InputError) as refusal:
        check_media(path, kind, limits)
    assert str(path.parent) not in str(refusal.value), "a stranger learns nothing of our folders"
    return refusal.value


def test_what_a_video_is_whatever_it_is_called(tmp_path: Path) -> None:
    odd = clip(tmp_path / "a.mkv", frames=8).rename(tmp_path / "holiday.mp4")
    assert check_media(odd, "video", LIMITS) == MediaFacts(
        "video", 96, 64, 25.0, Fraction(8, 25), frames=8, codec="h264", suffix=".mkv"
    )


def test_a_recording_whose_times_are_milliseconds_is_no_thousand_frames_a_second(tmp_path: Path) -> None:
    facts = check_media(clip(tmp_path / "a.mkv", rate=1000, times=[0, 33, 67, 100, 133, 400]), "video", LIMITS)
    assert facts.frames == 6 and 10 < facts.fps < 15


def test_sound_is_measured_by_its_samples(tmp_path: Path) -> None:
    facts = check_media(wav(tmp_path / "a.bin", np.zeros(4000, np.int16), 1), "audio", LIMITS)
    assert (facts.kind, facts.seconds, facts.codec, facts.suffix) == ("audio", Fraction(1, 4), "pcm_s16le", ".wav")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_pictures_are_told_by_their_content(suffix: str, tmp_path: Path) -> None:
    good, content = cv2.imencode(suffix, np.zeros((60, 81, 3), np.uint8))
    assert good
    facts = check_media(file(tmp_path / "a.upload", content.tobytes()), "image", LIMITS)
    assert (facts.width, facts.height, facts.codec, facts.suffix) == (80, 60, "image", suffix)


@pytest.mark.parametrize("kind", ["video", "audio", "image"])
def test_text_and_nothing_are_no_media(kind: Kind, tmp_path: Path) -> None:
    assert "text.mp4" in str(refused(file(tmp_path / "text.mp4", b"once upon a time\n" * 50), kind))
    assert "empty.mp4" in str(refused(file(tmp_path / "empty.mp4", b""), kind))


def test_playlists_do_not_lead_anywhere(tmp_path: Path) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]

        def listen() -> None:
            try:
                asked.append(door.accept())
            except OSError:
                pass

        waiter = threading.Thread(target=listen, daemon=True)
        waiter.start()
        lists = {
            "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
            "concat.mp4": f"ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
            "file.mp4": "ffconcat version 1.0\nfile '/etc/hostname'\n",
            "dash.mp4": f'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
            "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        }
        for name, content in lists.items():
            refused(file(tmp_path / name, content.encode()), "video")
        refused(tmp_path / "hls.mp4", "audio")
        door.shutdown(socket.SHUT_RDWR)
    waiter.join(5)
    assert asked == []


def test_half_a_video_is_refused(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.mp4", frames=40)
    assert isinstance(refused(file(tmp_path / "cut.mp4", whole.read_bytes()[:-1200]), "video"), MediaError)


def test_hours_in_the_header_of_a_small_file_are_refused(tmp_path: Path) -> None:
    path = say_length(clip(tmp_path / "a.mp4"), 3 * 3600)
    assert "10800 s" in str(refused(path, "video"))
    assert "as its header says" in str(refused(path, "video", MediaLimits(max_seconds=20000)))


def test_hours_between_two_frames_are_refused(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", times=[0, 3 * 3600 * 1000])
    assert "at most 3600 s" in str(refused(path, "video"))


def test_limits_of_size_rate_length_and_streams(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=30, rate=300)
    assert "240 frames per second, got 300" in str(refused(path, "video"))
    assert check_media(path, "video", MediaLimits(max_fps=300)).fps == 300
    plain = clip(tmp_path / "b.mp4", frames=30, streams=2)
    assert "pixels" in str(refused(plain, "video", MediaLimits(max_side=95)))
    assert "pixels" in str(refused(plain, "video", MediaLimits(max_pixels=96 * 64 - 1)))
    assert "at most 1 s" in str(refused(plain, "video", MediaLimits(max_seconds=1)))
    assert "1 streams, got 2" in str(refused(plain, "video", MediaLimits(max_streams=1)))
    sound = wav(tmp_path / "a.wav", np.zeros(16001, np.int16), 1)
    assert "at most 1 s" in str(refused(sound, "audio", MediaLimits(max_seconds=1)))


def test_a_picture_that_unfolds_to_gigabytes_is_not_unfolded(tmp_path: Path) -> None:
    wide = np.zeros((64, 8200, 3), np.uint8)
    assert "8192" in str(refused(file(tmp_path / "wide.png", cv2.imencode(".png", wide)[1].tobytes()), "image"))
    small = bytearray(cv2.imencode(".png", wide[:, :64])[1].tobytes())
    struct.pack_into(">II", small, 16, 60000, 60000)  # 10 GB of pixels, says its head
    assert isinstance(refused(file(tmp_path / "bomb.png", bytes(small)), "image"), MediaError)


@pytest.mark.parametrize("samples", [[], [0.1, np.nan, 0.1], [np.inf]])
def test_sound_without_samples_or_with_broken_ones(samples: list[float], tmp_path: Path) -> None:
    assert isinstance(refused(wav(tmp_path / "a.wav", np.array(samples, np.float32)), "audio"), InputError)


def test_a_mute_video_is_no_sound(tmp_path: Path) -> None:
    assert isinstance(refused(clip(tmp_path / "mute.mp4"), "audio"), SpeechError)


def test_looking_costs_no_more_memory_and_time_than_allowed(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    assert isinstance(refused(path, "video", MediaLimits(check_bytes=1 << 26)), MediaError)
    assert isinstance(refused(path, "video", MediaLimits(check_seconds=0.01)), MediaError)


def test_the_child_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CALLBACK_SECRET", "between us")
    told = environment(LIMITS)
    assert "between us" not in told.values() and "PATH" not in told


def test_a_face_is_looked_for_where_it_is_needed(face_clip: Path, tmp_path: Path) -> None:
    assert check_media(face_clip, "video", LIMITS, face=True).frames == 45
    with pytest.raises(NoFaceError, match="got none in 8 frames"):
        check_media(clip(tmp_path / "a.mp4"), "video", LIMITS, face=True)
