"""The router: runs `pipeline.py` with replica handles as its executor. The only file that calls engines through Ray."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ReplicaState  # type: ignore[attr-defined]

from deployments.contracts import Progress
from deployments.engines.live import LiveTask
from deployments.errors import RenderError
from deployments.wire import bring, give, key_of, pack, reads, unpack
from deployments.worker import ChunkTask, FitTask
from serve_app.callbacks import CallbackSender
from serve_app.config import Secrets
from serve_app.executor import Executor, OnTick, Tick
from serve_app.jobs.records import Job
from serve_app.jobs.store import JobStore, open_jobs
from serve_app.live import SoundDesk, Take, carry
from serve_app.media_store import MediaStore
from serve_app.service.args import ServeArgs
from serve_app.service.dispatcher import Dispatcher, DispatchSettings
from serve_app.service.fan_out import FanOut
from serve_app.service.housekeeping import Housekeeping
from serve_app.service.log import log, set_up_logs
from serve_app.service.runner import Flags
from serve_app.whole_files import MARKER

Task = TypeVar("Task")
Result = TypeVar("Result")
OpenStore = Callable[[], MediaStore]
Handle = DeploymentHandle[Any]

LOST = (ActorDiedError, ActorUnavailableError)
SLOTS = 2  # calls in flight at one replica: one works, one waits
POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0  # between looks at how many replicas live
WEIGH_SECONDS = 10.0  # between questions to all replicas how much memory they hold and whether they speak


class ReplicaExecutor:
    """Chunks and fits go to an engine's replicas, pieces of tracking and measuring to any CPU of the cluster."""

    def __init__(
        self, handle: Handle | None, live: Callable[[], int], open_store: OpenStore, flags: Flags, task_cpus: float
    ) -> None:
        self._handle, self._live, self._open_store, self._flags = handle, live, open_store, flags
        self._store = open_store()
        self._run = ray.remote(num_cpus=task_cpus, max_retries=3)(_cpu_task)

    @property
    def workers(self) -> int:
        """Replicas that chunks can go to."""
        return max(1, self._live())

    def call(self, function: Callable[[Task, Progress], Result], task: Task, progress: Progress) -> Result:
        """Fits to a replica with its device; all else to a CPU."""
        if not isinstance(task, FitTask):
            return next(self.map(_without_progress, [(function, task)]))
        with fitting(task, self._store) as sent:
            found: list[Result] = []
            for event in self._events([sent], "fit"):
                if event[0] == "progress":
                    progress(*event[1:])
                elif event[0] == "done":
                    found.append(event[2])
        return found[0]

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """In order; Ray runs a piece again whose machine died."""
        if not ray.is_initialized():  # Serve's local testing mode: there is no cluster
            yield from map(function, tasks)
            return
        root = self._store.root
        publish([needs_of(task) for task in tasks], self._store)
        waiting = [self._run.remote(function, pack(task, root), self._open_store) for task in tasks]
        try:
            for ref in waiting:
                while not ray.wait([ref], timeout=POLL_SECONDS)[0]:
                    self._flags.check()
                yield unpack(ray.get(ref), root)
        finally:
            for ref in waiting:
                ray.cancel(ref, force=True)

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """As they come."""
        assert all(isinstance(task, ChunkTask) for task in tasks), "only chunks go to replicas"
        for event in self._events(tasks, "render"):
            if event[0] == "tick":
                on_tick(event[1])
            elif event[0] == "done":
                self._store.fetch(key_of(event[2].out, self._store))
                yield event[2]

    def _events(self, tasks: Sequence[Any], verb: str) -> Iterator[tuple[Any, ...]]:
        """Events of all tasks; ends with the last result, or raises the first error."""
        if not tasks:
            return
        publish(tasks, self._store)
        line: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        fan_out = FanOut(lambda task: self._send(verb, task), LOST, line.put, lambda: SLOTS * self.workers)
        thread = _LoopThread(fan_out, [pack(task, self._store.root) for task in tasks], line)
        thread.start()
        try:
            while True:
                self._flags.check()
                try:
                    event = line.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if event[0] == "end":
                    if event[1] is not None:
                        raise event[1]
                    return
                yield (*event[:2], unpack(event[2], self._store.root)) if event[0] == "done" else event
        finally:
            thread.end()

    async def _send(self, verb: str, task: Any) -> AsyncIterator[tuple[Any, ...]]:
        assert self._handle is not None, "this engine has no deployment"
        response = getattr(self._handle.options(stream=True), verb).remote(task)
        try:
            async for event in response:
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            response.cancel()
            raise


