"""Every refusal in one shape: `{"error": {"message", "type", "param", "code", "retryable"}}`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from deployments.errors import LipSyncError, WeightsError

log = logging.getLogger("lipsync.api")

RETRYABLE = (429, 503, 507)
RETRYABLE_CODES = ("not_ready", "avatar_not_ready")
TYPES = {401: "authentication_error", 429: "rate_limit_error"}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
HIDDEN = {
    500: "something went wrong on the server; its log knows the X-Request-ID",
    503: "the server lacks a part that this needs; its log says which",
    507: "the server cannot write its files now; try again later, or tell its operator",
}


class ApiError(LipSyncError):
    """A refusal with its status, its code, and the field it is about."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status, self.code = status, code
        self.param, self.retry_after = param, retry_after


@contextmanager
def about(param: str) -> Iterator[None]:
    """Errors inside are about the field `param`."""
    try:
        yield
    except ApiError as error:
        error.param = error.param or param
        raise
    except LipSyncError as error:
        raise ApiError(str(error), error.http_status, error.code, param) from error


def first_problem(problems: list[Any], skip: int = 0) -> tuple[str, str | None]:
    """Message and field of a validation error; `skip` drops leading names like "body"."""
    problem = problems[0]
    place = [str(part) for part in problem["loc"][skip:]]
    param = place[0] + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in place[1:]) if place else None
    came = "" if problem["type"] in ("missing", "extra_forbidden") else f", got {short(problem.get('input'))}"
    return f"{param or 'the request'}: {problem['msg'][:200]}{came}", param


def short(value: object) -> str:
    """A value as a reader needs it to find it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def from_validation(error: ValidationError, skip: int = 0) -> ApiError:
    """A pydantic refusal as ours."""
    message, param = first_problem(list(error.errors(include_url=False)), skip)
    return ApiError(message, 400, "invalid_request", param)


def body(message: str, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    retryable = status in RETRYABLE or code in RETRYABLE_CODES
    return {"error": {"message": message, "type": kind, "param": param, "code": code, "retryable": retryable}}


def answer(error: LipSyncError) -> JSONResponse:
    """Any of our errors as a response. What is the server's own trouble goes to its log, not to the caller."""
    status, message = error.http_status, str(error)
    headers = {}
    if isinstance(error, ApiError):
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        hidden = status >= 500 and error.__cause__ is not None
    else:
        hidden = status >= 500
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (413, 507):
        headers["Connection"] = "close"  # the rest of the body is not read
    if hidden:
        log.error("%s: %s", type(error).__name__, message)
        message = HIDDEN.get(status, HIDDEN[500])
    if isinstance(error, WeightsError):
        headers["Retry-After"] = "60"
    return JSONResponse(body(message, status, error.code, getattr(error, "param", None)), status, headers)


def unexpected(error: Exception) -> JSONResponse:
    """What nobody expected: a 500 that says nothing, or 503 where the database is away."""
    # the name that PEP 249 gives it, whichever driver it comes from
    if any(kind.__name__ == "OperationalError" for kind in type(error).__mro__):
        return answer(ApiError("the job table cannot be reached now; try again", 503, "database_unavailable", retry_after=5))
    return JSONResponse(body(HIDDEN[500], 500, "internal_error"), 500)


def install(app: FastAPI) -> None:
    """All handlers. What nobody expected ends in the middleware, as a 500 that says nothing."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LipSyncError)
        return answer(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        message, param = first_problem(list(error.errors()), skip=1)
        return answer(ApiError(message, 400, "invalid_request", param))

    async def plain(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "http_error")
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        return JSONResponse(body(message, error.status_code, code), error.status_code, dict(error.headers or {}))

    app.add_exception_handler(LipSyncError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
