"""`/v1/templates`: a filmed message with slots, learned once; `POST /v1/videos {template_id, variables}` says it."""

from __future__ import annotations

from fastapi import APIRouter, Request

from serve_app.api.auth import Owner
from serve_app.api.listing import Page, page_of
from serve_app.api.schemas import Deleted, JobAnswer, JobList, show_job
from serve_app.api.services import Door
from serve_app.api.submit import submit_template
from serve_app.api.take import body_of, take_job
from serve_app.api.videos import forget, job_of
from serve_app.templates import ROOM

router = APIRouter(prefix="/v1", tags=["templates"])
KINDS = ("template",)


@router.post("/templates", openapi_extra=body_of("TemplateRequest", ("video",)))
async def create_template(request: Request, services: Door, owner: Owner) -> JobAnswer:
    """Check clip and script, and queue the fit of the person. The id can be used once its status is `completed`."""
    return show_job(await take_job(request, services, owner, submit_template))


@router.get("/templates")
def list_templates(services: Door, owner: Owner, page: Page) -> JobList:
    """The caller's templates."""
    return page_of(services.jobs, owner, "template", page)


@router.get("/templates/{template_id}")
def get_template(template_id: str, services: Door, owner: Owner) -> JobAnswer:
    """One template, with its script and the names of its variables."""
    job = job_of(services, template_id, owner, KINDS)
    return show_job(job).model_copy(update={"script": job.info.get("script") or job.spec.script})


@router.delete("/templates/{template_id}")
def delete_template(template_id: str, services: Door, owner: Owner) -> Deleted:
    """Delete a template. Jobs that use it already go on."""
    job_of(services, template_id, owner, KINDS)
    forget(services, services.jobs.delete(template_id, owner))
    services.media.delete_folder(f"{ROOM}/{template_id}")
    return Deleted(id=template_id, object="template.deleted")
