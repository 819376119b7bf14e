"""What a job gives: its video, its stream while it renders, its progress, its quality report."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from serve_app.api.auth import Owner
from serve_app.api.errors import ApiError
from serve_app.api.schemas import show_job
from serve_app.api.services import Door, Services
from serve_app.api.videos import KINDS, job_of
from serve_app.jobs.records import FINAL, ChunkRow, Job, JobNotFound
from serve_app.media_store import MediaMissing

router = APIRouter(prefix="/v1", tags=["videos"])
PIECE_BYTES = 1 << 18
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
UNSAFE_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"*/:<>?\\|]')
MAX_NAME = 100
REPORT_SECONDS = 600  # or as long as the whole job took: a report that is not there then was lost with its worker
ENDINGS = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}


def finished(job: Job, what: str) -> None:
    """Raise ApiError (409) unless the job succeeded."""
    if job.status not in FINAL:
        raise ApiError(
            f"expected a finished job, got one that is {job.status}; its {what} comes later", 409, "not_ready", retry_after=1
        )
    if job.status != "succeeded":
        raise ApiError(
            f"expected a finished job, got one that {job.status}: {job.error or 'by its caller'}",
            409,
            job.error_code or job.status,
        )


@router.head("/videos/{video_id}/content", include_in_schema=False)
@router.get("/videos/{video_id}/content", response_class=FileResponse)
def get_content(video_id: str, request: Request, services: Door, owner: Owner, variant: str = "video") -> Response:
    """The video file. Ranges, `If-Range` and `If-None-Match` work; 409 with code `not_ready` until the job is done."""
    job = job_of(services, video_id, owner, KINDS)
    if variant != "video":
        raise ApiError(f"expected the variant 'video', got {variant[:40]!r}", param="variant")
    finished(job, "video")
    if job.result is None:
        raise JobNotFound("expected a job with a video, got one without")
    headers = {"ETag": f'"{job.id}-{job.fence}"', "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") in (headers["ETag"], "*"):
        return Response(status_code=304, headers=headers)
    path = services.media.fetch(job.result)
    name = file_name(job)
    return FileResponse(path, media_type="video/mp4", filename=name, content_disposition_type="inline", headers=headers)


def file_name(job: Job) -> str:
    """What a browser shall call the video: after the clip that was sent, without what file systems refuse."""
    told = str(job.info.get("name", "")).replace("\\", "/").rsplit("/", 1)[-1]
    stem = UNSAFE_IN_NAMES.sub("_", told.rsplit(".", 1)[0])[:MAX_NAME].strip(" .")
    return f"{stem}.lipsync.mp4" if stem else f"{job.id}.mp4"


@router.get("/videos/{video_id}/report")
def get_report(video_id: str, services: Door, owner: Owner, format: str = "json") -> Response:
    """The quality report: numbers and curves, or with `format=html` one page to look at."""
    job = job_of(services, video_id, owner, KINDS)
    if format not in ("json", "html"):
        raise ApiError(f"expected the format json or html, got {format[:40]!r}", param="format")
    finished(job, "report")
    if job.report is None:
        raise JobNotFound("expected a job with a quality report, got one without; ask for it with report=true")
    page = report_page(services, job, job.report)
    if format == "json":
        return FileResponse(page.with_name("report.json"), media_type="application/json")
    return FileResponse(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


def report_page(services: Services, job: Job, key: str) -> Path:
    """The report's page, which is written last. Raises ApiError (409) while it is being made, JobNotFound if it was lost."""
    with suppress(MediaMissing):
        page = services.media.fetch_folder(key) / "report.html"
        if page.is_file():
            return page
    ended = job.completed_at or 0.0
    if time.time() - ended > max(REPORT_SECONDS, ended - (job.started_at or ended)):
        services.jobs.drop_report(job.id, job.fence)
        raise JobNotFound("expected a quality report, got none: the process that made it was stopped; the video is whole")
    raise ApiError("expected a finished report, got none yet; it follows the video", 409, "not_ready", retry_after=2)


@router.get("/videos/{video_id}/events", response_class=StreamingResponse)
async def get_events(video_id: str, services: Door, owner: Owner) -> StreamingResponse:
    """Server-sent events: `progress` as often as something changes, at last `completed`, `failed` or `cancelled`."""
    await run_in_threadpool(job_of, services, video_id, owner, KINDS)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(services, video_id, owner), media_type="text/event-stream", headers=headers)


async def events(services: Services, job_id: str, owner: str) -> AsyncIterator[str]:
    """The events of a job until it is final. Each holds the whole state, so that a reader may join at any time."""
    settings = services.settings
    said, number, spoke = "", 0, time.monotonic()
    while True:
        try:
            job = await run_in_threadpool(services.jobs.get, job_id, owner)
        except JobNotFound:
            return  # deleted meanwhile
        name = ENDINGS.get(job.status, "progress")
        shown = show_job(job).model_dump_json() if job.status in FINAL else progress_of(job)
        if shown != said:
            number, said, spoke = number + 1, shown, time.monotonic()
            yield f"id: {number}\nevent: {name}\ndata: {shown}\n\n"
        elif time.monotonic() - spoke > settings.heartbeat_seconds:
            spoke = time.monotonic()
            yield ": still here\n\n"
        if job.status in FINAL:
            return
        await asyncio.sleep(settings.poll_seconds)


def progress_of(job: Job) -> str:
    """One line of JSON."""
    shown = show_job(job)
    fields = ("id", "status", "stage", "done", "total", "eta", "progress", "cancel_requested")
    return json.dumps({**{name: getattr(shown, name) for name in fields}, "fraction": round(job.fraction, 4)})


@router.get("/videos/{video_id}/stream", response_class=StreamingResponse)
async def get_stream(video_id: str, services: Door, owner: Owner) -> StreamingResponse:
    """The video as fragmented MP4 from its first finished chunk on, while later ones still render.

    It ends where the job ends: look at the job's status to know whether it is whole.
    """
    job = await run_in_threadpool(job_of, services, video_id, owner, KINDS)
    if job.status in FINAL:
        finished(job, "stream")
    return StreamingResponse(stream(services, job.id, owner), media_type="video/mp4", headers={"Cache-Control": "no-store"})


async def stream(services: Services, job_id: str, owner: str) -> AsyncIterator[bytes]:
    """The stream's pieces in order, as they are committed; the finished file where they are not there any more."""
    sent = 0  # frames
    while True:
        try:
            job = await run_in_threadpool(services.jobs.get, job_id, owner)
            rows = await run_in_threadpool(services.jobs.chunks, job_id)
        except JobNotFound:
            return
        if job.status == "succeeded" and job.result and sent == 0 and not await run_in_threadpool(all_kept, services, rows):
            async for piece in pieces(await run_in_threadpool(services.media.fetch, job.result)):
                yield piece
            return
        for row in rows:
            if row.start == sent and row.segment is not None:
                async for piece in pieces(await run_in_threadpool(services.media.fetch, row.segment)):
                    yield piece
                sent = row.stop
        if job.status in FINAL:
            return
        await asyncio.sleep(services.settings.poll_seconds)


def all_kept(services: Services, rows: list[ChunkRow]) -> bool:
    """Whether all pieces of a stream are still there; they go some hours after the job."""
    return bool(rows) and all(row.segment is not None and services.media.exists(row.segment) for row in rows)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """A file in pieces, read in threads."""
    file = await run_in_threadpool(path.open, "rb")
    try:
        while piece := await run_in_threadpool(file.read, PIECE_BYTES):
            yield piece
    finally:
        file.close()