class _LoopThread(threading.Thread):
    """An event loop of its own for one fan-out: the job's thread stays plain and blocking."""

    def __init__(self, fan_out: FanOut, tasks: Sequence[Any], line: queue.SimpleQueue[tuple[Any, ...]]) -> None:
        super().__init__(daemon=True, name="fan-out")
        self._fan_out, self._tasks, self._line = fan_out, tasks, line
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._begun = threading.Event()

    def run(self) -> None:
        """Until all tasks are done, or `end()`."""
        asyncio.set_event_loop(self._loop)
        try:
            self._main = self._loop.create_task(self._fan_out.run(self._tasks))
            self._begun.set()
            self._loop.run_until_complete(self._main)
            self._line.put(("end", None))
        except asyncio.CancelledError:
            self._line.put(("end", None))
        except Exception as error:  # noqa: BLE001 raised again in the job's thread
            self._line.put(("end", error))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def end(self) -> None:
        """Cancel what is left, and wait until replicas were told."""
        self._begun.wait(1)
        main = self._main
        if main is not None and self.is_alive():
            try:
                self._loop.call_soon_threadsafe(main.cancel)
            except RuntimeError:  # it ended by itself this moment
                return
        self.join(2)


def _cpu_task(function: Callable[[Any], Any], task: Any, open_store: OpenStore) -> Any:
    """On some machine: bring the inputs, work, give the products."""
    store = open_store()
    mine = unpack(task, store.root)
    needs = needs_of(mine)
    bring(needs, store)
    result = function(mine)
    give(needs, store)
    return pack(result, store.root)


def _without_progress(call: tuple[Callable[[Any, Progress], Any], Any]) -> Any:
    function, task = call
    return function(task, lambda stage, done, total: None)


def needs_of(task: Any) -> Any:
    """The record that says which files a piece of work reads and writes."""
    return task[1] if isinstance(task, tuple) else task


def publish(tasks: Sequence[Any], store: MediaStore) -> None:
    """What was made here and is read elsewhere: the motion, the sound, a track. Where all share a folder, nothing."""
    if store.local:
        return
    for path in {path for task in tasks for path in reads(task)[0]}:
        key = key_of(path, store)
        if not store.exists(key):
            store.put(path, key)


@contextmanager
def fitting(task: FitTask, store: MediaStore) -> Iterator[FitTask]:
    """The task as another machine can do it; afterwards what it made lies in the folder that was asked for.

    The folder asked for is a temporary one of this machine, which has no key; the avatar travels under one of its own.
    """
    if store.local:
        yield task
        return
    key = f"fits/{uuid.uuid4().hex}"
    try:
        yield replace(task, out=store.root / key)
        shutil.copytree(store.fetch_folder(key), task.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MARKER))
    finally:
        store.delete_folder(key)


@dataclass(frozen=True)
class Replicas:
    """What an engine has running."""

    live: int = 0
    gpu_bytes: int = 0
    streams: int = 0  # live portraits
    gpu_free: float = 1.0  # share of the memory of the fullest GPU


