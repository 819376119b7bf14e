"""Pages of jobs."""

from __future__ import annotations

from typing import cast

from serve_app.api.schemas import STORED, JobList, StatusWord, show_job
from serve_app.jobs.records import Job, Status
from serve_app.jobs.store import JobStore

READ_AT_ONCE = 100


def page_of(
    jobs: JobStore,
    owner: str,
    kinds: tuple[str, ...],
    after: str | None,
    limit: int,
    newest_first: bool,
    status: StatusWord | None,
) -> JobList:
    """Up to `limit` jobs of some kinds after a cursor."""
    wanted = cast(Status, STORED[status]) if status else None
    found: list[Job] = []
    while len(found) <= limit:
        rows = jobs.find(owner, status=wanted, after=after, limit=READ_AT_ONCE, newest_first=newest_first)
        found += [job for job in rows if job.spec.kind in kinds]
        if len(rows) < READ_AT_ONCE:
            break
        after = rows[-1].id
    shown = [show_job(job) for job in found[:limit]]
    ids = [job.id for job in shown]
    return JobList(data=shown, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=len(found) > limit)
