"""Sound on its way from a caller to an engine that speaks it, bounded at every step. Knows neither Ray nor HTTP.

One window bounds all queues: no more sound goes on than `WINDOW_SECONDS` beyond the frames that the caller took, so a
caller who sends too fast, or looks too slowly, waits; nothing gathers on the way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from deployments.engines.live import LiveTask

WINDOW_SECONDS = 20.0
MOST_SECONDS = 2.0  # of sound handed over at once
MOST_GONE = 1000  # streams that are remembered as over: a late question about one must not wait for ever
Event = tuple[Any, ...]
Take = Callable[[], Awaitable[bytes | None]]
Live = Callable[[LiveTask, Take], AsyncGenerator[Event, None]]
"""Speaks a task's sound at an engine: gives the events of `EngineReplica.speak`."""


class Sound:
    """One stream's sound, 16-bit mono, between its caller and its engine; all in one event loop."""

    def __init__(self, rate: int, window: float = WINDOW_SECONDS) -> None:
        self._bytes_per_second, self._window = 2 * rate, window
        self._waiting = bytearray()
        self._taken = 0  # bytes
        self._shown = 0.0  # seconds of frames that the caller has
        self._ended = False
        self._changed = asyncio.Condition()

    @property
    def seconds(self) -> float:
        """All that came."""
        return (self._taken + len(self._waiting)) / self._bytes_per_second

    async def put(self, piece: bytes) -> None:
        """More sound; waits while a whole window waits already."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) < self._window * self._bytes_per_second)
            self._waiting += piece
            self._changed.notify_all()

    async def end(self) -> None:
        """No more comes."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def show(self, seconds: float) -> None:
        """The caller has frames up to here."""
        async with self._changed:
            self._shown = seconds
            self._changed.notify_all()

    async def take(self) -> bytes | None:
        """What waits, once the window lets it go on; None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._room() > 0 and (self._waiting or self._ended))
            if not self._waiting:
                return None
            size = min(self._room(), int(MOST_SECONDS * self._bytes_per_second), len(self._waiting))
            piece = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._taken += size
            self._changed.notify_all()
            return piece

    def _room(self) -> int:
        """Bytes that may go on now: whole samples."""
        return max(0, int((self._shown + self._window) * self._bytes_per_second) - self._taken) // 2 * 2


class SoundDesk:
    """Where replicas fetch the sound of streams that came to another process: an actor beside the API.

    What it holds is bounded by the window of every stream's `Sound`.
    """

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Queue[bytes | None]] = {}
        self._gone: deque[str] = deque(maxlen=MOST_GONE)

    async def put(self, stream: str, piece: bytes | None) -> None:
        """A piece, or None for the end."""
        if stream not in self._gone:
            self._line(stream).put_nowait(piece)

    async def take(self, stream: str) -> bytes | None:
        """The next piece."""
        return None if stream in self._gone else await self._line(stream).get()

    async def drop(self, stream: str) -> None:
        """Forget a stream; whoever still waits for its sound hears that it ended."""
        self._gone.append(stream)
        if stream in self._lines:
            self._lines.pop(stream).put_nowait(None)

    async def count(self) -> int:
        """Streams that are known here."""
        return len(self._lines)

    def _line(self, stream: str) -> asyncio.Queue[bytes | None]:
        return self._lines.setdefault(stream, asyncio.Queue())


async def carry(take: Take, put: Callable[[bytes | None], Awaitable[Any]]) -> None:
    """All of a sound, its end too, from one place to another."""
    piece: bytes | None = b""
    while piece is not None:
        piece = await take()
        await put(piece)
