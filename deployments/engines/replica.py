"""One engine in one process, for a server: descriptors in, events out; one piece of work at a time on the device.

Two calls may be in flight: while one renders, the next one waits here instead of at the other end of a network,
so the device is never idle between chunks.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from deployments.engines.live import LiveTask, run_live
from deployments.engines.registry import ENGINES, get_engine
from deployments.errors import Cancelled, LipSyncError, RenderError
from deployments.wire import Store, bring, give, pack, unpack
from deployments.worker import fit_engine, render_chunk

Event = tuple[Any, ...]
"""("tick", frames) | ("progress", stage, done, total) | ("done", result) | ("error", LipSyncError); of a live portrait
("busy",) or ("accepted",) at once, then ("live", Started | Piece), instead of the first two."""
Take = Callable[[], Awaitable[bytes | None]]
"""Waits for more sound; None: it has ended."""

TICK_SECONDS = 0.2  # events are batched: a message costs milliseconds, a frame may cost less
STUCK_SECONDS = 600.0  # a chunk without a single frame for so long will not come


class EngineReplica:
    """The replica of a deployment. Raises in the constructor if the engine cannot work here."""

    def __init__(self, engine: str, open_store: Callable[[], Store]) -> None:
        self._engine = engine
        self._store = open_store()
        self._lock = asyncio.Lock()
        self._speaking = asyncio.Lock()
        self._busy_since: float | None = None
        warm_up(engine)

    async def render(self, task: Any) -> AsyncIterator[Event]:
        """Render a packed `ChunkTask`; ends with ("done", packed ChunkResult) or ("error", …)."""
        async for event in self._work(lambda mine, line: render_chunk(mine, line.tick), task):
            yield event

    async def fit(self, task: Any) -> AsyncIterator[Event]:
        """Fit a packed `FitTask`; ends with ("done", packed Avatar) or ("error", …)."""
        async for event in self._work(lambda mine, line: fit_engine(mine, line.progress), task):
            yield event

    async def _work(self, function: Callable[[Any, _Line], Any], task: Any) -> AsyncIterator[Event]:
        line = _Line(asyncio.get_running_loop())
        async with self._lock:
            self._busy_since = time.monotonic()
            thread = asyncio.get_running_loop().run_in_executor(None, self._run, function, task, line)
            try:
                last = ""
                while last not in ("done", "error"):
                    event = await line.events.get()
                    self._busy_since = time.monotonic()
                    last = event[0]
                    yield event
            finally:
                line.stop.set()  # the caller has left, or the work is over
                await asyncio.shield(thread)
                self._busy_since = None

    def _run(self, function: Callable[[Any, _Line], Any], task: Any, line: _Line) -> None:
        """In a thread: bring the inputs, work, give the products."""
        try:
            mine = unpack(task, self._store.root)
            bring(mine, self._store)
            result = function(mine, line)
            give(mine, self._store)
            line.end(("done", pack(result, self._store.root)))
        except LipSyncError as error:
            line.end(("error", error))
        except Exception as error:  # noqa: BLE001 an engine may raise anything; the caller gets it typed
            line.end(("error", RenderError(f"{self._engine}: {type(error).__name__}: {error}")))

    async def speak(self, task: LiveTask, take: Take) -> AsyncIterator[Event]:
        """A live portrait. One at a time, beside whatever renders: a chunk that must wait for it would wait for minutes."""
        if self._speaking.locked():
            yield ("busy",)
            return
        line, sound = _Line(asyncio.get_running_loop()), queue.SimpleQueue[bytes | Exception | None]()
        async with self._speaking:
            yield ("accepted",)
            feeding = asyncio.create_task(_feed(take, sound))
            thread = asyncio.get_running_loop().run_in_executor(None, self._speak, task, sound, line)
            try:
                last = ""
                while last not in ("done", "error"):
                    event = await line.events.get()
                    last = event[0]
                    yield event
            finally:
                line.stop.set()
                feeding.cancel()
                await asyncio.shield(thread)

    def _speak(self, task: LiveTask, sound: queue.SimpleQueue[bytes | Exception | None], line: _Line) -> None:
        """In a thread."""
        try:
            image = self._store.fetch(task.image)
            avatar = self._store.fetch_folder(task.avatar) if task.avatar else None
            line.end(("done", run_live(task, image, avatar, heard(sound, line.stop), lambda news: line.tell(("live", news)))))
        except LipSyncError as error:
            line.end(("error", error))
        except Exception as error:  # noqa: BLE001 as above
            line.end(("error", RenderError(f"{self._engine}: {type(error).__name__}: {error}")))

    @property
    def streams(self) -> int:
        """Live portraits now."""
        return int(self._speaking.locked())

    def check_health(self) -> None:
        """Real work on the device, and no chunk that stands still. Raises RenderError: the replica is replaced then."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > STUCK_SECONDS:
            raise RenderError(f"{self._engine}: no frame for {STUCK_SECONDS:.0f} s; starting again")
        check_device()


