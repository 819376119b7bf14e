"""What every route that takes a body does: look whether there is room, read the form, give it to a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from serve_app.api.errors import ApiError
from serve_app.api.services import Services, run_check
from serve_app.api.submit import Caller
from serve_app.api.uploads import Form, read_form

P = ParamSpec("P")
Result = TypeVar("Result")


def body_of(schema: str, files: tuple[str, ...]) -> dict[str, Any]:
    """What the OpenAPI page says of a body that we read ourselves."""
    reference = {"$ref": f"#/components/schemas/{schema}"}
    parts = {name: {"type": "string", "format": "binary"} for name in files}
    both = {"allOf": [reference, {"type": "object", "properties": parts}]}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference}, "multipart/form-data": {"schema": both}},
        }
    }


async def take(
    request: Request,
    services: Services,
    work: Callable[Concatenate[Services, Form, P], Result],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Result:
    """Read a request's form and let `work` have it, in a thread. Its files go when that is done."""
    count = request.app.state.metrics.count_upload
    async with read_form(request, services.incoming, services.settings.max_upload_bytes, count) as form:
        return await run_check(request, work, services, form, *args, **kwargs)


async def take_job(request: Request, services: Services, owner: str, work: Callable[[Services, Form, Caller], Result]) -> Result:
    """The same for a request that asks for a job: refused before its body is read where there is no room for one."""
    caller = Caller(owner, request.state.request_id, request.headers.get("idempotency-key"))
    await run_in_threadpool(admit, services, caller)
    return await take(request, services, work, caller)


def admit(services: Services, caller: Caller) -> None:
    """Refuse new work while the service cannot take it. Raises ApiError with Retry-After.

    A request whose idempotency key made a job before asks for no new work.
    """
    if caller.idempotency_key is not None and services.jobs.knows_key(caller.owner, caller.idempotency_key):
        return
    settings = services.settings
    reason = services.ready()
    if reason is not None:
        raise ApiError(
            f"the service is not ready: {reason}; try again", 503, "not_ready", retry_after=settings.retry_after_seconds
        )
    queued = services.jobs.counts().get("queued", 0)
    if queued >= settings.max_queue:
        raise ApiError(
            f"expected fewer than {settings.max_queue} waiting jobs, got {queued}; try again later",
            429,
            "queue_full",
            retry_after=settings.retry_after_seconds,
        )
