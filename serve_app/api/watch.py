"""Around every request: an id, safe headers, a count, and an answer that says nothing where nobody expected the error."""

from __future__ import annotations

import logging
import re
import time
from uuid import uuid4

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.errors import body, unexpected
from serve_app.api.flow import telling
from serve_app.api.metrics import Metrics

log = logging.getLogger("lipsync.api")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


class Watch:
    """Plain ASGI, so that streams stay streams."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, telling(scope, receive), send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if REQUEST_ID.fullmatch(asked) else f"req_{uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.monotonic()
        answered = False

        async def send_on(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
                self._count(scope, message["status"], time.monotonic() - started)
            await send(message)

        if is_foreign(scope):
            message = "expected a request from this server's own page or from a program, got one that another site makes"
            await JSONResponse(body(message, 403, "cross_site"), 403)(scope, receive, send_on)
            return
        try:
            await self._app(scope, telling(scope, receive), send_on)
        except ClientDisconnect:
            log.info("request %s: the caller left", request_id)
        except Exception as error:
            log.exception("request %s failed", request_id)
            if answered:
                raise  # the connection breaks, and the caller sees that the answer is not whole
            await unexpected(error)(scope, receive, send_on)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")  # the pattern: ids would make a series each
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count_request(method, route, status, seconds)


def is_foreign(scope: Scope) -> bool:
    """Whether a browser says that another site's page wants to change something here, where no key would stop it."""
    headers = Headers(scope=scope)
    return (
        scope["method"] not in ("GET", "HEAD", "OPTIONS")
        and headers.get("sec-fetch-site", "") in ("cross-site", "same-site")
        and "authorization" not in headers
    )
