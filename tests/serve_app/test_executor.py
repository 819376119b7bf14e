"""Local processes: order, ticks, failures, and an end within two seconds."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.errors import Cancelled, NoFaceError, RenderError
from serve_app.executor import LocalExecutor, SerialExecutor, make_executor


def slow_square(number: int) -> int:
    time.sleep(0.05 * (3 - number % 4))
    return number * number


def ticking(number: int, tick: Callable[[int], None]) -> tuple[int, str]:
    for _ in range(number):
        tick(1)
    return number, os.environ["OMP_NUM_THREADS"]


def forever(number: int, tick: Callable[[int], None]) -> None:
    while True:
        time.sleep(0.01)
        tick(1)


def stuck(number: int, tick: Callable[[int], None]) -> None:
    tick(1)
    time.sleep(600)


def failing(number: int) -> int:
    if number == 3:
        raise NoFaceError("no face in 3")
    time.sleep(30)
    return number


def dying(number: int) -> int:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    with make_executor(workers) as executor:
        assert list(executor.map(slow_square, list(range(6)))) == [n * n for n in range(6)]


def test_every_tick_arrives_and_workers_have_one_thread() -> None:
    seen: list[int] = []
    with LocalExecutor(2) as executor:
        results = list(executor.map_ticks(ticking, [3, 0, 5], seen.append))
    assert sorted(results) == [(0, "1"), (3, "1"), (5, "1")] and sum(seen) == 8


def mark(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def test_workers_that_are_woken_load_before_there_is_work(tmp_path: Path) -> None:
    with LocalExecutor(2) as executor:
        executor.wake(mark, tmp_path)
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()} != set()
        assert list(executor.map(slow_square, [2, 3])) == [4, 9]


def test_workers_that_are_still_waking_end_with_the_job(tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match="no face in 3"), LocalExecutor(2) as executor:
        executor.wake(time.sleep, 0.2)
        list(executor.map(failing, [3, 3]))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("task", [forever, stuck])
def test_cancelling_ends_every_worker_within_two_seconds(task: Callable[[int, Callable[[int], None]], None]) -> None:
    def on_tick(frames: int) -> None:
        raise Cancelled("enough")

    stopped = 0.0
    with pytest.raises(Cancelled), LocalExecutor(2) as executor:
        try:
            list(executor.map_ticks(task, [1, 2], on_tick))
        finally:
            stopped = time.monotonic()
    assert time.monotonic() - stopped < 2
    assert not multiprocessing.active_children()


def test_an_error_is_raised_before_its_turn() -> None:
    started = time.monotonic()
    with pytest.raises(NoFaceError, match="no face in 3"), LocalExecutor(2) as executor:
        list(executor.map(failing, [1, 3]))
    assert time.monotonic() - started < 15


def test_a_killed_worker_is_a_typed_error() -> None:
    with pytest.raises(RenderError, match="ended from outside"), LocalExecutor(1) as executor:
        list(executor.map(dying, [1]))


def test_one_worker_needs_no_process() -> None:
    assert isinstance(make_executor(1), SerialExecutor)
