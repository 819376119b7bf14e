"""The job table on SQLite and on PostgreSQL: what a job may become, and what comes of the same request twice."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import OptionError, OutputError
from serve_app.jobs.records import Asset, IdempotencyConflict, IllegalChange, Job, JobNotFound
from serve_app.jobs.store import KEEP_SECONDS, JobStore, open_jobs

_SPEC = importlib.util.spec_from_file_location("jobs_kit", Path(__file__).with_name("jobs_kit.py"))
kit = sys.modules.setdefault("jobs_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "LEASE"):
    _SPEC.loader.exec_module(kit)


def test_a_job_comes_back_as_it_was_created(jobs: JobStore) -> None:
    spec = kit.SPEC.model_copy(update={"options": {"cost": 0.5}, "face": "left", "chunks": 3})
    job, new = jobs.create(spec, "ann", metadata={"scene": "zwölf 12"}, callback_url="http://a/b", request_id="req_1")
    assert new and job.id.startswith("video_")
    assert jobs.get(job.id) == jobs.get(job.id, "ann") == job
    assert (job.status, job.spec, job.metadata, job.created_at) == ("queued", spec, {"scene": "zwölf 12"}, 1000.0)
    assert jobs.create(kit.SPEC.model_copy(update={"kind": "avatar"}), "ann")[0].id.startswith("avatar_")


def test_another_owner_sees_no_job(jobs: JobStore) -> None:
    job, _ = jobs.create(kit.SPEC, "ann")
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
        job = kit.start(jobs)
        ended = end(job)
        assert (ended.status, ended.completed_at) == (status, 1000.0)
        kit.all_refused(jobs, job)
        assert jobs.request_cancel(job.id) == ended
        assert jobs.claim("other", kit.LEASE) is None
    assert jobs.counts() == {"queued": 0, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 1}


def test_a_success_and_a_failure_say_what_came_of_it(jobs: JobStore, clock: Any) -> None:
    job = kit.start(jobs)
    jobs.note(job.id, job.fence, {"frames": 8, "width": 256})
    clock.now = 1005.0
    done = jobs.succeed(job.id, job.fence, "results/a.mp4", "reports/a", {"frames": 9}, keep=60)
    assert (done.result, done.report, done.info) == ("results/a.mp4", "reports/a", {"frames": 9, "width": 256})
    assert (done.fraction, done.expires_at, done.completed_at) == (1.0, 1065.0, 1005.0)
    job = kit.start(jobs)
    lost = jobs.fail(job.id, job.fence, "invalid_media", "no picture")
    assert (lost.error_code, lost.error, lost.result) == ("invalid_media", "no picture", None)
    assert lost.expires_at == 1005.0 + KEEP_SECONDS


def test_names_that_databases_refuse_stop_nothing(jobs: JobStore) -> None:
    job = kit.start(jobs)
    ended = jobs.fail(job.id, job.fence, "invalid_media", "bad name 'a\0b\udcff'")
    assert ended.status == "failed" and ended.error is not None
    assert ended.error.startswith("bad name 'ab")
    jobs.add_asset(Asset("asset_1", "ann", "inputs/cc/a.png", "image", "a\0b\udcff.png", 5, 1000.0))
    assert jobs.asset("asset_1", "ann").name == "ab?.png"


def test_only_finished_jobs_are_deleted_and_with_all_they_had(jobs: JobStore, clock: Any) -> None:
    job = kit.start(jobs, callback_url="http://a/b", idempotency=("key", "digest"))
    jobs.commit_chunk(kit.chunk(job))
    with pytest.raises(IllegalChange):
        jobs.delete(job.id)
    jobs.cancelled(job.id, job.fence)
    assert jobs.delete(job.id, "ann").id == job.id
    with pytest.raises(JobNotFound):
        jobs.get(job.id)
    assert jobs.chunks(job.id) == [] and jobs.due_callbacks(clock.now + 9, 9) == []
    assert jobs.create(kit.SPEC, "ann", idempotency=("key", "another"))[1]
    with pytest.raises(IllegalChange):
        jobs.delete(jobs.find("ann")[0].id)


def test_the_same_request_again_is_the_same_job(jobs: JobStore) -> None:
    first, new = jobs.create(kit.SPEC, "ann", idempotency=("key", "digest"))
    again, newer = jobs.create(kit.SPEC, "ann", idempotency=("key", "digest"))
    assert (new, newer, again) == (True, False, first)
    with pytest.raises(IdempotencyConflict):
        jobs.create(kit.SPEC, "ann", idempotency=("key", "other"))
    assert jobs.knows_key("ann", "key") and not jobs.knows_key("ann", "keys") and not jobs.knows_key("bob", "key")
    assert jobs.create(kit.SPEC, "bob", idempotency=("key", "other"))[1], "keys belong to their owner"
    assert len(jobs.find(None)) == 2


def test_the_same_request_from_many_threads_at_once_is_one_job(jobs: JobStore) -> None:
    gate = threading.Barrier(8)

    def create(_: int) -> tuple[str, bool]:
        gate.wait()
        job, new = jobs.create(kit.SPEC, "ann", idempotency=("key", "digest"))
        return job.id, new

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    assert len({id for id, _ in made}) == 1
    assert sum(new for _, new in made) == 1
    assert len(jobs.find(None)) == 1


def test_cancelling_a_queued_job_ends_it_at_once(jobs: JobStore) -> None:
    job, _ = jobs.create(kit.SPEC, "ann", callback_url="http://a/b")
    ended = jobs.request_cancel(job.id, "ann")
    assert (ended.status, ended.completed_at) == ("cancelled", 1000.0)
    assert jobs.claim("worker", kit.LEASE) is None
    assert len(jobs.due_callbacks(1000.0, 9)) == 1
    assert jobs.request_cancel(job.id) == ended
    assert jobs.due_callbacks(2000.0, 9)[0].job == job.id and len(jobs.due_callbacks(3000.0, 9)) == 1, "told once"


def test_progress_never_falls(jobs: JobStore) -> None:
    job = kit.start(jobs)
    jobs.progress(job.id, job.fence, "render", 50, 100, 0.5, 12.0)
    jobs.progress(job.id, job.fence, "render", 40, 100, 0.4, 14.0)
    seen = jobs.get(job.id)
    assert (seen.stage, seen.done, seen.total, seen.fraction, seen.eta) == ("render", 40, 100, 0.5, 14.0)
    jobs.give_back(job.id, job.fence)
    again = jobs.claim("other", kit.LEASE)
    assert again is not None
    jobs.progress(again.id, again.fence, "track", 0, 100, 0.0)
    assert jobs.get(job.id).fraction == 0.5
    jobs.progress(again.id, again.fence, "render", 60, 100, 0.6)
    assert jobs.get(job.id).fraction == 0.6
    ended = jobs.succeed(again.id, again.fence, None, None, {}, 60.0)
    assert (ended.done, ended.total, ended.fraction) == (100, 100, 1.0), "whoever looks late sees all of it done"


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
