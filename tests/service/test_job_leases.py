"""Who works on a job: claims, leases, fences, and what a worker that dies or comes back may still write."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serve_app.jobs.records import Job
from serve_app.jobs.store import MAX_ATTEMPTS, JobStore, open_jobs

_SPEC = importlib.util.spec_from_file_location("jobs_kit", Path(__file__).with_name("jobs_kit.py"))
kit = sys.modules.setdefault("jobs_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "LEASE"):
    _SPEC.loader.exec_module(kit)

ROOT = Path(__file__).resolve().parents[2]


def test_fifty_jobs_are_claimed_once_each_by_eight_threads(jobs: JobStore) -> None:
    made = [jobs.create(kit.SPEC, "ann")[0].id for _ in range(50)]
    gate = threading.Barrier(8)

    def claim_all(number: int) -> list[Job]:
        gate.wait()
        return list(iter(lambda: jobs.claim(f"worker-{number}", kit.LEASE), None))

    with ThreadPoolExecutor(8) as pool:
        claimed = [job for found in pool.map(claim_all, range(8)) for job in found]
    assert sorted(job.id for job in claimed) == sorted(made)
    assert {(job.attempt, job.fence) for job in claimed} == {(1, 1)}


def test_the_oldest_job_is_claimed_first(jobs: JobStore) -> None:
    made = [jobs.create(kit.SPEC, "ann")[0].id for _ in range(5)]
    claimed = [jobs.claim("worker", kit.LEASE) for _ in range(6)]
    assert [job.id if job else None for job in claimed] == [*made, None]


def test_a_lease_that_ends_is_taken_over_and_the_zombie_is_refused(jobs: JobStore, clock: Any) -> None:
    zombie = kit.start(jobs)
    clock.now += kit.LEASE - 1
    assert jobs.claim("other", kit.LEASE) is None, "the lease still holds"
    assert jobs.heartbeat(zombie.id, zombie.fence, kit.LEASE) is False
    clock.now += kit.LEASE - 1
    assert jobs.claim("other", kit.LEASE) is None, "a heartbeat renews it"
    assert jobs.commit_chunk(kit.chunk(zombie))
    clock.now += 2
    heir = jobs.claim("other", kit.LEASE)
    assert heir is not None and heir.id == zombie.id
    assert (heir.worker, heir.attempt, heir.started_at) == ("other", 2, zombie.started_at)
    assert heir.fence > zombie.fence
    kit.all_refused(jobs, zombie)
    assert jobs.commit_chunk(kit.chunk(heir)) is False, "the span was committed before"
    assert [row.fence for row in jobs.chunks(heir.id)] == [zombie.fence]
    assert jobs.succeed(heir.id, heir.fence, "results/a.mp4", None, {}, 60).status == "succeeded"


def test_a_job_given_back_counts_no_attempt(jobs: JobStore) -> None:
    job = kit.start(jobs)
    for _ in range(MAX_ATTEMPTS + 2):
        jobs.give_back(job.id, job.fence)
        kit.all_refused(jobs, job)
        assert jobs.get(job.id).status == "queued"
        again = jobs.claim("other", kit.LEASE)
        assert again is not None and again.attempt == 1 and again.fence == job.fence + 1
        job = again


def test_a_job_that_kills_its_workers_fails(jobs: JobStore, clock: Any) -> None:
    job = kit.start(jobs, callback_url="http://a/b")
    waiting, _ = jobs.create(kit.SPEC, "ann")
    for _ in range(MAX_ATTEMPTS - 1):
        clock.now += kit.LEASE + 1
        again = jobs.claim("other", kit.LEASE)
        assert again is not None and again.id == job.id
    clock.now += kit.LEASE + 1
    following = jobs.claim("other", kit.LEASE)
    assert following is not None and following.id == waiting.id, "the next job is claimed in the same call"
    ended = jobs.get(job.id)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "attempts_exhausted", MAX_ATTEMPTS)
    assert [callback.job for callback in jobs.due_callbacks(clock.now, 9)] == [job.id]


def test_cancelling_a_running_job_reaches_its_worker(jobs: JobStore) -> None:
    job = kit.start(jobs)
    assert jobs.request_cancel(job.id).status == "running"
    assert jobs.heartbeat(job.id, job.fence, kit.LEASE) is True
    assert jobs.cancelled(job.id, job.fence).status == "cancelled"


@pytest.mark.parametrize("lost", ["the lease ends", "the worker gives it back"])
def test_a_cancelled_job_whose_worker_is_gone_ends_as_cancelled(jobs: JobStore, clock: Any, lost: str) -> None:
    job = kit.start(jobs, callback_url="http://a/b")
    jobs.request_cancel(job.id)
    if lost == "the lease ends":
        clock.now += kit.LEASE + 1
    else:
        jobs.give_back(job.id, job.fence)
    assert jobs.claim("other", kit.LEASE) is None
    assert jobs.get(job.id).status == "cancelled"
    assert len(jobs.due_callbacks(clock.now, 9)) == 1


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
    made, _ = jobs.create(kit.SPEC, "ann")
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
    heir = opened.claim("heir", kit.LEASE)
    assert heir is not None and (heir.id, heir.fence) == (made.id, 2)
    assert opened.commit_chunk(kit.chunk(heir, 2_000_000))
    assert opened.succeed(heir.id, heir.fence, None, None, {}, 60).status == "succeeded"
    assert jobs.get(made.id).status == "succeeded"
    jobs.close()
    opened.close()
