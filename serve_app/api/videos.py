"""`/v1/videos`: create, look, list, cancel, delete."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serve_app.api.auth import Owner
from serve_app.api.listing import Page, page_of
from serve_app.api.schemas import Deleted, JobAnswer, JobList, VideoRequest, show_job
from serve_app.api.services import Door, Services
from serve_app.api.submit import submit_video
from serve_app.api.take import body_of, take_job
from serve_app.jobs.records import FINAL, Job, JobNotFound

router = APIRouter(prefix="/v1", tags=["videos"])
KINDS = ("video", "portrait")
POLL_MILLISECONDS = "500"


def job_of(services: Services, job_id: str, owner: str, kinds: tuple[str, ...]) -> Job:
    """A job of the caller and of these kinds. Raises JobNotFound."""
    job = services.jobs.get(job_id, owner)
    if job.spec.kind not in kinds:
        raise JobNotFound(f"expected the id of one of {', '.join(kinds)}, got that of a {job.spec.kind}")
    return job


@router.post("/videos", openapi_extra=body_of("VideoRequest", ("video", "image", "audio", "input_reference")))
async def create_video(request: Request, services: Door, owner: Owner) -> JobAnswer:
    """Queue a job. Answers 200 with the job as soon as its inputs are checked."""
    return show_job(await take_job(request, services, owner, submit_video))


@router.get("/videos")
def list_videos(services: Door, owner: Owner, page: Page) -> JobList:
    """The caller's jobs. `status=failed` and `status=cancelled` are told apart here."""
    return page_of(services.jobs, owner, "video", page)


@router.get("/videos/{video_id}")
def get_video(video_id: str, services: Door, owner: Owner, response: Response) -> JobAnswer:
    """One job."""
    job = job_of(services, video_id, owner, KINDS)
    if job.status not in FINAL:
        response.headers["openai-poll-after-ms"] = POLL_MILLISECONDS
    return show_job(job)


@router.post("/videos/{video_id}/cancel")
def cancel_video(video_id: str, services: Door, owner: Owner) -> JobAnswer:
    """Stop a job: at once if it waits, within two seconds if it runs. A finished job stays as it is."""
    job_of(services, video_id, owner, KINDS)
    return show_job(services.jobs.request_cancel(video_id, owner))


@router.delete("/videos/{video_id}")
def delete_video(video_id: str, services: Door, owner: Owner) -> Deleted:
    """Delete a finished job, its video and its report. A running one is cancelled first, by `cancel`."""
    job_of(services, video_id, owner, KINDS)
    forget(services, services.jobs.delete(video_id, owner))
    return Deleted(id=video_id, object="video.deleted")


def forget(services: Services, job: Job) -> None:
    """Delete what a deleted job made."""
    if job.result is not None:
        services.media.delete(job.result)
    if job.report is not None:
        services.media.delete_folder(job.report)


__all__ = ["VideoRequest", "router"]
