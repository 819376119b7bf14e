"""The application's graph without a cluster: Serve's local testing mode runs every deployment in this process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from serve_app.jobs.records import FINAL
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import open_jobs
from serve_app.media_store import MediaStore


@pytest.mark.filterwarnings("ignore")
def test_a_job_goes_through_router_and_replica(
    face_clip: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(shared_cache))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    import ray
    from ray import serve

    from serve_app.app import build
    from serve_app.service.args import ServeArgs

    media = MediaStore(str(tmp_path / "store"))
    args = ServeArgs.model_validate({"store": str(media.root), "engines": {"fake": {}}})
    jobs = open_jobs(args.database_url())
    audio = media.put_content(speech_file, "inputs", ".wav")
    spec = JobSpec(
        engine="fake",
        source=media.put_content(face_clip, "inputs", ".mp4"),
        speech=(SpeechSpec(audio=audio, start="0.2", end="0.8"), SpeechSpec(audio=audio, start="1", end="1.4")),
        chunks=3,
        report=False,
    )
    job, _ = jobs.create(spec, "tester")
    handle = serve.run(build(args), name="local", _local_testing_mode=True)
    assert handle is not None and not ray.is_initialized()
    limit = time.monotonic() + 60
    while jobs.get(job.id).status not in FINAL and time.monotonic() < limit:
        time.sleep(0.05)
    done = jobs.get(job.id)
    assert done.status == "succeeded" and done.info["patched"] == 23 and len(jobs.chunks(job.id)) == 3
    assert media.fetch(str(done.result)).stat().st_size > 1000
