"""A real Serve application: jobs that wait in the table start replicas, and so do live portraits that take them all."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import open_jobs
from serve_app.media_store import MediaStore

pytestmark = pytest.mark.slow
with socket.socket() as free:  # of two servers on one port each would get half of the calls: Serve shares its socket
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
PATIENCE = 120.0
MOST = 3


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Path]:
    """The application with an engine that starts at nothing and a router that takes one job at a time."""
    before = dict(os.environ)
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "0"})
    os.environ["RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "1"  # ten seconds otherwise
    os.environ["LIPSYNC_CACHE"] = os.environ.get("LIPSYNC_CACHE") or str(tmp_path / "models")
    import ray
    from ray import serve

    from serve_app.app import build
    from serve_app.service.args import ServeArgs

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    engine = {"num_gpus": 0, "num_cpus": 0, "min_replicas": 0, "max_replicas": MOST}
    spoken = {"num_gpus": 0, "num_cpus": 0, "min_replicas": 1, "max_replicas": 2}
    args = {"store": str(tmp_path / "store"), "engines": {"fake": engine, "vasa1": spoken}, "router": {"slots": 1}}
    serve.run(build(ServeArgs.model_validate(args)), name="lipsync", route_prefix="/")
    yield tmp_path / "store"
    serve.shutdown()
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def replicas(engine: str = "fake") -> int:
    from serve_app.router import live_replicas

    found: Any = live_replicas().get(engine, 0)
    return int(getattr(found, "live", found))


def wait_for(happens: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < limit, what
        time.sleep(0.2)


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
    wait_for(lambda: replicas() == MOST, "all replicas")
    assert jobs.counts()["queued"] == 3, "the router has taken one job"
    for job in jobs.find(None, limit=10):
        jobs.request_cancel(job.id)
    a_caller_who_takes_the_only_replica_has_another_one_started()


def a_caller_who_takes_the_only_replica_has_another_one_started() -> None:
    """In the same application: to start one takes longer than all of this."""
    import cv2
    import httpx
    import numpy as np
    from skimage import data
    from websockets.sync.client import connect

    address = f"127.0.0.1:{PORT}"
    picture = cv2.imencode(".png", np.ascontiguousarray(data.astronaut()[20:276, 100:356, ::-1]))[1].tobytes()
    asset = httpx.post(f"http://{address}/v1/assets", files={"file": ("face.png", picture)}, timeout=PATIENCE).json()["id"]
    wait_for(lambda: replicas("vasa1") == 1, "the replica that is kept")
    with connect(f"ws://{address}/v1/portraits/live", max_size=None) as socket:
        socket.send(json.dumps({"type": "start", "image": asset, "rate": 16000, "side": 128}))
        assert json.loads(socket.recv(timeout=PATIENCE))["type"] == "started"
        silence, ended = bytes(3200), threading.Event()

        def speak() -> None:
            while not ended.wait(0.5):
                socket.send(silence)

        def watch() -> None:
            for _ in socket:  # a caller who does not take its film would be waited for
                pass

        speaking = threading.Thread(target=speak, daemon=True)
        speaking.start()
        threading.Thread(target=watch, daemon=True).start()
        wait_for(lambda: replicas("vasa1") == 2, "a free replica for the next caller")
        told = 'lipsync_live_streams{engine="vasa1"} 1.0'
        wait_for(lambda: told in httpx.get(f"http://{address}/metrics", timeout=PATIENCE).text, told)
        ended.set()
        speaking.join()
