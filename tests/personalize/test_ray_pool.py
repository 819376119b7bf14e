"""Rows on actors of a real cluster of one machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.errors import RenderError
from serve_app.batch import RayPool, room

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"})
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def test_every_piece_of_work_comes_back_once_though_actors_die(cluster: None, tmp_path: Path) -> None:
    def work(number: int, tick: Callable[[int], None]) -> int:
        """Dies at its first try where the number is 3."""
        seen = tmp_path / str(number)
        if number == 3 and not seen.exists():
            seen.touch()
            os._exit(1)
        return number * number

    ticks: list[int] = []
    with RayPool(2, 1.0) as pool:
        assert sorted(pool.map_ticks(work, range(8), ticks.append)) == [k * k for k in range(8)]
        assert sum(ticks) == 8 and (tmp_path / "3").exists()
        assert list(pool.map(lambda number: -number, range(5))) == [0, -1, -2, -3, -4], "in order"


def test_work_that_kills_every_actor_is_given_up(cluster: None) -> None:
    def work(number: int, tick: Callable[[int], None]) -> int:
        os._exit(1)

    with RayPool(1, 0.0) as pool, pytest.raises(RenderError, match="died 4 times"):
        list(pool.map_ticks(work, [1], lambda count: None))


def test_a_cluster_has_room_for_as_many_as_its_devices() -> None:
    assert room({"CPU": 8, "GPU": 2}, 1.0) == 2 and room({"CPU": 8, "GPU": 2}, 0.5) == 4
    assert room({"CPU": 3}, 0.0) == 3 and room({"CPU": 3}, 1.0) == 1
