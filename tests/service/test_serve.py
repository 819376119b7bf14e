"""The whole application on a cluster of two fake-GPU nodes, and what happens when its parts die."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from deployments.contracts import Span
from deployments.media.decode import decode
from deployments.media.probe import probe
from serve_app.jobs.records import FINAL, Job
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import JobStore, open_jobs
from serve_app.media_store import MediaStore

pytestmark = pytest.mark.slow
with socket.socket() as free:  # of two servers on one port each would get half of the calls: Serve shares its socket
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
LEASE = 3.0
PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head and two nodes with one GPU each (fake: Ray counts them, nobody computes on them)."""
    before = dict(os.environ)
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "0"})
    os.environ["LIPSYNC_CACHE"] = os.environ.get("LIPSYNC_CACHE") or str(tmp_path_factory.mktemp("models"))
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1, num_gpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    from ray import serve

    serve.shutdown()
    ray.shutdown()
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def app(cluster: Any, folder: Path) -> Iterator[None]:
    """The application, ready."""
    from ray import serve

    from serve_app.app import build
    from serve_app.service.args import ServeArgs

    args = ServeArgs.model_validate(
        {
            "store": str(folder),
            "engines": {
                "fake": {"num_gpus": 1, "min_replicas": 2, "max_replicas": 2},
                "vasa1": {"num_gpus": 0, "min_replicas": 1, "max_replicas": 1},
            },
            "router": {"lease_seconds": LEASE, "slots": 1},
        }
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(build(args), name="lipsync", route_prefix="/")
    wait_ready()
    yield
    serve.delete("lipsync")


@pytest.fixture(scope="module")
def media(folder: Path) -> MediaStore:
    return MediaStore(str(folder))


@pytest.fixture
def jobs(app: None, folder: Path) -> Iterator[JobStore]:
    store = open_jobs(f"sqlite:///{folder / 'jobs.db'}")
    yield store
    store.close()


@pytest.fixture
def post(jobs: JobStore, media: MediaStore, face_clip: Path, speech_file: Path) -> Callable[..., Job]:
    """A queued job of the fake engine; `cost`: seconds per frame."""

    def post(chunks: int, cost: float = 0.0, expression: float = 1.0) -> Job:
        spec = JobSpec(
            engine="fake",
            source=media.put_content(face_clip, "inputs", ".mp4"),
            speech=(SpeechSpec(audio=media.put_content(speech_file, "inputs", ".wav")),),
            quality="lossless",
            chunks=chunks,
            options={"cost": cost},
            expression=expression,
            report=False,
        )
        return jobs.create(spec, "tester")[0]

    return post


def wait_ready() -> None:
    wait_for(lambda: get("/ready").status_code == 200, "the application to be ready")


def get(path: str) -> httpx.Response:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}{path}", timeout=10)
    except httpx.HTTPError:
        return httpx.Response(599)


