"""Pages of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, cast

from fastapi import Depends, Query

from serve_app.api.schemas import STORED, JobList, StatusWord, show_job
from serve_app.jobs.records import Status
from serve_app.jobs.store import JobStore


@dataclass(frozen=True)
class Paging:
    """Which jobs of a list are asked for: `limit` of them after a cursor."""

    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    status: StatusWord | None = None


Page = Annotated[Paging, Depends()]


def page_of(jobs: JobStore, owner: str, kind: Literal["video", "avatar", "template"], asked: Paging) -> JobList:
    """A page of the jobs of a kind (`video`: portraits too)."""
    wanted = cast(Status, STORED[asked.status]) if asked.status else None
    newest_first, count = asked.order == "desc", asked.limit
    found = jobs.find(owner, status=wanted, kind=kind, after=asked.after, limit=count + 1, newest_first=newest_first)
    shown = [show_job(job) for job in found[:count]]
    ids = [job.id for job in shown]
    return JobList(data=shown, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=len(found) > count)
