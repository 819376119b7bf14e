"""Replicas follow the seconds of video that wait in the table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve_app.jobs.records import ChunkRow
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import JobStore, open_jobs
from serve_app.service import scaling
from serve_app.service.policy import QueuePolicy
from serve_app.service.scaling import Load, QueueLook, Speed, loads, wanted_replicas


@pytest.fixture
def jobs(tmp_path: Path) -> JobStore:
    return open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")


def queue(jobs: JobStore, engine: str, seconds: float | None, **more: Any) -> str:
    info = {} if seconds is None else {"seconds": seconds, "fps": 25.0}
    return jobs.create(JobSpec(engine=engine, source="clip", **more), "me", info=info)[0].id


def test_nothing_waits_nothing_runs() -> None:
    assert wanted_replicas(Load(), Speed()) == 0
    assert wanted_replicas(Load(queued=0.01, jobs=1), Speed()) == 1, "the smallest job gets a replica"


@pytest.mark.parametrize(("seconds", "cost", "patience"), [(600, 1.0, 60), (601, 1.0, 60), (3600, 0.25, 120), (50, 2.0, 30)])
def test_all_that_waits_is_worked_off_in_time_and_with_no_replica_too_many(seconds: float, cost: float, patience: float) -> None:
    wanted = wanted_replicas(Load(queued=seconds / 2, running=seconds / 2, jobs=3), Speed(cost, patience))
    assert seconds * cost / wanted <= patience
    assert seconds * cost / (wanted - 1) > patience


def test_the_table_is_read_by_engine_in_seconds_that_are_rendered(jobs: JobStore) -> None:
    begun = queue(jobs, "a", 40.0)
    taken = jobs.claim("w", 60)
    assert taken is not None and taken.id == begun
    jobs.progress(begun, taken.fence, "render", 3, 4, 0.75)
    queue(jobs, "a", 20.0)
    two = (SpeechSpec(text="x", start="1.0", end="3"), SpeechSpec(text="y", start="5", end="6.5"))
    queue(jobs, "a", 1000.0, speech=two)  # only its segments are rendered
    queue(jobs, "b", None)
    queue(jobs, "b", 7.0, kind="avatar")
    queue(jobs, "b", 500.0, kind="portrait")
    found = loads(jobs.find(None, limit=100))
    assert found["a"] == Load(queued=20 + 3.5, running=10.0, jobs=3)
    assert found["b"] == Load(queued=scaling.UNKNOWN_SECONDS + 7, running=0.0, jobs=2), "a portrait needs no replica"


def test_an_engines_speed_is_what_its_last_jobs_took(jobs: JobStore) -> None:
    look = QueueLook(lambda: jobs, start=False)
    assert QueueLook(lambda: jobs, start=False).look().costs == {}
    for seconds in (4.0, 8.0):
        id_ = queue(jobs, "a", 8.0)
        job = jobs.claim("w", 60)
        assert job is not None
        for start in (0, 100):
            jobs.commit_chunk(ChunkRow(id_, start, start + 100, f"k{start}", job.fence, seconds))
        jobs.succeed(id_, job.fence, "r", None, {}, 60)
    assert look.look().costs == {"a": pytest.approx((8 + 16) / (2 * 200 / 25))}


def test_a_look_that_is_too_old_is_not_believed(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    look = QueueLook(lambda: jobs, start=False)
    assert look.latest() is None
    queue(jobs, "a", 10.0)
    look.look()
    seen = look.latest()
    assert seen is not None and seen.loads["a"].jobs == 1
    later = time.monotonic() + scaling.STALE_SECONDS + 1
    monkeypatch.setattr(scaling.time, "monotonic", lambda: later)
    assert look.latest() is None


@pytest.fixture
def decide(jobs: JobStore, tmp_path: Path) -> Callable[..., int]:
    """Ray's own machinery around our policy, with real contexts: delays, factors and the start from nothing."""
    from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
    from ray.serve.autoscaling_policy import _apply_autoscaling_config
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

    config = AutoscalingConfig.model_validate(
        {"min_replicas": 0, "max_replicas": 50, "target_ongoing_requests": 1.5, "upscale_delay_s": 0, "downscale_delay_s": 0}
    )
    database = f"sqlite:///{tmp_path / 'jobs.db'}"
    deployment = DeploymentID("a", "lipsync")

    def history(now: int) -> list[TimeStampedValue]:
        return [TimeStampedValue(1.0, 1.0), TimeStampedValue(2.0, float(now))]

    policy = _apply_autoscaling_config(QueuePolicy(database, patience=60, cost=0.5))

    def ask(current: int, requests: float = 0.0, look: bool = True, streams: tuple[int, ...] = ()) -> int:
        """`streams`: the live portraits of every replica, a busy moment ago and now."""
        if look:
            scaling.look_at(database).look()
        context = AutoscalingContext(
            deployment_id=deployment,
            deployment_name="a",
            app_name="lipsync",
            current_num_replicas=current,
            target_num_replicas=current,
            running_replicas=[],
            total_num_requests=requests,
            total_queued_requests=0.0,
            aggregated_metrics=None,
            raw_metrics={"streams": {ReplicaID(f"r{k}", deployment): history(now) for k, now in enumerate(streams)}},
            capacity_adjusted_min_replicas=0,
            capacity_adjusted_max_replicas=50,
            policy_state={},
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=time.time(),
            config=config,
        )
        return int(policy(context)[0])

    return ask