class _Line:
    """From the working thread to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.stop = threading.Event()
        self._loop = loop
        self._frames = 0
        self._sent = time.monotonic()

    def tick(self, frames: int) -> None:
        """Count frames; raises Cancelled once nobody waits for them."""
        self._check()
        self._frames += frames
        if time.monotonic() - self._sent > TICK_SECONDS:
            self._flush()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell a stage's state; raises Cancelled once nobody waits."""
        self._check()
        if time.monotonic() - self._sent > TICK_SECONDS:
            self._put(("progress", stage, done, total))

    def tell(self, event: Event) -> None:
        """Anything else, at once; raises Cancelled once nobody waits."""
        self._check()
        self._put(event)

    def end(self, event: Event) -> None:
        """The last event."""
        if event[0] == "done" and self._frames:
            self._flush()
        self._put(event)

    def _check(self) -> None:
        if self.stop.is_set():
            raise Cancelled("stopped")

    def _flush(self) -> None:
        self._put(("tick", self._frames))
        self._frames = 0

    def _put(self, event: Event) -> None:
        self._sent = time.monotonic()
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)


async def _feed(take: Take, sound: queue.SimpleQueue[bytes | Exception | None]) -> None:
    """From the caller to the working thread, until the sound ends or its caller is gone."""
    piece: bytes | Exception | None = b""
    while isinstance(piece, bytes):
        try:
            piece = await take()
        except Exception as error:  # noqa: BLE001 whatever it was, no more sound comes
            piece = error
        sound.put(piece)


def heard(sound: queue.SimpleQueue[bytes | Exception | None], stop: threading.Event) -> Iterator[bytes]:
    """Pieces until the sound ends. Raises Cancelled once nobody listens or nobody speaks any more."""
    while True:
        try:
            piece = sound.get(timeout=TICK_SECONDS)
        except queue.Empty:
            piece = b""
        if stop.is_set() or isinstance(piece, Exception):
            raise Cancelled("stopped")
        if piece is None:
            return
        if piece:
            yield piece


def warm_up(engine: str) -> None:
    """Load what the first chunk would load, so that it does not pay for it."""
    import deployments.media.decode
    import deployments.media.encode  # noqa: F401

    get_engine(engine).limits()
    if ENGINES[engine].live:
        import_module(f"deployments.engines.{engine}.stream").warm_up()
    check_device()


def check_device() -> None:
    """A small warp with a known answer, and where a GPU is in use a sum on it. Raises RenderError."""
    from kernels.mesh_warp import backward_map

    corners = np.array([[0, 0], [8, 0], [0, 8]], np.float32)
    found = backward_map(np.array([[0, 1, 2]], np.int32), corners, corners + 1, 4, 4)
    if not np.allclose(found[2, 1], [2, 3], atol=1e-4):
        raise RenderError(f"expected the mesh warp to read from (2, 3), got {found[2, 1]}; this machine computes wrongly")
    torch: Any = sys.modules.get("torch")
    if _has_gpu(torch) and float(torch.ones(64, device="cuda").sum()) != 64:
        raise RenderError("expected a sum of 64 from the GPU, got another; the replica must start again")


def device_memory() -> int:
    """Bytes of GPU memory that this process reserved; 0 without a GPU."""
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.memory_reserved()) if _has_gpu(torch) else 0


def device_free() -> float:
    """Share of the GPU's memory that nobody holds; 1 without a GPU."""
    torch: Any = sys.modules.get("torch")
    if not _has_gpu(torch):
        return 1.0
    free, total = torch.cuda.mem_get_info()
    return float(free / total)


def _has_gpu(torch: Any) -> bool:
    """Whether torch is loaded, whole (another thread may be at it this moment), and has a GPU."""
    return hasattr(torch, "cuda") and hasattr(torch, "ones") and bool(torch.cuda.is_available())
