"""The simulation behind the figures in docs/operate.md keeps Ray's rules, and loses no job."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from benchmarks.autoscale import TARGET, UP, Cluster, Delays, State, arrivals, default_policy, fixed, queue_policy, simulate

COST = 0.5


def test_delays_are_those_of_ray() -> None:
    from ray.serve.autoscaling_policy import _apply_delay_logic

    rng, ours = random.Random(3), Delays(up=3.0, down=20.0)
    config: Any = SimpleNamespace(upscale_delay_s=3.0, downscale_delay_s=20.0, downscale_to_zero_delay_s=None)
    size, state, wanted, seen = 4, {}, 4, set()
    for second in range(3000):
        if rng.random() < 0.08:
            wanted = rng.choice((0, 1, 3, 4, 9))
        theirs, state = _apply_delay_logic(wanted, size, config, state, _now=float(second))
        if size == 0 and wanted > 0:
            theirs, state = wanted, {}  # Ray starts from nothing at once, before it looks at delays
        assert ours.follow(wanted, size, float(second)) == theirs, second
        size = theirs
        seen.add(size)
    assert seen == {0, 1, 3, 4, 9}


def test_rays_default_is_its_formula() -> None:
    (job, *_rest) = arrivals(0, 1.0)
    job.left = 5
    cluster = Cluster(COST)
    assert default_policy(State([], [], 0, cluster, 0.0)) == 0
    assert default_policy(State([], [job], 0, cluster, 0.0)) == -(-2 // TARGET), "two in flight from nothing"
    cluster.free = [0.0, 0.0]
    assert default_policy(State([], [job, job], 0, cluster, 0.0)) == -(-8 // TARGET)


def test_no_job_is_lost_and_none_ends_before_it_can() -> None:
    for policy in (queue_policy(COST, 30), default_policy, fixed(3)):
        day = [job for job in arrivals(1, 20.0) if job.arrived < 32000][:400]
        cluster = simulate(day, policy, COST, 12)
        assert all(job.begun is not None and job.done is not None for job in day)
        assert all(job.arrived <= job.begun <= job.done for job in day)
        assert cluster.gpu_seconds >= sum(job.seconds for job in day) * COST and UP > 0
