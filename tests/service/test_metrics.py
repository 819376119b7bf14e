"""What ended jobs add to the counters."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from serve_app.api.metrics import Metrics
from serve_app.api.services import EngineState
from serve_app.jobs.spec import JobSpec
from serve_app.jobs.store import open_jobs


def test_ended_jobs_are_counted_once_by_engine_stage_and_code(tmp_path: Path) -> None:
    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    now = [0.0]
    metrics = Metrics(jobs, dict, tmp_path, lambda: now[0])

    def values() -> dict[str, float]:
        lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def claim() -> str:
        jobs.create(JobSpec(engine="fake", source="inputs/a"), "me")
        job = jobs.claim("worker", 60)
        assert job is not None
        return job.id

    for _ in range(2):
        jobs.succeed(claim(), 1, None, None, {"frames": 40, "stage_seconds": {"render": 1.5, "track": 0.5}}, 60)
    jobs.fail(claim(), 1, "no_face", "nobody")
    values()
    now[0] += 61
    for _ in range(2):  # a second look counts nothing twice
        found = values()
        assert found['lipsync_frames_total{engine="fake"}'] == 80
        assert found['lipsync_stage_seconds_total{engine="fake",stage="render"}'] == 3
        assert found['lipsync_jobs_ended_total{code="no_face",engine="fake",status="failed"}'] == 1
    jobs.succeed(claim(), 1, None, None, {"frames": 2}, 60)
    assert values()['lipsync_frames_total{engine="fake"}'] == 82
    jobs.close()


def test_the_first_failure_of_every_code_is_an_increase(tmp_path: Path) -> None:
    """As Prometheus counts: the rise from look to look; a series that was never seen lower has not risen."""
    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    now = [0.0]
    metrics = Metrics(jobs, dict, tmp_path, lambda: now[0])
    seen: dict[tuple[str, str, str], list[float]] = {}

    def look() -> None:
        families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
        ended = families["lipsync_jobs_ended"]
        assert ended.type == "counter"
        for sample in ended.samples:
            seen.setdefault((sample.labels["engine"], sample.labels["status"], sample.labels["code"]), []).append(sample.value)
        now[0] += 15

    def fail(engine: str, code: str) -> None:
        jobs.create(JobSpec(engine=engine, source="inputs/a"), "me")
        job = jobs.claim("worker", 60)
        assert job is not None
        jobs.fail(job.id, 1, code, "why")

    fail("fake", "no_face")  # before anybody looked
    for code in ("no_face", "a_code_of_next_year", "", ""):
        look()
        if code:
            fail("fake", code)
    for _ in range(6):
        look()
    jobs.close()
    risen = {labels: values[-1] - values[0] for labels, values in seen.items()}
    assert risen == {("fake", "failed", "no_face"): 2, ("fake", "failed", "a_code_of_next_year"): 1}
    assert all(values == sorted(values) for values in seen.values()), "counters only rise"


def test_replicas_and_their_gpu_memory_are_told_by_engine(tmp_path: Path) -> None:
    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    busy = EngineState("vasa1", "", replicas=2, gpu_bytes=3 << 30, streams=2, least=3, gpu_free=0.25)
    idle = EngineState("emo", "", state="on demand")
    told = Metrics(jobs, lambda: {"vasa1": busy, "emo": idle}, tmp_path).text().decode()
    jobs.close()
    assert 'lipsync_replicas{engine="vasa1"} 2.0' in told and 'lipsync_replicas{engine="emo"} 0.0' in told
    assert 'lipsync_gpu_memory_bytes{engine="vasa1"} 3.221225472e+09' in told
    assert 'lipsync_gpu_memory_bytes{engine="emo"} 0.0' in told
    assert 'lipsync_live_streams{engine="vasa1"} 2.0' in told and 'lipsync_live_streams{engine="emo"}' not in told
    assert 'lipsync_replicas_least{engine="vasa1"} 3.0' in told and 'lipsync_replicas_least{engine="emo"} 0.0' in told
    assert 'lipsync_gpu_memory_free_share{engine="vasa1"} 0.25' in told


def test_the_disk_under_the_store_is_told(tmp_path: Path) -> None:
    import shutil

    jobs = open_jobs(f"sqlite:///{tmp_path / 'jobs.db'}")
    told = dict(line.rsplit(" ", 1) for line in Metrics(jobs, dict, tmp_path).text().decode().splitlines() if line[0] != "#")
    jobs.close()
    assert float(told["lipsync_disk_bytes"]) == shutil.disk_usage(tmp_path).total
    assert 0 < float(told["lipsync_disk_free_bytes"]) < float(told["lipsync_disk_bytes"])
