"""Chunks over many replicas: a bounded window, retries of what is safe to retry, a second try beside a straggler.

Knows no Ray: `send(task)` is an async iterator of a replica's events, `lost` the errors that say a replica is gone.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.errors import RenderError

Send = Callable[[Any], AsyncIterator[tuple[Any, ...]]]
Emit = Callable[[tuple[Any, ...]], None]


@dataclass(frozen=True)
class FanOutSettings:
    """How hard to try."""

    attempts: int = 4  # of one chunk
    first_backoff: float = 0.2  # seconds, doubled and jittered
    hedge_factor: float = 3.0  # a chunk that takes so many times the median of the finished ones gets a second try
    hedge_seconds: float = 5.0  # but not sooner
    hedge_after: int = 3  # finished chunks before the median means anything


@dataclass
class FanOut:
    """One run of many tasks. Events go to `emit`: ("tick", frames) and ("done", task number, result)."""

    send: Send
    lost: tuple[type[BaseException], ...]
    emit: Emit
    window: Callable[[], int]  # tasks in flight; asked again whenever one ends, so that new replicas get work
    settings: FanOutSettings = FanOutSettings()
    _seconds: list[float] = field(default_factory=list)  # of finished tasks

    async def run(self, tasks: Sequence[Any]) -> None:
        """All tasks, or the first error that cannot be retried."""
        waiting = list(enumerate(tasks))[::-1]
        running: set[asyncio.Task[None]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < max(1, self.window()):
                    running.add(asyncio.create_task(self._one(*waiting.pop())))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            await _end(running)

    async def _one(self, number: int, task: Any) -> None:
        """One task to its end; a replica that dies under it costs an attempt."""
        started = time.monotonic()
        for attempt in range(self.settings.attempts):
            try:
                result = await self._hedged(task)
            except self.lost as error:
                if attempt + 1 == self.settings.attempts:
                    raise RenderError(
                        f"expected a replica to finish, but {attempt + 1} were lost under the same chunk: {error}"
                    ) from error
                await asyncio.sleep(self.settings.first_backoff * 2**attempt * random.uniform(0.5, 1.5))
                continue
            self._seconds.append(time.monotonic() - started)
            self.emit(("done", number, result))
            return

    async def _hedged(self, task: Any) -> Any:
        """The first of one or two tries that ends well. A lost try counts only when no other one is left."""
        tries = {asyncio.create_task(self._try(task))}
        try:
            while True:
                patience = None if len(tries) > 1 else self._patience()
                done, pending = await asyncio.wait(tries, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done and patience is not None:
                    if self._late():
                        tries.add(asyncio.create_task(self._try(task)))
                    continue
                for one in done:
                    if one.exception() is None or not pending:
                        return one.result()
                tries = pending
        finally:
            await _end(tries)

    def _late(self) -> bool:
        return len(self._seconds) >= self.settings.hedge_after

    def _patience(self) -> float:
        """Seconds to wait before looking again whether a try is a straggler."""
        if not self._late():
            return self.settings.hedge_seconds
        return max(self.settings.hedge_seconds, self.settings.hedge_factor * statistics.median(self._seconds))

    async def _try(self, task: Any) -> Any:
        """One call of one replica. Its ticks are taken back if it does not end well."""
        frames = 0
        ended = False
        try:
            async for event in self.send(task):
                if event[0] == "tick":
                    frames += event[1]
                    self.emit(event)
                elif event[0] == "progress":
                    self.emit(event)
                elif event[0] == "error":
                    raise event[1]
                else:
                    ended = True
                    return event[1]
        finally:
            if frames and not ended:
                self.emit(("tick", -frames))
        raise RenderError("expected a result from the replica, got the end of its events")


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Stop tasks and wait until they have."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