def wait_for(done: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < limit, f"waited too long for {what}"
        time.sleep(0.05)


def finish(jobs: JobStore, job: Job) -> Job:
    wait_for(lambda: jobs.get(job.id).status in FINAL, f"{job.id} to end: {jobs.get(job.id)}")
    return jobs.get(job.id)


def planes(media: MediaStore, job: Job) -> list[str]:
    """A digest of every frame's stored samples."""
    assert job.status == "succeeded" and job.result is not None, job
    clip = probe(media.fetch(job.result))
    assert [int(stamp) for stamp in clip.pts - clip.pts[0]] == [k * int(clip.pts[1] - clip.pts[0]) for k in range(clip.frames)]
    return [hashlib.sha256(p.frame().to_ndarray().tobytes()).hexdigest() for p in decode(clip, Span(0, clip.frames))]


def replica_pids(name: str) -> list[int]:
    """Processes of a deployment on this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_text()
        except OSError:
            continue
        if words.startswith(f"ray::ServeReplica:lipsync:{name}"):
            found.append(int(place.parent.name))
    return sorted(found)


def wait_committed(jobs: JobStore, job: Job, count: int) -> None:
    wait_for(lambda: len(jobs.chunks(job.id)) >= count, f"{count} chunks of {job.id}")


def leftovers(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if ".part" in path.name]


@pytest.fixture(scope="module")
def expected(face_clip: Path, speech_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The frames that the command line makes in one piece."""
    from serve_app.cache import Cache
    from serve_app.executor import SerialExecutor
    from serve_app.pipeline import run_sync
    from serve_app.request import SpeechSource, SyncRequest

    out = tmp_path_factory.mktemp("alone") / "out.mp4"
    request = SyncRequest(face_clip, (SpeechSource(audio=speech_file),), out, "fake", quality="lossless", chunks=1)
    run_sync(request, Cache(out.parent / "cache"), SerialExecutor())
    clip = probe(out)
    return [hashlib.sha256(p.frame().to_ndarray().tobytes()).hexdigest() for p in decode(clip, Span(0, clip.frames))]


@pytest.mark.parametrize("chunks", [1, 2, 5, 9])
def test_any_number_of_chunks_on_two_replicas_gives_the_frames_of_one(
    jobs: JobStore, media: MediaStore, post: Callable[..., Job], expected: list[str], chunks: int
) -> None:
    done = finish(jobs, post(chunks))
    assert planes(media, done) == expected and len(set(expected)) > 30
    rows = jobs.chunks(done.id)
    assert [row.start for row in rows[1:]] == [row.stop for row in rows[:-1]] and len(rows) == chunks
    stream = media.root / "stream.mp4"
    stream.write_bytes(b"".join(media.fetch(str(row.segment)).read_bytes() for row in rows))
    assert probe(stream).frames == 45
    stream.unlink()


def test_every_replica_is_asked_for_its_gpu_memory_and_metrics_tell_the_sum(jobs: JobStore) -> None:
    from ray import serve

    handle = serve.get_deployment_handle("fake", "lipsync")
    assert handle.broadcast("weigh").results(timeout_s=PATIENCE) == [(0, 0, 1.0)] * 2, "two replicas, and their GPUs are made up"
    wait_for(lambda: 'lipsync_replicas{engine="fake"} 2.0' in get("/metrics").text, "both replicas to be counted")
    assert 'lipsync_gpu_memory_bytes{engine="fake"} 0.0' in get("/metrics").text


def test_a_photo_speaks_live_at_a_replica(jobs: JobStore) -> None:
    import cv2
    import numpy as np
    from skimage import data
    from websockets.sync.client import connect

    picture = cv2.imencode(".png", np.ascontiguousarray(data.astronaut()[20:276, 100:356, ::-1]))[1].tobytes()
    answer = httpx.post(f"http://127.0.0.1:{PORT}/v1/assets", files={"file": ("face.png", picture)}, timeout=PATIENCE)
    with connect(f"ws://127.0.0.1:{PORT}/v1/portraits/live", max_size=None) as socket:
        socket.send(json.dumps({"type": "start", "image": answer.json()["id"], "rate": 16000, "side": 128}))
        said, film = json.loads(socket.recv(timeout=PATIENCE)), bytearray()
        assert said["type"] == "started" and len(replica_pids("vasa1")) == 1, said
        for _ in range(20):
            socket.send(bytes(1280))
        film += socket.recv(timeout=PATIENCE)  # frames come before the sound has ended
        socket.send('{"type": "end"}')
        while isinstance(message := socket.recv(timeout=PATIENCE), bytes):
            film += message
    assert json.loads(message) == {"type": "done", "frames": 20, "seconds": 0.8}
    with av.open(io.BytesIO(film)) as container:
        assert [round(25 * float(frame.time)) for frame in container.decode(video=0)] == list(range(20))


def test_a_replica_that_dies_in_the_middle_changes_nothing(
    jobs: JobStore, media: MediaStore, post: Callable[..., Job], expected: list[str]
) -> None:
    job = post(9, cost=0.05)
    wait_committed(jobs, job, 2)
    os.kill(replica_pids("fake")[0], signal.SIGKILL)
    done = finish(jobs, job)
    assert planes(media, done) == expected and done.attempt == 1
    wait_ready()
    wait_for(lambda: len(replica_pids("fake")) == 2, "two replicas again")


def test_a_router_that_dies_is_followed_by_another_that_goes_on(
    jobs: JobStore, media: MediaStore, post: Callable[..., Job], expected: list[str]
) -> None:
    job = post(9, cost=0.1)
    wait_committed(jobs, job, 3)
    os.kill(replica_pids("router")[0], signal.SIGKILL)
    done = finish(jobs, job)
    assert planes(media, done) == expected and done.attempt == 2
    kept = [row for row in jobs.chunks(job.id) if row.fence == 1]
    assert len(kept) >= 3 and done.info["reused_chunks"] >= 3, "finished chunks are not rendered again"


def test_an_api_that_dies_loses_nothing(jobs: JobStore, media: MediaStore, post: Callable[..., Job], expected: list[str]) -> None:
    job = post(5, cost=0.05)
    os.kill(replica_pids("api")[0], signal.SIGKILL)
    assert planes(media, finish(jobs, job)) == expected
    wait_for(lambda: get(f"/v1/videos/{job.id}").status_code in (200, 404), "the API to answer again")
    wait_ready()


def test_a_full_disk_fails_the_job_with_a_reason_and_the_next_try_goes_on(
    jobs: JobStore, media: MediaStore, post: Callable[..., Job], expected: list[str], folder: Path
) -> None:
    for pid in replica_pids("fake"):  # the system refuses every write beyond a size, as a full disk does
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        failed = finish(jobs, post(3))
    finally:
        for pid in replica_pids("fake"):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert failed.status == "failed" and failed.error_code == "output_not_writable" and failed.error
    assert not (folder / f"results/{failed.id}.mp4").exists() and not leftovers(folder)
    assert planes(media, finish(jobs, post(3))) == expected


def test_cancelling_frees_the_replicas_within_seconds(jobs: JobStore, post: Callable[..., Job], folder: Path) -> None:
    job = post(2, cost=1.0)
    wait_for(lambda: jobs.get(job.id).stage == "render", "the render stage")
    jobs.request_cancel(job.id)
    began = time.monotonic()
    assert finish(jobs, job).status == "cancelled"
    assert finish(jobs, post(2)).status == "succeeded"
    assert time.monotonic() - began < 25, "two chunks of 22 s would still be running"
    assert not leftovers(folder)


def test_a_node_that_is_removed_is_done_without(
    cluster: Any, jobs: JobStore, media: MediaStore, post: Callable[..., Job], expected: list[str]
) -> None:
    job = post(9, cost=0.1)
    wait_committed(jobs, job, 2)
    cluster.remove_node(list(cluster.worker_nodes)[-1], allow_graceful=False)
    assert planes(media, finish(jobs, job)) == expected
