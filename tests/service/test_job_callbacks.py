"""Messages that wait in the job table: told once, sent again until they arrive, one write with the final state."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from serve_app.jobs.store import JobStore

_SPEC = importlib.util.spec_from_file_location("jobs_kit", Path(__file__).with_name("jobs_kit.py"))
kit = sys.modules.setdefault("jobs_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "LEASE"):
    _SPEC.loader.exec_module(kit)


def test_a_callback_is_sent_by_one_until_it_arrives(jobs: JobStore) -> None:
    job = kit.start(jobs, callback_url="http://a/b")
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
        jobs.request_cancel(jobs.create(kit.SPEC, "ann", callback_url="http://a/b")[0].id)
    first, _ = jobs.due_callbacks(1000.0, limit=2)
    jobs.callback_failed(first.id, again_at=None)
    left = jobs.due_callbacks(1e9, 9)
    assert len(left) == 2 and first.id not in {callback.id for callback in left}


def test_a_late_word_of_an_old_callback_never_touches_a_new_one(jobs: JobStore) -> None:
    old, _ = jobs.create(kit.SPEC, "ann", callback_url="http://a/old")
    jobs.request_cancel(old.id)
    (sending,) = jobs.due_callbacks(1000.0, 9)
    jobs.delete(old.id)
    jobs.request_cancel(jobs.create(kit.SPEC, "ann", callback_url="http://a/new")[0].id)
    jobs.callback_done(sending.id)
    assert [callback.url for callback in jobs.due_callbacks(1000.0, 9)] == ["http://a/new"]


def test_the_final_state_and_its_callback_are_one_write(jobs: JobStore, jobs_url: str) -> None:
    job = kit.start(jobs, callback_url="http://a/b")
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
