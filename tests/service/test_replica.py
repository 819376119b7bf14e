"""Replicas that share nothing with the router but the store: every machine has copies of its own."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deployments.contracts import Span
from deployments.engines.replica import EngineReplica
from deployments.media.decode import decode
from deployments.media.probe import probe
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import open_jobs
from serve_app.media_store import MediaStore
from serve_app.router import ReplicaExecutor
from serve_app.service.dispatcher import Dispatcher, DispatchSettings
from serve_app.service.runner import Flags


class Elsewhere(ReplicaExecutor):
    """The router's executor with replicas that are objects here; nothing of a cluster is needed."""

    def __init__(self, home: MediaStore, replicas: list[EngineReplica], flags: Flags) -> None:
        super().__init__(None, lambda: len(replicas), lambda: home, flags, 0.0)
        self._replicas, self._turn = replicas, 0

    async def _send(self, verb: str, task: Any) -> AsyncIterator[tuple[Any, ...]]:
        self._turn += 1
        async for event in getattr(self._replicas[self._turn % len(self._replicas)], verb)(task):
            yield event


def planes(path: Path) -> list[str]:
    clip = probe(path)
    return [hashlib.sha256(p.frame().to_ndarray().tobytes()).hexdigest() for p in decode(clip, Span(0, clip.frames))]


@pytest.mark.filterwarnings("ignore")
def test_replicas_on_other_machines_make_the_same_video(
    stores: Any, face_clip: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(shared_cache))
    home = stores.open()
    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    source, audio = home.put_content(face_clip, "inputs", ".mp4"), home.put_content(speech_file, "inputs", ".wav")

    def work(chunks: int) -> list[str]:
        speech = (SpeechSpec(audio=audio),)
        spec = JobSpec(engine="fake", source=source, speech=speech, chunks=chunks, quality="lossless", report=chunks > 1)
        job, _ = jobs.create(spec, "tester")
        dispatcher = Dispatcher(
            jobs,
            home,
            lambda job, flags: nullcontext(Elsewhere(home, [EngineReplica("fake", stores.open) for _ in range(2)], flags)),
            DispatchSettings(idle=0.05, beat=0.2),
        )
        dispatcher.start()
        limit = time.monotonic() + 60
        while jobs.get(job.id).status in ("queued", "running") and time.monotonic() < limit:
            time.sleep(0.05)
        dispatcher.stop()
        done = jobs.get(job.id)
        assert done.status == "succeeded", done.error
        other = stores.open()
        streamed = b"".join(other.fetch(str(row.segment)).read_bytes() for row in jobs.chunks(job.id))
        (tmp_path / "stream.mp4").write_bytes(streamed)
        assert probe(tmp_path / "stream.mp4").frames == 45
        return planes(other.fetch(str(done.result)))

    one, many = work(1), work(4)
    assert one == many and len(set(one)) > 30
    kept = {key for key, _ in stores.open().keys("avatars/")}
    assert kept and not any("/." in key for key in kept), "no half-made avatar stays"


def test_an_error_of_the_work_arrives_as_it_was(tmp_path: Path, face_clip: Path) -> None:
    store = MediaStore(str(tmp_path))
    replica = EngineReplica("fake", lambda: store)

    async def events(task: Any) -> list[tuple[Any, ...]]:
        return [event async for event in replica.render(task)]

    found = asyncio.run(events("no task at all"))
    assert found[-1][0] == "error" and "fake" in str(found[-1][1])


def test_a_replica_works_on_one_chunk_at_a_time_and_stops_when_nobody_waits(tmp_path: Path) -> None:
    store = MediaStore(str(tmp_path))
    seen: list[str] = []

    async def main() -> None:
        replica = EngineReplica("fake", lambda: store)

        def forever(task: str, line: Any) -> None:
            seen.append(f"begin {task}")
            try:
                while True:
                    line.tick(1)
            finally:
                seen.append(f"end {task}")

        async def listen(task: str) -> None:
            async for _ in replica._work(forever, task):
                pass

        first, second = asyncio.create_task(listen("a")), asyncio.create_task(listen("b"))
        await asyncio.sleep(0.5)
        assert seen == ["begin a"]
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await asyncio.sleep(0.5)
        assert seen == ["begin a", "end a", "begin b"]
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    asyncio.run(main())
    assert seen[-1] == "end b"


def test_a_healthy_replica_says_so(tmp_path: Path) -> None:
    EngineReplica("fake", lambda: MediaStore(str(tmp_path))).check_health()
