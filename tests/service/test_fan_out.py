"""Many tasks over a few replicas that die, dawdle or refuse; here a replica is an async generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments.errors import Cancelled, MediaError, RenderError
from serve_app.service.fan_out import FanOut, FanOutSettings

QUICK = FanOutSettings(first_backoff=0.001, hedge_seconds=0.05, hedge_factor=3.0)


class Lost(Exception):
    """A replica died."""


class Replicas:
    """Answers `task * 10` after two ticks; `faults` says what the first tries of a task do instead."""

    def __init__(self, faults: dict[int, list[str]] | None = None, pause: float = 0.002) -> None:
        self.faults = {task: list(kinds) for task, kinds in (faults or {}).items()}
        self.pause, self.now, self.most, self.tries = pause, 0, 0, 0
        self.cancelled: list[int] = []

    async def send(self, task: int) -> AsyncIterator[tuple[Any, ...]]:
        self.now, self.tries = self.now + 1, self.tries + 1
        self.most = max(self.most, self.now)
        kinds = self.faults.get(task, [])
        fault = kinds.pop(0) if kinds else ""
        try:
            yield ("tick", 3)
            await asyncio.sleep(self.pause)
            if fault == "lost":
                raise Lost(str(task))
            if fault == "error":
                yield ("error", MediaError("expected a video"))
            if fault == "slow":
                await asyncio.sleep(60)
            if fault == "silent":
                return
            yield ("tick", 4)
            yield ("done", task * 10)
        except asyncio.CancelledError:
            self.cancelled.append(task)
            raise
        finally:
            self.now -= 1


def run(replicas: Replicas, tasks: int, window: int = 2, settings: FanOutSettings = QUICK) -> list[tuple[Any, ...]]:
    events: list[tuple[Any, ...]] = []
    fan_out = FanOut(replicas.send, (Lost,), events.append, lambda: window, settings)
    asyncio.run(fan_out.run(list(range(tasks))))
    return events


def results(events: list[tuple[Any, ...]]) -> dict[int, int]:
    found = [(event[1], event[2]) for event in events if event[0] == "done"]
    assert len(dict(found)) == len(found), "no task may end twice"
    return dict(found)


def frames(events: list[tuple[Any, ...]]) -> int:
    return sum(event[1] for event in events if event[0] == "tick")


def test_every_task_ends_once_and_the_window_is_kept() -> None:
    replicas = Replicas()
    events = run(replicas, 12, window=3)
    assert results(events) == {n: n * 10 for n in range(12)} and frames(events) == 12 * 7
    assert replicas.most == 3


def test_a_lost_replica_costs_an_attempt_and_its_ticks_are_taken_back() -> None:
    replicas = Replicas({2: ["lost", "lost"], 5: ["lost"]})
    events = run(replicas, 8)
    assert results(events) == {n: n * 10 for n in range(8)} and frames(events) == 8 * 7
    assert replicas.tries == 8 + 3


def test_attempts_are_bounded() -> None:
    replicas = Replicas({1: ["lost"] * 9})
    with pytest.raises(RenderError, match="4 were lost"):
        run(replicas, 3)


def test_an_error_of_the_work_itself_is_not_tried_again_and_ends_the_others() -> None:
    replicas = Replicas({0: ["error"], 1: ["slow"]})
    with pytest.raises(MediaError):
        run(replicas, 4)
    assert replicas.tries <= 3 and 1 in replicas.cancelled and replicas.now == 0


def test_a_straggler_gets_a_second_try_and_the_slower_one_is_cancelled() -> None:
    replicas = Replicas({6: ["slow"]})
    events = run(replicas, 7)
    assert results(events) == {n: n * 10 for n in range(7)} and frames(events) == 7 * 7
    assert replicas.cancelled == [6] and replicas.tries == 8


def test_the_end_of_events_without_a_result_is_an_error() -> None:
    with pytest.raises(RenderError, match="expected a result"):
        run(Replicas({0: ["silent"]}), 1)


def test_cancelling_leaves_nothing_running() -> None:
    replicas = Replicas({n: ["slow"] for n in range(5)})

    async def main() -> None:
        task = asyncio.create_task(FanOut(replicas.send, (Lost,), lambda event: None, lambda: 2, QUICK).run(range(5)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sorted(replicas.cancelled) == [0, 1] and replicas.now == 0


def test_cancelled_work_is_told_as_such() -> None:
    class Cancelling(Replicas):
        async def send(self, task: int) -> AsyncIterator[tuple[Any, ...]]:
            yield ("error", Cancelled("stopped"))

    with pytest.raises(Cancelled):
        run(Cancelling(), 1)
