"""The whole way with an engine whose every output frame says which motion it was painted from."""

from __future__ import annotations

import hashlib
import wave
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deployments.contracts import Clip, Segment, Span
from deployments.engines.fake.engine import DEEP
from deployments.errors import Cancelled, OutputError
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.media.sound import read_sound
from serve_app import AdvancedModelManager, ExtendedLipSyncProcessor, LipSync
from serve_app.cache import Cache
from serve_app.executor import SerialExecutor
from serve_app.pipeline import JobReport, run_sync
from serve_app.request import SpeechSource, SyncRequest

Run = Callable[..., tuple[JobReport, Clip]]


@pytest.fixture
def request_(
    face_clip: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> SyncRequest:
    monkeypatch.setenv("LIPSYNC_CACHE", str(shared_cache))
    source = (SpeechSource(audio=speech_file),)
    return SyncRequest(face_clip, source, tmp_path / "out.mp4", "fake", quality="lossless")


@pytest.fixture
def run(request_: SyncRequest, shared_cache: Path) -> Run:
    def run(**changes: object) -> tuple[JobReport, Clip]:
        changed = replace(request_, **changes)  # type: ignore[arg-type]
        job = run_sync(changed, Cache(shared_cache / "pipeline"), SerialExecutor())
        return job, probe(changed.out)

    return run


def planes(clip: Clip) -> list[str]:
    """A digest of every frame's stored samples."""
    return [hashlib.sha256(p.frame().to_ndarray().tobytes()).hexdigest() for p in decode(clip, Span(0, clip.frames))]


def test_any_number_of_chunks_gives_the_same_frames_to_the_bit(run: Run, tmp_path: Path) -> None:
    _, one = run(chunks=1)
    expected = planes(one)
    assert len(set(expected)) > 30, "the clip must not be still"
    for chunks in (2, 5, 9):
        job, clip = run(chunks=chunks, out=tmp_path / f"{chunks}.mp4")
        assert len(job.chunks) == chunks and job.patched == 45
        assert planes(clip) == expected


def test_more_is_learned_of_a_person_where_an_option_asks_for_it_and_only_there(run: Run, shared_cache: Path) -> None:
    def deep() -> list[bool]:
        return sorted((folder / DEEP).is_file() for folder in (shared_cache / "pipeline" / "avatars").iterdir())

    run(options={"depth": 0})
    assert deep() == [False]
    run(options={"depth": 2})
    assert deep() == [False, True], "an avatar of its own: replicas that hold the other one are not left with half of it"


def test_size_clock_and_sound(run: Run, request_: SyncRequest, speech_file: Path) -> None:
    job, clip = run(chunks=3)
    source = probe(request_.clip)
    assert (clip.width, clip.height, clip.frames, job.frames) == (256, 256, 45, 45)
    assert (clip.pts * clip.time_base == source.pts * source.time_base).all()
    new, wanted = read_sound(clip.path), read_sound(speech_file)
    size = min(len(new), len(wanted))
    assert size >= 1.7 * 16000 and np.corrcoef(new[:size], wanted[:size])[0, 1] > 0.99


def test_frames_outside_the_segments_are_the_source_to_the_bit(run: Run, request_: SyncRequest, speech_file: Path) -> None:
    part = SpeechSource(audio=speech_file, segment=Segment(Fraction(1, 2), Fraction(1)))
    _, clip = run(speech=(part,), chunks=4)
    source = probe(request_.clip)
    same = np.array([a == b for a, b in zip(planes(clip), planes(source), strict=True)])
    outside = (source.times() < 0.5) | (source.times() >= 1.0)
    assert same[outside].all() and not same[14:24].any()


@pytest.mark.parametrize("mode", ["loop", "bounce"])
def test_longer_speech_repeats_the_picture(run: Run, request_: SyncRequest, mode: str) -> None:
    job, clip = run(sync_mode=mode, chunks=4)
    assert job.frames == clip.frames == 75 and abs(clip.duration - 3) < Fraction(1, 20)
    # far from the face every frame is the source's: the order can be read from it
    source = [p.rgb()[230:, :40] for p in decode(probe(request_.clip), Span(0, 45))]
    shown = [p.rgb()[230:, :40] for p in decode(clip, Span(0, 75))]
    expected = [t % 45 if mode == "loop" else 44 - abs(44 - t % 88) for t in range(75)]
    assert all((frame == source[want]).all() for frame, want in zip(shown, expected, strict=True))


def test_shorter_speech_ends_the_clip_only_when_asked(run: Run, tmp_path: Path) -> None:
    short = tmp_path / "short.wav"
    with wave.open(str(short), "wb") as out:
        out.setparams((2, 2, 44100, 0, "NONE", ""))
        out.writeframes(b"\x00\x20\x00\x00" * 44100)
    job, clip = run(speech=(SpeechSource(audio=short),), chunks=2, sync_mode="cut_off")
    assert job.frames == clip.frames == 25
    job, clip = run(speech=(SpeechSource(audio=short),))
    assert job.frames == clip.frames == 45


def test_remap_stretches_the_clock(run: Run) -> None:
    _, clip = run(sync_mode="remap")
    assert clip.frames == 45 and abs(float(clip.times()[-1]) - 3 * 44 / 45) < 0.001


def test_a_cancelled_job_goes_on_where_it_was(request_: SyncRequest, tmp_path: Path, shared_cache: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "render" and done >= 25:
            raise Cancelled("enough")

    job = replace(request_, chunks=5)
    with pytest.raises(Cancelled):
        run_sync(job, cache, SerialExecutor(), stop)
    assert not job.out.exists() and not list(job.out.parent.glob(".out*"))
    kept = sorted(path.name for path in tmp_path.rglob("chunk-*"))
    assert kept == ["chunk-0000000-0000009.mkv", "chunk-0000009-0000018.mkv"] and not list(tmp_path.rglob("*.part.*"))
    seen: list[str] = []
    report = run_sync(job, cache, SerialExecutor(), lambda stage, done, total: seen.append(stage))
    assert report.reused_chunks == 2 and "track" not in seen and "fit" not in seen
    assert not list((tmp_path / "cache" / "jobs").iterdir())
    again = run_sync(replace(job, out=tmp_path / "b.mp4", chunks=1), cache, SerialExecutor())
    assert again.reused_chunks == 0 and planes(probe(job.out)) == planes(probe(again.out))


def test_full_disk_is_known_before_work(request_: SyncRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(OutputError, match="MiB free"):
        run_sync(request_, Cache(tmp_path / "none"), SerialExecutor())
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_python_calls_under_both_names(request_: SyncRequest, speech_file: Path, tmp_path: Path) -> None:
    clip, out = request_.clip, tmp_path / "a.mp4"
    LipSync("fake", workers=2).process_video(clip, speech_file, out)
    AdvancedModelManager.get_model("fake").process_video(str(clip), str(speech_file), str(tmp_path / "b.mp4"))
    assert planes(probe(out)) == planes(probe(tmp_path / "b.mp4"))
    job = ExtendedLipSyncProcessor("fake").apply_lip_sync_simple(clip, [(0.2, 0.6, speech_file), (1, "1.4", speech_file)], out)
    assert 0 < job.patched < 25 and probe(out).frames == 45
