"""The job table at its edges: hostile ids, long texts, a job that ends while it is given back, tables of another version."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from deployments.errors import OptionError, OutputError
from serve_app.jobs.records import Job, JobNotFound
from serve_app.jobs.spec import JobSpec
from serve_app.jobs.store import JobStore, open_jobs

SPEC = JobSpec(engine="fake", source="inputs/aa/clip.mp4")
LEASE = 10.0


@pytest.fixture
def jobs(jobs_url: str) -> Iterator[JobStore]:
    opened = open_jobs(jobs_url)
    yield opened
    opened.close()


def claim(jobs: JobStore) -> Job:
    job = jobs.claim("worker", LEASE)
    assert job is not None
    return job


@pytest.mark.parametrize("id", ["video_\0", "video_\udc80", "x" * 10_000, "'; DROP TABLE jobs; --", ""])
def test_an_id_that_no_job_can_have_is_not_found(jobs: JobStore, id: str) -> None:
    jobs.create(SPEC, "ann")
    after, asset = lambda id: jobs.find(None, after=id), lambda id: jobs.asset(id, "ann")
    for ask in (jobs.get, jobs.request_cancel, jobs.delete, after, asset):
        with pytest.raises(JobNotFound):
            ask(id)
    assert jobs.counts()["queued"] == 1


def test_texts_of_any_length_are_kept_on_both_databases(jobs: JobStore) -> None:
    long = "w" * 2000
    made, _ = jobs.create(SPEC, "ann", request_id=long, idempotency=("k" * 1000, "d" * 300))
    job = jobs.claim(long, LEASE)
    assert job is not None and (job.worker, job.request_id) == (long, long)
    jobs.progress(job.id, job.fence, long, 0, 0, 0)
    assert jobs.fail(job.id, job.fence, long, long).error_code == long
    assert jobs.create(SPEC, "ann", idempotency=("k" * 1000, "d" * 300))[0].id == made.id


def test_a_cancelled_job_that_is_given_back_ends_without_another_worker(jobs: JobStore) -> None:
    jobs.create(SPEC, "ann", callback_url="https://a.example/done")
    job = claim(jobs)
    jobs.request_cancel(job.id)
    jobs.give_back(job.id, job.fence)
    ended = jobs.get(job.id)
    assert ended.status == "cancelled" and ended.expires_at is not None
    assert [callback.job for callback in jobs.due_callbacks(ended.completed_at or 0, 10)] == [job.id]


def test_a_reports_folder_is_in_use(jobs: JobStore) -> None:
    jobs.create(SPEC, "ann")
    job = claim(jobs)
    jobs.succeed(job.id, job.fence, "results/a.mp4", "reports/a", {}, 60)
    assert jobs.keys_in_use() == {"inputs/aa/clip.mp4", "results/a.mp4", "reports/a"}


def test_a_page_does_not_go_on_after_another_owners_job(jobs: JobStore) -> None:
    theirs, _ = jobs.create(SPEC, "bob")
    jobs.create(SPEC, "ann")
    with pytest.raises(JobNotFound):
        jobs.find("ann", after=theirs.id)
    assert len(jobs.find(None, after=theirs.id, newest_first=False)) == 1


def test_a_key_whose_job_is_being_deleted_gives_a_job_that_exists(jobs: JobStore) -> None:
    def turn(number: int) -> None:
        made, _ = jobs.create(SPEC, "ann", idempotency=("same", "digest"))
        assert made.status in ("queued", "cancelled")
        try:
            jobs.request_cancel(made.id)
            jobs.delete(made.id)
        except JobNotFound:  # another thread deleted it first
            pass

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(turn, range(60))) == [None] * 60
    assert sum(jobs.counts().values()) == 0


def test_a_table_of_another_version_is_refused_with_the_lacking_columns(jobs_url: str) -> None:
    open_jobs(jobs_url).close()
    engine = sa.create_engine(jobs_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE chunks DROP COLUMN segment")
    engine.dispose()
    with pytest.raises(OutputError, match="expected segment in table chunks"):
        open_jobs(jobs_url)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "me:secret@host", "postgresql+psycopg://me:secret@host:abc/jobs"]
)
def test_an_address_that_cannot_hold_jobs_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(OptionError) as refused:
        open_jobs(url)
    assert "secret" not in str(refused.value) and "expected" in str(refused.value)
