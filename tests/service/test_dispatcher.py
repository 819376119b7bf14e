"""Dispatchers over real stores: results as the command line makes them, and jobs that outlive who works on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deployments.contracts import Avatar
from deployments.records import load_track
from deployments.wire import give
from deployments.worker import ReportTask
from serve_app.cache import Cache
from serve_app.executor import Executor, LocalExecutor, OnTick, SerialExecutor
from serve_app.jobs.records import FINAL, Job, StaleFence
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import JobStore, open_jobs
from serve_app.media_store import MediaStore
from serve_app.pipeline import run_sync
from serve_app.request import SpeechSource, SyncRequest
from serve_app.service.dispatcher import Dispatcher, DispatchSettings
from serve_app.service.housekeeping import Housekeeping
from serve_app.service.runner import Flags
from serve_app.service.store_cache import StoreCache
from tests.service.conftest import Stores, make_s3

ROOT = Path(__file__).resolve().parents[2]
FRAMES, CHUNKS = 45, 3
SLOW = 0.05  # seconds that a frame takes where a test must meet the job on its way
QUICK = DispatchSettings(slots=1, lease=30.0, beat=0.05, idle=0.02)


@dataclass(frozen=True)
class Reference:
    """What `run_sync` makes of the clip; and the folders of its track and avatar, so that no test tracks again."""

    result: bytes
    cache: Path


@pytest.fixture(scope="module")
def reference(face_clip: Path, speech_file: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_CACHE", str(shared_cache))
        request = SyncRequest(face_clip, (SpeechSource(audio=speech_file),), folder / "out.mp4", "fake", chunks=CHUNKS)
        run_sync(request, Cache(folder / "cache"), SerialExecutor())
        return Reference(request.out.read_bytes(), folder / "cache")


@dataclass
class Desk:
    """A job table and a store with the clip and its speech in it."""

    jobs: JobStore
    media: MediaStore
    source: str
    audio: str

    def ask(self, cost: float = 0.0, **changes: Any) -> Job:
        """Queue the job."""
        asked = {"options": {"cost": cost} if cost else {}, "chunks": CHUNKS, "report": False, **changes}
        spec = JobSpec(engine="fake", source=self.source, speech=(SpeechSpec(audio=self.audio),), **asked)
        return self.jobs.create(spec, "ann")[0]

    def until(self, id: str, check: Callable[[Job], bool], seconds: float = 40) -> Job:
        """The job once it is so; fails if it never is."""
        limit = time.monotonic() + seconds
        while not check(job := self.jobs.get(id)):
            assert time.monotonic() < limit, f"waited for nothing: {job}"
            time.sleep(0.01)
        return job

    def ended(self, id: str) -> Job:
        return self.until(id, lambda job: job.status in FINAL)

    def result(self, job: Job) -> bytes:
        assert job.result == f"results/{job.id}.mp4", job
        with self.media.open(job.result) as file:
            return file.read()


def make_desk(jobs: JobStore, media: MediaStore, reference: Reference, clip: Path, speech: Path) -> Desk:
    for room in ("tracks", "avatars"):
        for path in (reference.cache / room).iterdir():
            (media.put_folder if path.is_dir() else media.put)(path, f"{room}/{path.name}")
    return Desk(jobs, media, media.put_content(clip, "inputs", ".mp4"), media.put_content(speech, "inputs", ".wav"))


@pytest.fixture
def desk(reference: Reference, face_clip: Path, speech_file: Path, tmp_path: Path) -> Iterator[Desk]:
    """SQLite and a folder."""
    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield make_desk(jobs, MediaStore(str(tmp_path / "store")), reference, face_clip, speech_file)
    jobs.close()


def serial(job: Job, flags: Flags) -> AbstractContextManager[Executor]:
    return SerialExecutor()


@contextmanager
def dispatcher(jobs: JobStore, media: MediaStore, make: Callable[..., Any] = serial, **changes: Any) -> Iterator[Dispatcher]:
    """A dispatcher at work."""
    made = Dispatcher(jobs, media, make, replace(QUICK, **changes))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("make", [serial, lambda job, flags: LocalExecutor(2)], ids=["serial", "two processes"])
def test_a_queued_job_becomes_what_run_sync_makes(desk: Desk, reference: Reference, make: Callable[..., Any]) -> None:
    job = desk.ask(report=make is serial)
    with dispatcher(desk.jobs, desk.media, make) as running:
        done = desk.ended(job.id)
        assert running.healthy()
        if done.report is not None:  # it follows the video
            page = desk.media.root / done.report / "report.html"
            desk.until(job.id, lambda _: page.is_file())
    assert (done.status, done.error, done.attempt, done.fraction) == ("succeeded", None, 1, 1.0)
    assert desk.result(done) == reference.result
    assert {name: done.info[name] for name in ("frames", "patched", "width", "height", "fps", "reused_chunks")} == {
        "frames": FRAMES, "patched": FRAMES, "width": 256, "height": 256, "fps": 25.0, "reused_chunks": 0,
    }  # fmt: skip
    assert [(row.start, row.stop, row.fence) for row in desk.jobs.chunks(job.id)] == [(0, 15, 1), (15, 30, 1), (30, 45, 1)]
    assert done.report == (f"reports/{job.id}" if make is serial else None)


class Measuring(SerialExecutor):
    """A report that takes for ever."""

    def call(self, function: Callable[..., Any], task: Any, progress: Any) -> Any:
        if not isinstance(task, ReportTask):
            return super().call(function, task, progress)
        task.folder.mkdir(parents=True)
        (task.folder / "report.json").write_text("{")
        while True:
            progress("measure", 1, 2)
            time.sleep(0.01)


def test_a_report_that_ends_with_its_process_is_not_promised_any_more(desk: Desk, reference: Reference) -> None:
    job = desk.ask(report=True)
    with dispatcher(desk.jobs, desk.media, lambda job, flags: Measuring()):
        assert desk.ended(job.id).report == f"reports/{job.id}"
        desk.until(job.id, lambda job: (desk.media.root / f"reports/{job.id}/report.json").is_file())
    done = desk.jobs.get(job.id)
    assert (done.status, done.report) == ("succeeded", None)
    assert desk.result(done) == reference.result
    assert not files(desk.media.root / "reports"), "nothing half-made stays"


class Late(SerialExecutor):
    """A heartbeat that was on its way when the job became final finds no lease, and says so during the report."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags

    def call(self, function: Callable[..., Any], task: Any, progress: Any) -> Any:
        if isinstance(task, ReportTask):
            self._flags.lost.set()
        return super().call(function, task, progress)


