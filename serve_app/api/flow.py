"""Back-pressure for request bodies, and for what comes over WebSockets, under Ray Serve.

A replica of Serve takes a body from its socket as fast as it comes, into a queue without a bound, so that it sees a caller
who leaves. Where a disk is slower than the network, a large body would gather in memory. `Throttle` stands before that
queue and reads no further while `WAITING` bytes are in it; `Flow.taken` is told by the application behind it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WAITING = 4 << 20  # bytes
KEY = "lipsync.flow"
_told = threading.Event()  # set where the application runs in this process: in a proxy nobody would tell


class Flow:
    """How much of one request waits between two event loops."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._lock = threading.Lock()
        self._waiting = 0

    async def room(self) -> None:
        """Until little waits."""
        await self._room.wait()

    def came(self, size: int) -> None:
        """Some bytes were read from the socket; in the loop that made this."""
        with self._lock:
            self._waiting += size
            if self._waiting > WAITING:
                self._room.clear()

    def taken(self, size: int) -> None:
        """The application has them; from any thread."""
        with self._lock:
            self._waiting -= size
            free = self._waiting <= WAITING
        if free:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._room.set)


class Throttle:
    """ASGI middleware for the outside of Serve's queue."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket") or not _told.is_set():
            await self._app(scope, receive, send)
            return
        flow = scope[KEY] = Flow()

        async def receive_slowly() -> Message:
            await flow.room()
            message = await receive()
            flow.came(size_of(message))
            return message

        await self._app(scope, receive_slowly, send)


def telling(scope: Scope, receive: Receive) -> Receive:
    """The application's end: `receive` that says what was taken, where somebody wants to know."""
    flow: Flow | None = scope.get(KEY)
    if flow is None:
        return receive

    async def receive_telling() -> Message:
        message = await receive()
        flow.taken(size_of(message))
        return message

    return receive_telling


def size_of(message: Message) -> int:
    """Bytes of a body's piece, or of a WebSocket's message."""
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")


def enable() -> None:
    """The application runs in this process."""
    _told.set()


def middlewares() -> list[Middleware]:
    """For Serve: `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.api.flow:middlewares`."""
    return [Middleware(Throttle)]