def test_serve_starts_as_many_as_the_queue_needs_before_a_single_request(jobs: JobStore, decide: Callable[..., int]) -> None:
    assert decide(current=0) == 0
    for _ in range(40):
        queue(jobs, "a", 30.0)
    assert decide(current=0) == math.ceil(40 * 30 * 0.5 / 60) == 10
    assert decide(current=4) == 10
    for job in jobs.find(None, limit=100):
        jobs.request_cancel(job.id)
    assert decide(current=10) == 1, "one after the other: Serve takes the last replica away in a step of its own"
    assert decide(current=1) == 0


def test_without_the_table_requests_decide_and_a_fit_keeps_its_replica(
    jobs: JobStore, decide: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decide(current=1, requests=1.0) == 1, "somebody works, though no job in the table says so"
    later = time.monotonic() + scaling.STALE_SECONDS + 1
    monkeypatch.setattr(scaling.time, "monotonic", lambda: later)
    assert decide(current=1, requests=6.0, look=False) == 4


def test_replicas_that_speak_live_are_taken_and_a_free_one_waits_for_the_next_caller(
    jobs: JobStore, decide: Callable[..., int]
) -> None:
    assert decide(current=1, requests=1.0, streams=(1,)) == 2, "the only one speaks: a second is started"
    assert decide(current=2, requests=1.0, streams=(1, 0)) == 2, "one is free: no third"
    assert decide(current=2, requests=2.0, streams=(1, 1)) == 3, "full again"
    assert decide(current=8, requests=8.0, streams=(1,) * 8) == 10, "many callers: a quarter more"
    assert decide(current=2, streams=(0, 0)) < 2, "all have gone; what they were is not counted"
    for _ in range(8):
        queue(jobs, "a", 30.0)
    assert decide(current=2, requests=2.0, streams=(1, 1)) == math.ceil(8 * 30 * 0.5 / 60) + 3, "chunks do not wait for callers"


def test_live_portraits_count_while_the_table_is_away(decide: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.monotonic() + scaling.STALE_SECONDS + 1
    monkeypatch.setattr(scaling.time, "monotonic", lambda: later)
    assert decide(current=3, requests=3.0, look=False) == 2
    assert decide(current=3, requests=3.0, look=False, streams=(1, 1, 1)) == 4


def test_a_database_that_is_away_at_the_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "LOOK_SECONDS", 0.05)
    folder = tmp_path / "not-there-yet"

    def open_table() -> JobStore:
        if not folder.is_dir():
            raise OSError("away")
        return open_jobs(f"sqlite:///{folder / 'jobs.db'}")

    look = QueueLook(open_table)
    time.sleep(0.2)
    assert look.latest() is None, "requests decide meanwhile"
    folder.mkdir()
    queue(open_table(), "a", 10.0)
    limit = time.monotonic() + 20
    while (seen := look.latest()) is None or not seen.loads:
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert seen.loads["a"].queued == 10.0


def test_serve_can_carry_the_policy_to_its_controller() -> None:
    from ray.serve.config import AutoscalingPolicy

    made = AutoscalingPolicy(policy_function="serve_app.service.policy:QueuePolicy", policy_kwargs={"database": ""})
    assert made.get_policy().__name__ == "QueuePolicy" and made.get_serialized_policy_def()
