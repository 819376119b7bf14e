"""Entry of a batch on a cluster: `ray job submit -- python -m serve_app.batch manifest.csv --template T --out URL`.

The same rows as `lipsync batch`, on actors instead of local processes. The only file of batches that knows Ray.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from deployments.errors import RenderError
from serve_app.executor import OnTick, Tick

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT = 2  # per actor: one works, one waits
TRIES = 4  # of a row whose actor died: it may have been another row's fault
REST_SECONDS = 3.0  # for an actor to start again
POLL_SECONDS = 0.2


class RayPool:
    """Actors that rows go to, each with the devices that the engine asks for. Use as a context manager."""

    def __init__(self, workers: int | None, wanted: float, gpus: float | None = None) -> None:
        """`wanted` GPUs per worker where the cluster has any now; `gpus` whether it has or not."""
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        self._ray: Any = ray
        resources = ray.cluster_resources()
        each = gpus if gpus is not None else wanted if resources.get("GPU", 0) >= wanted else 0.0
        self.workers = workers or room(resources, each)
        made: Any = ray.remote(num_cpus=1, num_gpus=each, max_restarts=-1, max_task_retries=0)(_Worker)
        self._actors = [made.remote() for _ in range(self.workers)]

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor)

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """In order."""
        found: dict[int, Any] = {}
        for place, result in self._run([(_plain, (function, task)) for task in tasks]):
            found[place] = result
        return (found[place] for place in range(len(tasks)))

    def map_ticks(self, function: Callable[[Task, Tick], Result], tasks: Sequence[Task], on_tick: OnTick) -> Iterator[Result]:
        """As they come; one tick per task."""
        for _, result in self._run([(function, task) for task in tasks]):
            on_tick(1)
            yield result

    def _run(self, calls: Sequence[tuple[Callable[..., Any], Any]]) -> Iterator[tuple[int, Any]]:
        """(place, result) as they come, with at most `IN_FLIGHT` calls at every actor."""
        from ray.exceptions import ActorDiedError, ActorUnavailableError

        waiting = deque((place, 1) for place in range(len(calls)))
        flying: dict[Any, tuple[int, int, int]] = {}  # reference -> place, try, actor
        load = [0] * len(self._actors)
        rested = [0.0] * len(self._actors)  # when an actor that died may be asked again
        while waiting or flying:
            actor = free_one(load, rested)
            if waiting and actor is not None:
                place, tries = waiting.popleft()
                flying[self._actors[actor].run.remote(*calls[place])] = (place, tries, actor)
                load[actor] += 1
                continue
            if not flying:
                time.sleep(POLL_SECONDS)
                continue
            for ready in self._ray.wait(list(flying), num_returns=1, timeout=POLL_SECONDS)[0]:
                place, tries, actor = flying.pop(ready)
                load[actor] -= 1
                try:
                    result = self._ray.get(ready)
                except (ActorDiedError, ActorUnavailableError) as error:
                    if tries >= TRIES:
                        raise RenderError(
                            f"a worker died {TRIES} times at the same work; see the cluster's logs: {error}"
                        ) from error
                    rested[actor] = time.monotonic() + REST_SECONDS
                    waiting.append((place, tries + 1))
                else:
                    yield place, result


def free_one(load: Sequence[int], rested: Sequence[float]) -> int | None:
    """The actor with the least to do; None where all have enough, or are starting again."""
    now = time.monotonic()
    free = [number for number, count in enumerate(load) if count < IN_FLIGHT and rested[number] <= now]
    return min(free, key=lambda number: load[number], default=None)


class _Worker:
    """An actor: rows one after the other, with what they share kept in its memory."""

    def run(self, function: Callable[[Any, Tick], Any], task: Any) -> Any:
        """`function(task, tick)`; the driver ticks for it."""
        return function(task, lambda count: None)


def _plain(call: tuple[Callable[[Any], Any], Any], tick: Tick) -> Any:
    function, task = call
    return function(task)


def room(resources: dict[str, float], gpus: float) -> int:
    """Actors that a cluster has room for now; one that it may grow for where there is none."""
    by_gpu = resources.get("GPU", 0) / gpus if gpus else float("inf")
    return max(1, int(min(by_gpu, resources.get("CPU", 1))))


def main() -> None:
    """Entry of `python -m serve_app.batch`."""
    import typer

    from serve_app.batch_command import batch

    typer.run(batch)


if __name__ == "__main__":
    main()
