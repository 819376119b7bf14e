"""Local processes behind one `map`: ordered results, frame-wise progress, cancelled within two seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, TypeVar

from deployments.contracts import Progress
from deployments.errors import Cancelled, RenderError

Task = TypeVar("Task")
Result = TypeVar("Result")
Tick = Callable[[int], None]
OnTick = Callable[[int], None]

POLL_SECONDS = 0.1
GRACE_SECONDS = 1.0  # for workers to stop by themselves
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Executor(Protocol):
    """What the pipeline needs of a machine, or of many."""

    @property
    def workers(self) -> int:
        """Pieces that are worked on side by side."""
        ...

    def call(self, function: Callable[[Task, Progress], Result], task: Task, progress: Progress) -> Result:
        """`function(task, progress)` once, where the engine lives."""
        ...

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Like the built-in `map`, in order."""
        ...

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """`function(task, tick)`, results as they come; every `tick(frames)` arrives here as `on_tick(frames)`.

        `on_tick` may raise Cancelled. A piece that is done again takes its ticks back: `on_tick` of a negative number.
        """
        ...


class SerialExecutor:
    """Everything in this process: for one worker, and for debugging."""

    workers = 1

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing to end."""

    def call(self, function: Callable[[Task, Progress], Result], task: Task, progress: Progress) -> Result:
        """Here and now."""
        return function(task, progress)

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """One task after the other."""
        return map(function, tasks)

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """One task after the other; ticks arrive at once."""
        return (function(task, on_tick) for task in tasks)


class LocalExecutor:
    """A pool of spawned processes with one thread each. Use as a context manager."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._ticks = self._context.SimpleQueue()
        self._children: set[multiprocessing.process.BaseProcess] = set()
        self._stop = self._context.Event()
        self._pool = ProcessPoolExecutor(workers, self._context, initializer=_begin, initargs=(self._ticks, self._stop))

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def wake(self, function: Callable[[Task], object], task: Task) -> None:
        """Start the workers now, each with `function(task)`: they load while this process prepares what they will do."""
        self._submit([(function, task)] * self.workers, _call)

    def call(self, function: Callable[[Task, Progress], Result], task: Task, progress: Progress) -> Result:
        """In this process: a worker would have to load everything for one piece of work."""
        return function(task, progress)

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Results in the order of the tasks."""
        return self._run([(function, task) for task in tasks], _call, lambda frames: None)

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """Results and ticks as they come."""
        return self._run([(function, task) for task in tasks], _call_ticking, on_tick, in_order=False)

    def _run(
        self, calls: Sequence[tuple[Any, Any]], door: Callable[..., Any], on_tick: OnTick, in_order: bool = True
    ) -> Iterator[Any]:
        futures = self._submit(calls, door)
        try:
            waiting = futures
            while waiting:
                future = self._await(waiting[:1] if in_order else waiting, waiting, on_tick)
                yield future.result()
                waiting = [other for other in waiting if other is not future]
            self._drain(on_tick)
        except BrokenProcessPool as error:
            raise RenderError("a worker process was ended from outside, often for lack of memory; use --workers 1") from error

    def _submit(self, calls: Sequence[tuple[Any, Any]], door: Callable[..., Any]) -> list[Future[Any]]:
        before = set(multiprocessing.active_children())
        with one_thread_each(), interrupts_held():
            futures = [self._pool.submit(door, function, task) for function, task in calls]
            self._children |= set(multiprocessing.active_children()) - before
        return futures

    def _await(self, wanted: Sequence[Future[Any]], futures: Sequence[Future[Any]], on_tick: OnTick) -> Future[Any]:
        """The first of the wanted results; a failure of any other task is raised at once, not when its turn comes."""
        while True:
            self._drain(on_tick)
            finished = [future for future in wanted if future.done()]
            if finished:
                return finished[0]
            done, _ = wait([f for f in futures if not f.done()], POLL_SECONDS, FIRST_COMPLETED)
            for other in done:
                other.result()

    def _drain(self, on_tick: OnTick) -> None:
        while not self._ticks.empty():
            on_tick(self._ticks.get())

    def kill(self) -> None:
        """Ask the workers to stop; end those that have not after a second."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        limit = time.monotonic() + GRACE_SECONDS
        for child in self._children:  # those that are still loading too
            child.join(max(0.0, limit - time.monotonic()))
            if child.is_alive():
                child.kill()
                child.join()
            limit = max(limit, time.monotonic() + GRACE_SECONDS)
            while child.is_alive() and time.monotonic() < limit:
                time.sleep(POLL_SECONDS / 10)  # the pool's own thread may have reaped it and not said so yet


def make_executor(workers: int | None) -> SerialExecutor | LocalExecutor:
    """An executor of `workers` processes; None: one per core this process may use."""
    count = workers or len(os.sched_getaffinity(0))
    return SerialExecutor() if count == 1 else LocalExecutor(count)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started inside inherit thread counts of one; the numeric libraries read them when they load."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, not even while they are still loading; this one gets it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Channel:
    """A worker's end of the wires."""

    def __init__(self, ticks: Any, stop: Any) -> None:
        self._ticks, self._stop = ticks, stop

    def tick(self, frames: int) -> None:
        if self._stop.is_set():
            raise Cancelled("stopped")
        self._ticks.put(frames)


_channel: _Channel | None = None


def _begin(ticks: Any, stop: Any) -> None:
    """In a new worker: Ctrl-C is the parent's business, and without a parent there is none."""
    global _channel
    _channel = _Channel(ticks, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any], Any], task: Any) -> Any:
    return function(task)


def _call_ticking(function: Callable[[Any, Tick], Any], task: Any) -> Any:
    assert _channel is not None
    return function(task, _channel.tick)
