"""The job table on SQLite and on PostgreSQL: legal changes, leases, fences, callbacks, and what a crash leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deployments.errors import OptionError, OutputError
from serve_app.jobs.records import Asset, ChunkRow, IdempotencyConflict, IllegalChange, Job, JobNotFound, StaleFence
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import KEEP_SECONDS, MAX_ATTEMPTS, JobStore, open_jobs

ROOT = Path(__file__).resolve().parents[2]
SPEC = JobSpec(engine="fake", source="inputs/aa/clip.mp4", speech=(SpeechSpec(audio="inputs/bb/speech.wav"),))
LEASE = 10.0


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(jobs_url: str, clock: Clock) -> Iterator[JobStore]:
    opened = open_jobs(jobs_url, clock)
    yield opened
    opened.close()


def start(jobs: JobStore, **asked: Any) -> Job:
    """A new job that a worker has claimed."""
    made, _ = jobs.create(SPEC, "ann", **asked)
    claimed = jobs.claim("worker", LEASE)
    assert claimed is not None and claimed.id == made.id
    return claimed


def chunk(job: Job, first: int = 0, fence: int | None = None) -> ChunkRow:
    return ChunkRow(job.id, first, first + 10, f"jobs/k/{first}.mkv", job.fence if fence is None else fence, 0.5, None)


WRITES: dict[str, Callable[[JobStore, Job], object]] = {
    "heartbeat": lambda jobs, job: jobs.heartbeat(job.id, job.fence, LEASE),
    "progress": lambda jobs, job: jobs.progress(job.id, job.fence, "render", 1, 2, 0.9),
    "note": lambda jobs, job: jobs.note(job.id, job.fence, {"seen": 1}),
    "commit_chunk": lambda jobs, job: jobs.commit_chunk(chunk(job, 50)),
    "succeed": lambda jobs, job: jobs.succeed(job.id, job.fence, "results/z.mp4", None, {}, 60),
    "fail": lambda jobs, job: jobs.fail(job.id, job.fence, "zombie", "zombie"),
    "cancelled": lambda jobs, job: jobs.cancelled(job.id, job.fence),
    "give_back": lambda jobs, job: jobs.give_back(job.id, job.fence),
}


def all_refused(jobs: JobStore, job: Job) -> None:
    """Every write of this worker is refused and changes nothing."""
    before = jobs.get(job.id)
    for name, write in WRITES.items():
        with pytest.raises(StaleFence):
            write(jobs, job)
            pytest.fail(f"{name} was accepted")
    assert jobs.get(job.id) == before
    assert 50 not in [row.start for row in jobs.chunks(job.id)]


def test_a_job_comes_back_as_it_was_created(jobs: JobStore) -> None:
    spec = SPEC.model_copy(update={"options": {"cost": 0.5}, "face": "left", "chunks": 3})
    job, new = jobs.create(spec, "ann", metadata={"scene": "zwölf 12"}, callback_url="http://a/b", request_id="req_1")
    assert new and job.id.startswith("video_")
    assert jobs.get(job.id) == jobs.get(job.id, "ann") == job
    assert (job.status, job.spec, job.metadata, job.created_at) == ("queued", spec, {"scene": "zwölf 12"}, 1000.0)
    assert jobs.create(SPEC.model_copy(update={"kind": "avatar"}), "ann")[0].id.startswith("avatar_")


def test_another_owner_sees_no_job(jobs: JobStore) -> None:
    job, _ = jobs.create(SPEC, "ann")
    for forbidden in (jobs.get, jobs.request_cancel, jobs.delete):
        with pytest.raises(JobNotFound):
            forbidden(job.id, "bob")
    assert jobs.find("bob") == []
    assert jobs.get(job.id) == job


def test_a_finished_job_is_written_by_nobody(jobs: JobStore) -> None:
    ends: list[Callable[[Job], Job]] = [
        lambda job: jobs.succeed(job.id, job.fence, "results/a.mp4", "reports/a", {"frames": 9}, 60),
        lambda job: jobs.fail(job.id, job.fence, "invalid_media", "no picture"),
        lambda job: jobs.cancelled(job.id, job.fence),
    ]
    for end, status in zip(ends, ("succeeded", "failed", "cancelled"), strict=True):
        job = start(jobs)
        ended = end(job)
        assert (ended.status, ended.completed_at) == (status, 1000.0)
        all_refused(jobs, job)
        assert jobs.request_cancel(job.id) == ended
        assert jobs.claim("other", LEASE) is None
    assert jobs.counts() == {"queued": 0, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 1}


def test_a_success_and_a_failure_say_what_came_of_it(jobs: JobStore, clock: Clock) -> None:
    job = start(jobs)
    jobs.note(job.id, job.fence, {"frames": 8, "width": 256})
    clock.now = 1005.0
    done = jobs.succeed(job.id, job.fence, "results/a.mp4", "reports/a", {"frames": 9}, keep=60)
    assert (done.result, done.report, done.info) == ("results/a.mp4", "reports/a", {"frames": 9, "width": 256})
    assert (done.fraction, done.expires_at, done.completed_at) == (1.0, 1065.0, 1005.0)
    job = start(jobs)
    lost = jobs.fail(job.id, job.fence, "invalid_media", "no picture")
    assert (lost.error_code, lost.error, lost.result) == ("invalid_media", "no picture", None)
    assert lost.expires_at == 1005.0 + KEEP_SECONDS


def test_names_that_databases_refuse_stop_nothing(jobs: JobStore) -> None:
    job = start(jobs)
    ended = jobs.fail(job.id, job.fence, "invalid_media", "bad name 'a\0b\udcff'")
    assert ended.status == "failed" and ended.error is not None
    assert ended.error.startswith("bad name 'ab")
    jobs.add_asset(Asset("asset_1", "ann", "inputs/cc/a.png", "image", "a\0b\udcff.png", 5, 1000.0))
    assert jobs.asset("asset_1", "ann").name == "ab?.png"


def test_only_finished_jobs_are_deleted_and_with_all_they_had(jobs: JobStore, clock: Clock) -> None:
    job = start(jobs, callback_url="http://a/b", idempotency=("key", "digest"))
    jobs.commit_chunk(chunk(job))
    with pytest.raises(IllegalChange):
        jobs.delete(job.id)
    jobs.cancelled(job.id, job.fence)
    assert jobs.delete(job.id, "ann").id == job.id
    with pytest.raises(JobNotFound):
        jobs.get(job.id)
    assert jobs.chunks(job.id) == [] and jobs.due_callbacks(clock.now + 9, 9) == []
    assert jobs.create(SPEC, "ann", idempotency=("key", "another"))[1]
    with pytest.raises(IllegalChange):
        jobs.delete(jobs.find("ann")[0].id)


def test_the_same_request_again_is_the_same_job(jobs: JobStore) -> None:
    first, new = jobs.create(SPEC, "ann", idempotency=("key", "digest"))
    again, newer = jobs.create(SPEC, "ann", idempotency=("key", "digest"))
    assert (new, newer, again) == (True, False, first)
    with pytest.raises(IdempotencyConflict):
        jobs.create(SPEC, "ann", idempotency=("key", "other"))
    assert jobs.create(SPEC, "bob", idempotency=("key", "other"))[1], "keys belong to their owner"
    assert len(jobs.find(None)) == 2


def test_the_same_request_from_many_threads_at_once_is_one_job(jobs: JobStore) -> None:
    gate = threading.Barrier(8)

    def create(_: int) -> tuple[str, bool]:
        gate.wait()
        job, new = jobs.create(SPEC, "ann", idempotency=("key", "digest"))
        return job.id, new

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    assert len({id for id, _ in made}) == 1
    assert sum(new for _, new in made) == 1
    assert len(jobs.find(None)) == 1


def test_fifty_jobs_are_claimed_once_each_by_eight_threads(jobs: JobStore) -> None:
    made = [jobs.create(SPEC, "ann")[0].id for _ in range(50)]
    gate = threading.Barrier(8)

    def claim_all(number: int) -> list[Job]:
        gate.wait()
        return list(iter(lambda: jobs.claim(f"worker-{number}", LEASE), None))

    with ThreadPoolExecutor(8) as pool:
        claimed = [job for found in pool.map(claim_all, range(8)) for job in found]
    assert sorted(job.id for job in claimed) == sorted(made)
    assert {(job.attempt, job.fence) for job in claimed} == {(1, 1)}


def test_the_oldest_job_is_claimed_first(jobs: JobStore) -> None:
    made = [jobs.create(SPEC, "ann")[0].id for _ in range(5)]
    claimed = [jobs.claim("worker", LEASE) for _ in range(6)]
    assert [job.id if job else None for job in claimed] == [*made, None]


def test_a_lease_that_ends_is_taken_over_and_the_zombie_is_refused(jobs: JobStore, clock: Clock) -> None:
    zombie = start(jobs)
    clock.now += LEASE - 1
    assert jobs.claim("other", LEASE) is None, "the lease still holds"
    assert jobs.heartbeat(zombie.id, zombie.fence, LEASE) is False
    clock.now += LEASE - 1
    assert jobs.claim("other", LEASE) is None, "a heartbeat renews it"
    assert jobs.commit_chunk(chunk(zombie))
    clock.now += 2
    heir = jobs.claim("other", LEASE)
    assert heir is not None and heir.id == zombie.id
    assert (heir.worker, heir.attempt, heir.started_at) == ("other", 2, zombie.started_at)
    assert heir.fence > zombie.fence
    all_refused(jobs, zombie)
    assert jobs.commit_chunk(chunk(heir)) is False, "the span was committed before"
    assert [row.fence for row in jobs.chunks(heir.id)] == [zombie.fence]
    assert jobs.succeed(heir.id, heir.fence, "results/a.mp4", None, {}, 60).status == "succeeded"


def test_a_job_given_back_counts_no_attempt(jobs: JobStore) -> None:
    job = start(jobs)
    for _ in range(MAX_ATTEMPTS + 2):
        jobs.give_back(job.id, job.fence)
        all_refused(jobs, job)
        assert jobs.get(job.id).status == "queued"
        again = jobs.claim("other", LEASE)
        assert again is not None and again.attempt == 1 and again.fence == job.fence + 1
        job = again


def test_a_job_that_kills_its_workers_fails(jobs: JobStore, clock: Clock) -> None:
    job = start(jobs, callback_url="http://a/b")
    waiting, _ = jobs.create(SPEC, "ann")
    for _ in range(MAX_ATTEMPTS - 1):
        clock.now += LEASE + 1
        again = jobs.claim("other", LEASE)
        assert again is not None and again.id == job.id
    clock.now += LEASE + 1
    following = jobs.claim("other", LEASE)
    assert following is not None and following.id == waiting.id, "the next job is claimed in the same call"
    ended = jobs.get(job.id)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "attempts_exhausted", MAX_ATTEMPTS)
    assert [callback.job for callback in jobs.due_callbacks(clock.now, 9)] == [job.id]


def test_cancelling_a_queued_job_ends_it_at_once(jobs: JobStore) -> None:
    job, _ = jobs.create(SPEC, "ann", callback_url="http://a/b")
    ended = jobs.request_cancel(job.id, "ann")
    assert (ended.status, ended.completed_at) == ("cancelled", 1000.0)
    assert jobs.claim("worker", LEASE) is None
    assert len(jobs.due_callbacks(1000.0, 9)) == 1
    assert jobs.request_cancel(job.id) == ended
    assert jobs.due_callbacks(2000.0, 9)[0].job == job.id and len(jobs.due_callbacks(3000.0, 9)) == 1, "told once"


def test_cancelling_a_running_job_reaches_its_worker(jobs: JobStore) -> None:
    job = start(jobs)
    assert jobs.request_cancel(job.id).status == "running"
    assert jobs.heartbeat(job.id, job.fence, LEASE) is True
    assert jobs.cancelled(job.id, job.fence).status == "cancelled"


@pytest.mark.parametrize("lost", ["the lease ends", "the worker gives it back"])
def test_a_cancelled_job_whose_worker_is_gone_ends_as_cancelled(jobs: JobStore, clock: Clock, lost: str) -> None:
    job = start(jobs, callback_url="http://a/b")
    jobs.request_cancel(job.id)
    if lost == "the lease ends":
        clock.now += LEASE + 1
    else:
        jobs.give_back(job.id, job.fence)
    assert jobs.claim("other", LEASE) is None
    assert jobs.get(job.id).status == "cancelled"
    assert len(jobs.due_callbacks(clock.now, 9)) == 1


def test_progress_never_falls(jobs: JobStore) -> None:
    job = start(jobs)
    jobs.progress(job.id, job.fence, "render", 50, 100, 0.5, 12.0)
    jobs.progress(job.id, job.fence, "render", 40, 100, 0.4, 14.0)
    seen = jobs.get(job.id)
    assert (seen.stage, seen.done, seen.total, seen.fraction, seen.eta) == ("render", 40, 100, 0.5, 14.0)
    jobs.give_back(job.id, job.fence)
    again = jobs.claim("other", LEASE)
    assert again is not None
    jobs.progress(again.id, again.fence, "track", 0, 100, 0.0)
    assert jobs.get(job.id).fraction == 0.5
    jobs.progress(again.id, again.fence, "render", 60, 100, 0.6)
    assert jobs.get(job.id).fraction == 0.6


def test_chunks_come_by_their_first_frame(jobs: JobStore) -> None:
    job = start(jobs)
    rows = [chunk(job, first) for first in (20, 0, 10)]
    rows[0] = replace(rows[0], segment="jobs/k/20.m4s")
    assert [jobs.commit_chunk(row) for row in rows] == [True, True, True]
    assert jobs.commit_chunk(replace(rows[0], key="jobs/k/other.mkv")) is False
    assert jobs.chunks(job.id) == sorted(rows, key=lambda row: row.start)


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_show_every_job_once_also_those_of_one_moment(jobs: JobStore, newest_first: bool) -> None:
    made = [jobs.create(SPEC, "ann")[0].id for _ in range(7)]
    jobs.create(SPEC, "bob")
    pages, after = [], None
    while page := jobs.find("ann", after=after, limit=3, newest_first=newest_first):
        pages.append([job.id for job in page])
        after = page[-1].id
        if len(pages) == 1:
            newcomer = jobs.create(SPEC, "ann" if newest_first else "bob")[0]  # moves nothing
            assert newcomer.status == "queued"
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [id for page in pages for id in page] == (made[::-1] if newest_first else made)
    with pytest.raises(JobNotFound):
        jobs.find("ann", after="video_none")


def test_jobs_are_found_by_status_and_kind(jobs: JobStore) -> None:
    video = start(jobs)
    portrait, _ = jobs.create(SPEC.model_copy(update={"kind": "portrait"}), "ann")
    avatar, _ = jobs.create(SPEC.model_copy(update={"kind": "avatar"}), "ann")
    assert [job.id for job in jobs.find("ann", kind="video")] == [portrait.id, video.id]
    assert [job.id for job in jobs.find("ann", kind="avatar")] == [avatar.id]
    assert [job.id for job in jobs.find(None, status="running")] == [video.id]
    assert [job.id for job in jobs.find("ann", status="queued", kind="avatar")] == [avatar.id]


def test_only_finished_jobs_expire(jobs: JobStore, clock: Clock) -> None:
    done = start(jobs)
    jobs.succeed(done.id, done.fence, None, None, {}, keep=60)
    start(jobs)
    jobs.create(SPEC, "ann")
    assert jobs.expired(1059.0) == []
    assert [job.id for job in jobs.expired(1061.0)] == [done.id]
    assert [job.id for job in jobs.expired(1e9)] == [done.id]


def test_the_queue_says_how_long_its_oldest_job_waits(jobs: JobStore, clock: Clock) -> None:
    assert jobs.queue_seconds() == 0
    jobs.create(SPEC, "ann")
    clock.now += 5
    jobs.create(SPEC, "ann")
    clock.now += 2
    assert jobs.queue_seconds() == 7
    jobs.claim("worker", LEASE)
    assert jobs.queue_seconds() == 2


def test_a_callback_is_sent_by_one_until_it_arrives(jobs: JobStore) -> None:
    job = start(jobs, callback_url="http://a/b")
    assert jobs.due_callbacks(1000.0, 9) == [], "nothing to tell yet"
    jobs.succeed(job.id, job.fence, None, None, {}, 60)
    with ThreadPoolExecutor(4) as pool:
        found = [callback for some in pool.map(lambda _: jobs.due_callbacks(1000.0, 9), range(4)) for callback in some]
    assert [(callback.job, callback.url, callback.attempt) for callback in found] == [(job.id, "http://a/b", 0)]
    (later,) = jobs.due_callbacks(1061.0, 9)  # its sender died
    jobs.callback_failed(later.id, again_at=1100.0)
    assert jobs.due_callbacks(1099.0, 9) == []
    (again,) = jobs.due_callbacks(1100.0, 9)
    assert (again.id, again.attempt) == (later.id, 1)
    jobs.callback_done(again.id)
    assert jobs.due_callbacks(1e9, 9) == []


def test_a_callback_that_is_given_up_is_gone(jobs: JobStore) -> None:
    for _ in range(3):
        jobs.request_cancel(jobs.create(SPEC, "ann", callback_url="http://a/b")[0].id)
    first, _ = jobs.due_callbacks(1000.0, limit=2)
    jobs.callback_failed(first.id, again_at=None)
    left = jobs.due_callbacks(1e9, 9)
    assert len(left) == 2 and first.id not in {callback.id for callback in left}


def test_a_late_word_of_an_old_callback_never_touches_a_new_one(jobs: JobStore) -> None:
    old, _ = jobs.create(SPEC, "ann", callback_url="http://a/old")
    jobs.request_cancel(old.id)
    (sending,) = jobs.due_callbacks(1000.0, 9)
    jobs.delete(old.id)
    jobs.request_cancel(jobs.create(SPEC, "ann", callback_url="http://a/new")[0].id)
    jobs.callback_done(sending.id)
    assert [callback.url for callback in jobs.due_callbacks(1000.0, 9)] == ["http://a/new"]


def test_the_final_state_and_its_callback_are_one_write(jobs: JobStore, jobs_url: str) -> None:
    job = start(jobs, callback_url="http://a/b")
    engine = sa.create_engine(jobs_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE callbacks RENAME TO hidden")
    with pytest.raises(sa.exc.SQLAlchemyError):
        jobs.succeed(job.id, job.fence, "results/a.mp4", None, {}, 60)
    assert jobs.get(job.id) == job, "no state without its callback"
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO callbacks")
    engine.dispose()
    jobs.succeed(job.id, job.fence, "results/a.mp4", None, {}, 60)
    assert len(jobs.due_callbacks(1000.0, 9)) == 1


def test_all_files_that_something_refers_to_are_in_use(jobs: JobStore) -> None:
    job = start(jobs)
    jobs.commit_chunk(replace(chunk(job), segment="jobs/k/0.m4s"))
    asset = Asset("asset_1", "ann", "inputs/cc/asset.png", "image", "me.png", 5, 1000.0)
    jobs.add_asset(asset)
    expected = {"inputs/aa/clip.mp4", "inputs/bb/speech.wav", "jobs/k/0.mkv", "jobs/k/0.m4s", "inputs/cc/asset.png"}
    assert jobs.keys_in_use() == expected
    jobs.succeed(job.id, job.fence, "results/a.mp4", None, {}, 60)
    assert jobs.keys_in_use() == expected | {"results/a.mp4"}
    jobs.delete(job.id)
    assert jobs.keys_in_use() == {asset.key}


def test_assets_belong_to_their_owner(jobs: JobStore) -> None:
    older = Asset("asset_1", "ann", "inputs/cc/a.png", "image", "me & 'you'.png", 3 * 2**31, 1000.0)
    newer = replace(older, id="asset_2", created_at=1001.0)
    for asset in (older, newer):
        jobs.add_asset(asset)
    assert jobs.asset("asset_1", "ann") == older
    assert jobs.assets("ann") == [newer, older] and jobs.assets("bob") == []
    for forbidden in (jobs.asset, jobs.delete_asset):
        with pytest.raises(JobNotFound):
            forbidden("asset_1", "bob")
    jobs.delete_asset("asset_1", "ann")
    assert jobs.assets("ann") == [newer]


def test_an_address_that_is_no_database_is_refused_with_the_reason(tmp_path: Path) -> None:
    for url in ("mysql://a/b", "jobs.db", ""):
        with pytest.raises(OptionError, match="expected a database"):
            open_jobs(url)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="expected a job table"):
        open_jobs(f"sqlite:///{tmp_path / 'file' / 'jobs.db'}")
    with pytest.raises(OutputError) as refused:
        open_jobs("postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)


WRITER = """
import sys
from serve_app.jobs.records import ChunkRow
from serve_app.jobs.store import open_jobs
jobs = open_jobs(sys.argv[1])
job = jobs.claim("doomed", 0.0)
for first in range(1_000_000):
    jobs.commit_chunk(ChunkRow(job.id, first, first + 1, f"jobs/k/{first}.mkv", job.fence, 0.1))
    jobs.progress(job.id, job.fence, "render", first, 1_000_000, first / 1e6)
    print(first, flush=True)
"""


def test_a_writer_killed_in_the_middle_leaves_a_table_that_others_go_on_with(jobs_url: str) -> None:
    jobs = open_jobs(jobs_url)
    made, _ = jobs.create(SPEC, "ann")
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", WRITER, jobs_url], stdout=subprocess.PIPE, text=True, env=place)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(60)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split()]
    assert child.wait() == -signal.SIGKILL
    opened = open_jobs(jobs_url)
    for table in (jobs, opened):
        starts = [row.start for row in table.chunks(made.id)]
        assert starts == list(range(len(starts))) and len(starts) >= len(told), "what was told as committed is there"
    heir = opened.claim("heir", LEASE)
    assert heir is not None and (heir.id, heir.fence) == (made.id, 2)
    assert opened.commit_chunk(chunk(heir, 2_000_000))
    assert opened.succeed(heir.id, heir.fence, None, None, {}, 60).status == "succeeded"
    assert jobs.get(made.id).status == "succeeded"
    jobs.close()
    opened.close()
