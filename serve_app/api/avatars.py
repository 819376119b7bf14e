"""`/v1/avatars`: learn a person once, use the id in many jobs."""

from __future__ import annotations

from fastapi import APIRouter, Request

from serve_app.api.auth import Owner
from serve_app.api.listing import Page, page_of
from serve_app.api.schemas import Deleted, JobAnswer, JobList, show_job
from serve_app.api.services import Door
from serve_app.api.submit import submit_avatar
from serve_app.api.take import body_of, take_job
from serve_app.api.videos import forget, job_of

router = APIRouter(prefix="/v1", tags=["avatars"])
KINDS = ("avatar",)


@router.post("/avatars", openapi_extra=body_of("AvatarRequest", ("video",)))
async def create_avatar(request: Request, services: Door, owner: Owner) -> JobAnswer:
    """Queue the fit of a person. The id can be used once its status is `completed`."""
    return show_job(await take_job(request, services, owner, submit_avatar))


@router.get("/avatars")
def list_avatars(services: Door, owner: Owner, page: Page) -> JobList:
    """The caller's avatars."""
    return page_of(services.jobs, owner, "avatar", page)


@router.get("/avatars/{avatar_id}")
def get_avatar(avatar_id: str, services: Door, owner: Owner) -> JobAnswer:
    """One avatar."""
    return show_job(job_of(services, avatar_id, owner, KINDS))


@router.post("/avatars/{avatar_id}/cancel")
def cancel_avatar(avatar_id: str, services: Door, owner: Owner) -> JobAnswer:
    """Stop a fit."""
    job_of(services, avatar_id, owner, KINDS)
    return show_job(services.jobs.request_cancel(avatar_id, owner))


@router.delete("/avatars/{avatar_id}")
def delete_avatar(avatar_id: str, services: Door, owner: Owner) -> Deleted:
    """Delete an avatar. Jobs that use it already go on."""
    job_of(services, avatar_id, owner, KINDS)
    forget(services, services.jobs.delete(avatar_id, owner))
    return Deleted(id=avatar_id, object="avatar.deleted")
