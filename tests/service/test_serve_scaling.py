"""A real Serve application: jobs that wait in the table start replicas, though no request asks for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import open_jobs
from serve_app.media_store import MediaStore

pytestmark = pytest.mark.slow
PORT = 8393
PATIENCE = 60.0
MOST = 3


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Path]:
    """The application with an engine that starts at nothing and a router that takes one job at a time."""
    before = dict(os.environ)
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "0"})
    os.environ["LIPSYNC_CACHE"] = os.environ.get("LIPSYNC_CACHE") or str(tmp_path / "models")
    import ray
    from ray import serve

    from serve_app.app import build
    from serve_app.service.args import ServeArgs

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    engine = {"num_gpus": 0, "num_cpus": 0, "min_replicas": 0, "max_replicas": MOST}
    args = {"store": str(tmp_path / "store"), "engines": {"fake": engine}, "router": {"slots": 1}}
    serve.run(build(ServeArgs.model_validate(args)), name="lipsync", route_prefix="/")
    yield tmp_path / "store"
    serve.shutdown()
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def replicas() -> int:
    from serve_app.router import live_replicas

    found: Any = live_replicas().get("fake", 0)
    return int(getattr(found, "live", found))


def test_a_queue_starts_replicas_that_no_request_asks_for(serving: Path, face_clip: Path, speech_file: Path) -> None:
    media, jobs = MediaStore(str(serving)), open_jobs(f"sqlite:///{serving / 'jobs.db'}")
    time.sleep(5)
    assert replicas() == 0, "nothing waits, nothing runs"
    source, sound = media.put_content(face_clip, "inputs", ".mp4"), media.put_content(speech_file, "inputs", ".wav")
    speech = (SpeechSpec(audio=sound),)
    # One chunk each, so that never more than one request is under way: what Serve's own rule would start is one replica.
    for _ in range(4):
        spec = JobSpec(engine="fake", source=source, speech=speech, chunks=1, options={"cost": 1.0}, report=False)
        jobs.create(spec, "tester", info={"seconds": 100.0})
    limit = time.monotonic() + PATIENCE
    while replicas() < MOST and time.monotonic() < limit:
        time.sleep(0.2)
    assert replicas() == MOST
    assert jobs.counts()["queued"] == 3, "the router has taken one job"
    for job in jobs.find(None, limit=10):
        jobs.request_cancel(job.id)
