"""The result is told before its quality report is made."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.media.probe import probe
from serve_app import LipSync
from serve_app.pipeline import JobReport
from serve_app.request import SpeechSource, SyncRequest

ROOT = Path(__file__).resolve().parents[2]


def test_a_caller_is_told_of_a_whole_result_while_its_report_is_still_to_come(
    face_clip: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(shared_cache))
    request = SyncRequest(face_clip, (SpeechSource(audio=speech_file),), tmp_path / "out.mp4", "fake", report=tmp_path / "report")
    told: list[tuple[Path, int, bool]] = []

    def done(job: JobReport) -> None:
        told.append((job.out, probe(job.out).frames, request.report is not None and request.report.exists()))

    job = LipSync("fake", workers=1).run(request, done)
    assert told == [(request.out, 45, False)]
    assert job.page is not None and job.page.is_file()


def test_scripts_read_the_result_on_stdout_while_a_person_sees_bars(
    face_clip: Path, speech_file: Path, tmp_path: Path, shared_cache: Path
) -> None:
    out, environment = tmp_path / "out.mp4", {**os.environ, "LIPSYNC_CACHE": str(shared_cache), "TERM": "xterm"}
    words = ["sync", str(face_clip), "--audio", str(speech_file), "-e", "fake", "--workers", "1", "--no-report", "-o", str(out)]
    command = [sys.executable, "-m", "serve_app", *words]
    screen, terminal = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=terminal, text=True) as running:
        assert running.stdout is not None
        shown = b""
        while running.poll() is None or select.select([screen], [], [], 0)[0]:
            if select.select([screen], [], [], 0.1)[0]:
                shown += os.read(screen, 65536)
        told = running.stdout.read()
    os.close(terminal)
    os.close(screen)
    assert running.returncode == 0 and b"render" in shown, shown.decode()
    assert told.startswith(f"{out}  45 frames") and len(told.splitlines()) == 1
