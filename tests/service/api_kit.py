"""A real server on a real socket: the API over SQLite and a folder, and a dispatcher that renders in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from serve_app.api import ApiSettings, EngineState, Services, create_api
from serve_app.executor import SerialExecutor
from serve_app.jobs.records import ChunkRow, Job
from serve_app.jobs.store import JobStore, open_jobs
from serve_app.media_store import MediaStore
from serve_app.service.dispatcher import Dispatcher, DispatchSettings

MOODS = ("happy", "sad", "surprised", "angry")
ENGINES = {
    "fake": EngineState("fake", "paints a patch", ("expression",)),
    "video_rewrite": EngineState("video_rewrite", "the person's own mouths", ("expression",), "on demand"),
    "portrait": EngineState("portrait", "a still picture", (), "on demand", takes="image"),
    "vasa1": EngineState(
        "vasa1", "generated motion", ("expression", "guidance"), "on demand", pictures=True, bounds={"guidance": (0, 4)}
    ),
    "emo": EngineState("emo", "moods on clips", ("expression", *MOODS), "on demand", bounds=dict.fromkeys(MOODS, (0, 1.5))),
}


@dataclass
class Server:
    """A running API, with the parts behind it."""

    url: str
    jobs: JobStore
    media: MediaStore
    app: FastAPI
    why_not_ready: list[str] = field(default_factory=list)

    def client(self, key: str | None = None) -> httpx.Client:
        """A plain HTTP client of it."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Jobs are rendered while this is open."""
        settings = DispatchSettings(slots=1, beat=0.1, idle=0.05)
        dispatcher = Dispatcher(self.jobs, self.media, lambda job, flags: nullcontext(SerialExecutor()), settings)
        dispatcher.start()
        try:
            yield
        finally:
            dispatcher.stop()

    def commit(self, job: Job, start: int, stop: int, piece: bytes) -> None:
        """A claimed job's chunk is finished; `piece` is its part of the stream."""
        key = f"jobs/{job.id}/chunk-{start:07d}"
        for suffix in (".mkv", ".m4s"):
            path = self.media.root / f"{key}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(piece)
        self.jobs.commit_chunk(ChunkRow(job.id, start, stop, f"{key}.mkv", job.fence, 0.1, f"{key}.m4s"))

    def files(self) -> set[str]:
        """Everything in the media store's folder."""
        return {path.relative_to(self.media.root).as_posix() for path in self.media.root.rglob("*") if path.is_file()}


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Server]:
    """A server over the stores in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = open_jobs(f"sqlite:///{folder / 'jobs.db'}")
    media = MediaStore(str(folder / "media"))
    why: list[str] = []
    asked = ApiSettings(**{"poll_seconds": 0.05, **settings})
    services = Services(jobs, media, asked, lambda: ENGINES, lambda: why[0] if why else None)
    app = create_api(services)
    with running(app) as url:
        yield Server(url, jobs, media, app, why)
    jobs.close()


@contextmanager
def running(app: Any) -> Iterator[str]:
    """An ASGI app under uvicorn in a thread; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def running_files(handler: Any) -> Iterator[str]:
    """A plain file server; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(5)


def refusal(response: httpx.Response, status: int, code: str | None = None, param: str | None = None) -> str:
    """The message of an error in our shape; fails if the response is anything else."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "retryable"}
    assert response.headers["x-request-id"]
    assert code is None or error["code"] == code, error
    assert param is None or error["param"] == param, error
    return str(error["message"])


def wait_for(client: httpx.Client, place: str, seconds: float = 60) -> dict[str, Any]:
    """A job once it is final."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        job: dict[str, Any] = client.get(place).json()
        if job["status"] in ("completed", "failed"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"{place} did not end: {job}")
