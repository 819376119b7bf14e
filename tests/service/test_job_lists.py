"""What can be asked of the job table: pages, filters, ages, chunks, assets, the files in use."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.jobs.records import Asset, JobNotFound
from serve_app.jobs.store import JobStore

_SPEC = importlib.util.spec_from_file_location("jobs_kit", Path(__file__).with_name("jobs_kit.py"))
kit = sys.modules.setdefault("jobs_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "LEASE"):
    _SPEC.loader.exec_module(kit)


def test_chunks_come_by_their_first_frame(jobs: JobStore) -> None:
    job = kit.start(jobs)
    rows = [kit.chunk(job, first) for first in (20, 0, 10)]
    rows[0] = replace(rows[0], segment="jobs/k/20.m4s")
    assert [jobs.commit_chunk(row) for row in rows] == [True, True, True]
    assert jobs.commit_chunk(replace(rows[0], key="jobs/k/other.mkv")) is False
    assert jobs.chunks(job.id) == sorted(rows, key=lambda row: row.start)


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_show_every_job_once_also_those_of_one_moment(jobs: JobStore, newest_first: bool) -> None:
    made = [jobs.create(kit.SPEC, "ann")[0].id for _ in range(7)]
    jobs.create(kit.SPEC, "bob")
    pages, after = [], None
    while page := jobs.find("ann", after=after, limit=3, newest_first=newest_first):
        pages.append([job.id for job in page])
        after = page[-1].id
        if len(pages) == 1:
            newcomer = jobs.create(kit.SPEC, "ann" if newest_first else "bob")[0]  # moves nothing
            assert newcomer.status == "queued"
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [id for page in pages for id in page] == (made[::-1] if newest_first else made)
    with pytest.raises(JobNotFound):
        jobs.find("ann", after="video_none")


def test_jobs_are_found_by_status_and_kind(jobs: JobStore) -> None:
    video = kit.start(jobs)
    portrait, _ = jobs.create(kit.SPEC.model_copy(update={"kind": "portrait"}), "ann")
    avatar, _ = jobs.create(kit.SPEC.model_copy(update={"kind": "avatar"}), "ann")
    assert [job.id for job in jobs.find("ann", kind="video")] == [portrait.id, video.id]
    assert [job.id for job in jobs.find("ann", kind="avatar")] == [avatar.id]
    assert [job.id for job in jobs.find(None, status="running")] == [video.id]
    assert [job.id for job in jobs.find("ann", status="queued", kind="avatar")] == [avatar.id]


def test_only_finished_jobs_expire(jobs: JobStore, clock: Any) -> None:
    done = kit.start(jobs)
    jobs.succeed(done.id, done.fence, None, None, {}, keep=60)
    kit.start(jobs)
    jobs.create(kit.SPEC, "ann")
    assert jobs.expired(1059.0) == []
    assert [job.id for job in jobs.expired(1061.0)] == [done.id]
    assert [job.id for job in jobs.expired(1e9)] == [done.id]


def test_the_queue_says_how_long_its_oldest_job_waits(jobs: JobStore, clock: Any) -> None:
    assert jobs.queue_seconds() == 0
    jobs.create(kit.SPEC, "ann")
    clock.now += 5
    jobs.create(kit.SPEC, "ann")
    clock.now += 2
    assert jobs.queue_seconds() == 7
    jobs.claim("worker", kit.LEASE)
    assert jobs.queue_seconds() == 2


def test_all_files_that_something_refers_to_are_in_use(jobs: JobStore) -> None:
    job = kit.start(jobs)
    jobs.commit_chunk(replace(kit.chunk(job), segment="jobs/k/0.m4s"))
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