def test_a_heartbeat_that_meets_the_end_of_a_job_does_not_lose_its_report(desk: Desk) -> None:
    job = desk.ask(report=True)
    with dispatcher(desk.jobs, desk.media, lambda job, flags: Late(flags)):
        desk.until(job.id, lambda job: (desk.media.root / f"reports/{job.id}/report.html").is_file())
    assert desk.jobs.get(job.id).report == f"reports/{job.id}"


def test_a_cancelled_job_ends_soon_and_leaves_no_result(desk: Desk) -> None:
    job = desk.ask(cost=SLOW)
    with dispatcher(desk.jobs, desk.media):
        desk.until(job.id, lambda job: job.stage == "render" and job.done > 0)
        desk.jobs.request_cancel(job.id)
        ended = desk.ended(job.id)
    assert (ended.status, ended.result, ended.error_code) == ("cancelled", None, None)
    assert ended.done < FRAMES, "it ended before it was done"
    assert files(desk.media.root / "results") == []


class Giving(SerialExecutor):
    """Sends finished chunks to the store, as replicas do."""

    def __init__(self, media: MediaStore) -> None:
        self._media = media

    def map_ticks(self, function: Callable[..., Any], tasks: Sequence[Any], on_tick: OnTick) -> Iterator[Any]:
        for task, result in zip(tasks, super().map_ticks(function, tasks, on_tick), strict=True):
            give(task, self._media)
            yield result