class Router:
    """Deployment: a dispatcher whose executors are replicas. Jobs do not run inside requests."""

    def __init__(self, args: ServeArgs, open_store: OpenStore, engines: dict[str, Handle]) -> None:
        set_up_logs(args.log_level)
        self._args, self._open_store, self._engines = args, open_store, engines
        self._live: dict[str, int] = {}
        self._weights: dict[str, tuple[int, int, float]] = {}  # GPU memory, live portraits, share of free memory
        self._jobs: JobStore = open_jobs(args.database_url())
        media = open_store()
        settings = DispatchSettings(args.router.slots, args.router.lease_seconds, keep=args.api.retention_seconds)
        self._dispatcher = Dispatcher(self._jobs, media, self._executor, settings)
        sender = CallbackSender(self._jobs, Secrets().callback_secret.encode(), args.api.address_rule())
        self._housekeeping = Housekeeping(self._jobs, media, sender.send_due)
        self._ended = threading.Event()
        self._look()
        for look in (self._look_often, self._weigh_often):
            threading.Thread(target=look, daemon=True).start()
        self._dispatcher.start()
        self._housekeeping.start()
        log.info("router_started", pid=os.getpid(), engines=sorted(engines))

    @contextmanager
    def _executor(self, job: Job, flags: Flags) -> Iterator[Executor]:
        engine = job.spec.engine
        yield ReplicaExecutor(
            self._engines.get(engine), lambda: self._live.get(engine, 0), self._open_store, flags, self._args.router.task_cpus
        )

    def state(self) -> dict[str, Replicas]:
        """Live replicas of every engine, the GPU memory that they hold, and for how many callers they speak."""
        return {name: Replicas(self._live.get(name, 0), *self._weights.get(name, (0, 0, 1.0))) for name in self._engines}

    def pid(self) -> int:
        """Process number, for people and for failure tests."""
        return os.getpid()

    def check_health(self) -> None:
        """Both loops turn and the table answers."""
        if not self._dispatcher.healthy():
            raise RuntimeError("the dispatcher stands still")
        self._jobs.counts()

    def _look_often(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            self._live = live_replicas()
        except Exception as error:  # noqa: BLE001 the controller may be starting again; the last count stays
            log.warning("no_status", error=f"{type(error).__name__}: {error}")

    def _weigh_often(self) -> None:
        """Ask all replicas: which one a request would reach, nobody knows."""
        while not self._ended.wait(WEIGH_SECONDS):
            for name, handle in self._engines.items():
                try:
                    told = handle.broadcast("weigh").results(timeout_s=WEIGH_SECONDS) if self._live.get(name) else []
                    memory, streams, free = zip(*told, strict=True) if told else ((), (), (1.0,))
                    self._weights[name] = (sum(memory), sum(streams), min(free))
                except Exception as error:  # noqa: BLE001 a replica that ends this moment; the last sum stays
                    log.warning("not_weighed", engine=name, error=f"{type(error).__name__}: {error}")

    def __del__(self) -> None:
        """Graceful shutdown: give running jobs back."""
        started = time.monotonic()
        if hasattr(self, "_ended"):
            self._ended.set()
            self._dispatcher.stop()
            self._housekeeping.stop()
            log.info("router_stopped", seconds=round(time.monotonic() - started, 3))


class LiveReplicas:
    """Live portraits at engines' replicas, for the API process that its callers are connected to."""

    def __init__(self, engines: dict[str, Handle]) -> None:
        self._engines = engines
        self._desk: Any = None

    async def __call__(self, task: LiveTask, take: Take) -> AsyncGenerator[tuple[Any, ...], None]:
        """See `serve_app.live.Live`. The sound goes by an actor: a call to a replica takes no stream along."""
        if self._desk is None:
            self._desk = ray.remote(SoundDesk).options(num_cpus=0, max_concurrency=1000).remote()
        desk, stream = self._desk, uuid.uuid4().hex
        carrying: asyncio.Task[None] | None = None
        response: Any = self._engines[task.engine].options(stream=True).live.remote(task, desk, stream)
        try:
            async for event in response:
                if carrying is None and event[0] == "accepted":  # before, the replica may still say that it speaks for another
                    carrying = asyncio.create_task(carry(take, lambda piece: desk.put.remote(stream, piece)))
                yield event
        except LOST as error:
            yield ("error", RenderError(f"{task.engine}: the replica that spoke is gone: {error}"))
        except (asyncio.CancelledError, GeneratorExit):
            response.cancel()
            raise
        finally:
            if carrying is not None:
                carrying.cancel()
            desk.drop.remote(stream)


def live_replicas() -> dict[str, int]:
    """Running replicas by deployment name, of all applications."""
    found: dict[str, int] = {}
    if not ray.is_initialized():  # to ask would start a cluster
        return found
    for application in serve.status().applications.values():
        for name, deployment in application.deployments.items():
            found[name] = found.get(name, 0) + deployment.replica_states.get(ReplicaState.RUNNING, 0)
    return found
