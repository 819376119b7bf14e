"""Bad input: one clear line, the exit code of its kind, nothing left behind, before any work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import cv2
import pytest
from skimage import data

ROOT = Path(__file__).resolve().parents[2]


def lipsync(*words: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    environment = {**os.environ, "LIPSYNC_CACHE": str(cache)}
    command = [sys.executable, "-m", "serve_app", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def bad(tmp_path: Path, face_clip: Path, speech_file: Path) -> dict[str, Path]:
    """Files that cannot be used."""
    files = {name: tmp_path / name for name in ("text.mp4", "empty.mp4", "cut.mp4", "silent.wav", "nan.wav", "missing.mp4")}
    files["text.mp4"].write_text("this is not a video")
    files["empty.mp4"].touch()
    files["cut.mp4"].write_bytes(face_clip.read_bytes()[:2000])
    files["silent.wav"].write_bytes(speech_file.read_bytes()[:44])
    return files


@pytest.mark.parametrize("name", ["text.mp4", "empty.mp4", "cut.mp4", "missing.mp4"])
def test_a_clip_that_is_none(name: str, bad: dict[str, Path], speech_file: Path, tmp_path: Path) -> None:
    done = lipsync("sync", bad[name], "--audio", speech_file, "-o", tmp_path / "out.mp4", cache=tmp_path / "cache")
    check(done, 2, tmp_path / "out.mp4")


def test_a_sound_file_as_clip(speech_file: Path, tmp_path: Path) -> None:
    done = lipsync("sync", speech_file, "--audio", speech_file, "-o", tmp_path / "out.mp4", cache=tmp_path / "cache")
    check(done, 2, tmp_path / "out.mp4")


def test_speech_without_samples(bad: dict[str, Path], face_clip: Path, tmp_path: Path) -> None:
    done = lipsync("sync", face_clip, "--audio", bad["silent.wav"], "-o", tmp_path / "out.mp4", cache=tmp_path / "cache")
    check(done, 2, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    "words",
    [
        ("--text", ""),
        ("--text", "42", "--audio", "x.wav"),
        ("--text", "Hello", "--segment", "3-1"),
        ("--text", "Hello", "--segment", "0-100"),
        ("--text", "Hello", "--segment", "one"),
        ("--text", "Hello", "--engine", "nothing"),
        ("--text", "Hello", "--sync-mode", "nothing"),
        ("--text", "Hello", "--expression", "9"),
        ("--text", "Hello", "--face", "-3,1,1"),
        ("--text", "Hello", "--chunks", "100000"),
        (),
    ],
)
def test_options_that_mean_nothing(words: tuple[str, ...], face_clip: Path, tmp_path: Path) -> None:
    done = lipsync("sync", face_clip, *words, "-o", tmp_path / "out.mp4", cache=tmp_path / "cache")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    "words",
    [("--gaze", "0.2"), ("--gaze", "1,0"), ("--emotion", "bored"), ("--distance", "9"), ("--engine", "video_rewrite")],
)
def test_portrait_options_that_mean_nothing(words: tuple[str, str], tmp_path: Path) -> None:
    picture, out = tmp_path / "me.png", tmp_path / "out.mp4"
    cv2.imwrite(str(picture), data.astronaut()[..., ::-1])
    check(lipsync("portrait", picture, "--text", "Hello", *words, "-o", out, cache=tmp_path / "cache"), 2, out)


@pytest.mark.parametrize("place", ["nowhere/out.mp4", "folder.mp4", "input", "out.txt"])
def test_a_place_that_cannot_be_written(place: str, face_clip: Path, speech_file: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    out = face_clip if place == "input" else tmp_path / place
    before = face_clip.read_bytes()
    done = lipsync("sync", face_clip, "--audio", speech_file, "-o", out, cache=tmp_path / "cache")
    check(done, 2 if place == "out.txt" else 3, None)
    assert face_clip.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(face_clip: Path, speech_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    done = lipsync("sync", face_clip, "--audio", speech_file, "-o", folder / "out.mp4", cache=tmp_path / "cache")
    check(done, 3, folder / "out.mp4")


def test_no_face_anywhere(tmp_path: Path, speech_file: Path, shared_cache: Path) -> None:
    from fractions import Fraction

    import numpy as np

    from deployments.media.encode import EncodeOptions, encode_new

    clip = tmp_path / "wall.mp4"
    encode_new(128, 96, Fraction(25), [np.full((96, 128, 3), 90, np.uint8)] * 5, None, EncodeOptions("high"), clip)
    done = lipsync("sync", clip, "--audio", speech_file, "-o", tmp_path / "out.mp4", "--workers", "1", cache=shared_cache)
    check(done, 2, tmp_path / "out.mp4")
    assert "no usable face" in done.stderr


def test_models_and_weights(tmp_path: Path) -> None:
    done = lipsync("models", cache=tmp_path)
    assert done.returncode == 0 and "video_rewrite" in done.stdout and "fake" not in done.stdout
    done = lipsync("weights", "list", cache=tmp_path)
    assert done.returncode == 0 and "face_landmarker.task" in done.stdout
    assert lipsync("weights", "verify", cache=tmp_path).returncode == 4


@pytest.mark.slow
def test_ctrl_c_ends_everything_within_two_seconds(tmp_path: Path, face_clip: Path, shared_cache: Path) -> None:
    long = tmp_path / "long.wav"
    with wave.open(str(long), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(2 * 8000 * 240))
    command = [sys.executable, "-m", "serve_app", "sync", face_clip, "--audio", long, "--sync-mode", "loop"]
    command += ["--engine", "fake", "--workers", "2", "-o", tmp_path / "out.mp4", "--no-report"]
    environment = {**os.environ, "LIPSYNC_CACHE": str(shared_cache)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background may ignore it
    running = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, before)
    limit = time.monotonic() + 120
    while not list(shared_cache.glob("jobs/*/.*.part.*")):
        assert running.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    started = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=30)[1]
    assert time.monotonic() - started < 4, "two seconds, and as much for a busy machine"
    assert running.returncode == 130 and "lipsync: stopped" in said and "Traceback" not in said
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".out*"))
    assert nobody_left(running.pid, started + 4)


def nobody_left(group: int, limit: float) -> bool:
    """True as soon as a process group is empty."""
    while time.monotonic() < limit:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def check(done: subprocess.CompletedProcess[str], code: int, out: Path | None) -> None:
    """One line for the user, the right code, and no half-written result."""
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("lipsync: ")]
    assert len(said) == 1 and "Traceback" not in done.stderr
    if out is not None:
        assert not out.exists() and not list(out.parent.glob(f".{out.stem}*"))