def test_a_job_given_back_goes_on_elsewhere_with_its_chunks(
    stores: Stores, jobs_url: str, reference: Reference, face_clip: Path, speech_file: Path
) -> None:
    here, there = stores.open(), stores.open()
    jobs = open_jobs(jobs_url)
    desk = make_desk(jobs, here, reference, face_clip, speech_file)
    job = desk.ask(cost=SLOW)
    with dispatcher(jobs, here, lambda job, flags: Giving(here)):
        desk.until(job.id, lambda job: len(jobs.chunks(job.id)) > 0)
    given = jobs.get(job.id)
    assert (given.status, given.attempt, given.fence) == ("queued", 0, 1)
    before = jobs.chunks(job.id)
    assert 0 < len(before) < CHUNKS
    with dispatcher(jobs, there, lambda job, flags: Giving(there)):
        done = desk.ended(job.id)
    assert (done.status, done.error, done.attempt, done.fence) == ("succeeded", None, 1, 2)
    assert done.info["reused_chunks"] == len(before)
    after = jobs.chunks(job.id)
    assert [row for row in after if row.fence == 1] == before and len(after) == CHUNKS
    assert desk.result(done) == reference.result
    jobs.close()


def test_a_job_claimed_while_the_dispatcher_stops_is_given_back(desk: Desk) -> None:
    class Late(JobStore):
        """Answers a claim only when the dispatcher has begun to stop."""

        def claim(self, worker: str, lease: float) -> Job | None:
            claimed = super().claim(worker, lease)
            if claimed is not None:
                asked.set()
                stopping.wait(10)
            return claimed

    asked, stopping = threading.Event(), threading.Event()
    job = desk.ask(cost=SLOW)
    late = Late(desk.jobs._engine)
    running = Dispatcher(late, desk.media, serial, QUICK)
    running.start()
    assert asked.wait(10)
    ender = threading.Thread(target=running.stop)
    ender.start()
    assert running._stopping.wait(10)
    stopping.set()
    ender.join()
    assert (desk.jobs.get(job.id).status, desk.jobs.get(job.id).attempt) == ("queued", 0)


def test_a_file_that_is_no_video_fails_with_the_reason(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no video at all")
    desk.source = desk.media.put_content(tmp_path / "text", "inputs", ".mp4")
    broken = desk.ask()
    desk.source = f"inputs/{'0' * 64}.mp4"
    absent = desk.ask()
    with dispatcher(desk.jobs, desk.media):
        ended, missing = desk.ended(broken.id), desk.ended(absent.id)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "invalid_media", 1)
    assert ended.error and "is not a media file" in ended.error
    assert (missing.status, missing.error_code) == ("failed", "media_missing")


def test_a_database_that_is_away_for_a_moment_fails_no_job(desk: Desk, reference: Reference, tmp_path: Path) -> None:
    import sqlalchemy as sa

    class Shaky(JobStore):
        """Loses its first committed chunk as a database does that goes away."""

        lost = 0

        def commit_chunk(self, chunk: Any) -> bool:
            if not self.lost:
                self.lost += 1
                raise sa.exc.OperationalError("insert", {}, OSError("server closed the connection unexpectedly"))
            return super().commit_chunk(chunk)

    job = desk.ask()
    shaky = Shaky(desk.jobs._engine)
    with dispatcher(shaky, desk.media, lease=1.0):
        done = desk.ended(job.id)
    assert shaky.lost == 1
    assert (done.status, done.error, done.attempt) == ("succeeded", None, 2)
    assert desk.result(done) == reference.result


def test_what_a_cancelled_job_left_goes_with_its_row(desk: Desk) -> None:
    job = desk.ask()
    claimed = desk.jobs.claim("worker", 30)
    assert claimed is not None
    for key in (f"results/{job.id}.mp4", f"reports/{job.id}/report.html", "results/video_other.mp4"):
        path = desk.media.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"written before the cancellation was seen")
    desk.jobs.cancelled(job.id, claimed.fence)
    Housekeeping(desk.jobs, desk.media, lambda: 0).clean(time.time() + 1e7)
    assert desk.jobs.find(None) == []
    assert files(desk.media.root / "results") == ["video_other.mp4"] and files(desk.media.root / "reports") == []


