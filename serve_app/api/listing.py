"""Pages of jobs."""

from __future__ import annotations

from typing import Literal, cast

from serve_app.api.schemas import STORED, JobList, StatusWord, show_job
from serve_app.jobs.records import Status
from serve_app.jobs.store import JobStore


def page_of(
    jobs: JobStore,
    owner: str,
    kind: Literal["video", "avatar", "template"],
    after: str | None,
    limit: int,
    newest_first: bool,
    status: StatusWord | None,
) -> JobList:
    """Up to `limit` jobs of a kind (`video`: portraits too) after a cursor."""
    wanted = cast(Status, STORED[status]) if status else None
    found = jobs.find(owner, status=wanted, kind=kind, after=after, limit=limit + 1, newest_first=newest_first)
    shown = [show_job(job) for job in found[:limit]]
    ids = [job.id for job in shown]
    return JobList(data=shown, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=len(found) > limit)