def test_tracks_and_avatars_are_sent_once_and_found_everywhere(s3_server: str, reference: Reference, tmp_path: Path) -> None:
    stores = make_s3(s3_server, tmp_path)
    (track,), (avatar,) = ((reference.cache / room).iterdir() for room in ("tracks", "avatars"))

    def fit(folder: Path) -> Avatar:
        (folder / "avatar.json").write_text((avatar / "avatar.json").read_text())
        return Avatar("fake", folder, "digest")

    def unknown(*_: Path) -> Any:
        raise AssertionError("the first machine made it")

    here = StoreCache(stores.open())
    made = [here.track("k", lambda: load_track(track))[1].name, here.avatar("k", fit).path.name]
    media = stores.open()
    sent = [key for room in ("tracks", "avatars") for key, _ in media.keys(room)]
    assert sent == ["tracks/k.safetensors", "avatars/k/avatar.json", "avatars/k/cached.json"]
    for key in sent:
        stores.grow_old(media, key, 7 * 3600)
    there = StoreCache(stores.open())
    assert [there.track("k", unknown)[1].name, there.avatar("k", unknown).path.name] == made
    assert all(age > 3600 for room in ("tracks", "avatars") for _, age in media.keys(room)), "sent again"


def test_chunks_that_no_machine_works_on_are_dropped(stores: Stores, tmp_path: Path) -> None:
    jobs, here, there = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}"), stores.open(), stores.open()
    (tmp_path / "chunk").write_bytes(b"frames")
    for store, key in ((here, "jobs/left/a.mkv"), (here, "jobs/taken/a.mkv"), (there, "jobs/taken/b.mkv")):
        store.put(tmp_path / "chunk", key)
    for key in ("jobs/left/a.mkv", "jobs/taken/a.mkv"):
        stores.grow_old(here, key, 7 * 3600)
    for copy in (here.root / "jobs").rglob("*.mkv"):  # this machine has not touched its copies for as long
        if copy.name == "a.mkv":
            os.utime(copy, (time.time() - 7 * 3600,) * 2)
    Housekeeping(jobs, here, lambda: 0).clean(time.time())
    assert sorted(key for key, _ in here.keys("jobs/")) == ["jobs/taken/a.mkv", "jobs/taken/b.mkv"]
    assert not (here.root / "jobs/left/a.mkv").exists()
    jobs.close()


DOOMED = """
import sys, threading
from serve_app.executor import SerialExecutor
from serve_app.jobs.store import open_jobs
from serve_app.media_store import MediaStore
from serve_app.service.dispatcher import Dispatcher, DispatchSettings
settings = DispatchSettings(slots=1, lease=1.5, beat=0.2, idle=0.02)
Dispatcher(open_jobs(sys.argv[1]), MediaStore(sys.argv[2]), lambda job, flags: SerialExecutor(), settings).start()
threading.Event().wait()
"""


def test_a_dispatcher_killed_in_the_middle_is_replaced(desk: Desk, reference: Reference, tmp_path: Path) -> None:
    job = desk.ask(cost=SLOW)
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    child = subprocess.Popen([sys.executable, "-c", DOOMED, url, str(desk.media.root)], env=place)
    try:
        desk.until(job.id, lambda job: len(desk.jobs.chunks(job.id)) > 0)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    left = desk.jobs.get(job.id)
    assert (left.status, left.fence) == ("running", 1), "it was killed in the middle"
    before = desk.jobs.chunks(job.id)
    with dispatcher(desk.jobs, desk.media):
        done = desk.ended(job.id)
    assert (done.status, done.error, done.attempt, done.fence) == ("succeeded", None, 2, 2)
    assert done.info["reused_chunks"] >= len(before) > 0
    assert [row for row in desk.jobs.chunks(job.id) if row.fence == 1] == before
    assert desk.result(done) == reference.result
    with pytest.raises(StaleFence):
        desk.jobs.succeed(job.id, 1, None, None, {}, 60)
