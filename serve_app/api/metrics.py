"""Prometheus metrics of the HTTP door, in a registry of their own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from deployments.engines.registry import ENGINES
from serve_app.api.services import EngineState
from serve_app.jobs.records import Status
from serve_app.jobs.store import JobStore

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ZERO_SECONDS = 60.0  # longer than Prometheus waits between two looks
FULL = "streams_full"  # code of a refused live portrait: every replica speaks for somebody else
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
Clock = Callable[[], float]


class _Jobs(Collector):
    """The job table, read at every scrape: it is shared, so its gauges are those of the whole service."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Jobs by status, and how long the oldest one waits."""
        counts = self._jobs.counts()
        by_status = GaugeMetricFamily("lipsync_jobs", "Jobs by status", labels=["status"])
        for status in get_args(Status):
            by_status.add_metric([status], counts.get(status, 0))
        yield by_status
        yield GaugeMetricFamily("lipsync_queue_seconds", "Age of the oldest queued job", self._jobs.queue_seconds())


class _Work(Collector):
    """What ended jobs did, by engine, since this process began: frames, seconds of every stage, failures by code.

    Read from the table, so every API process tells the same story; add up those of one instance only.
    A series of ended jobs is shown at 0 for a minute before it rises: `increase` compares what was seen, and would miss the
    first failure of every code if its series began at 1.
    """

    def __init__(self, jobs: JobStore, since: float, clock: Clock) -> None:
        self._jobs, self._since, self._clock = jobs, since, clock
        self._begun: dict[tuple[str, ...], float] = {}  # when a series of ended jobs was first shown
        self._counted: set[str] = set()  # of those that ended at `_since`
        self._frames: dict[tuple[str, ...], float] = {}
        self._seconds: dict[tuple[str, ...], float] = {}
        self._ended: dict[tuple[str, ...], float] = {}

    def collect(self) -> Iterator[Metric]:
        """Counters that only rise."""
        self._count()
        yield counter("lipsync_frames", "Frames of finished videos", ["engine"], self._frames)
        yield counter("lipsync_stage_seconds", "Time spent per stage", ["engine", "stage"], self._seconds)
        yield counter("lipsync_jobs_ended", "Ended jobs; code says why one failed", ["engine", "status", "code"], self._shown())

    def _shown(self) -> dict[tuple[str, ...], float]:
        now = self._clock()
        begun = {labels: self._begun.setdefault(labels, now) for labels in self._ended}
        return {labels: total if now >= begun[labels] + ZERO_SECONDS else 0.0 for labels, total in self._ended.items()}

    def _count(self) -> None:
        for job in self._jobs.ended_since(self._since):
            if job.id in self._counted or job.completed_at is None:
                continue
            if job.completed_at > self._since:
                self._since, self._counted = job.completed_at, set()
            self._counted.add(job.id)
            engine = job.spec.engine
            add(self._ended, (engine, job.status, job.error_code or ""), 1)
            if job.status == "succeeded":
                add(self._frames, (engine,), float(job.info.get("frames", 0)))
            for stage, seconds in job.info.get("stage_seconds", {}).items():
                add(self._seconds, (engine, stage), float(seconds))


class _Replicas(Collector):
    """What every engine has running."""

    def __init__(self, engines: Callable[[], dict[str, EngineState]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """Replicas, the GPU memory that they hold together, and for how many callers they speak."""
        states = sorted(self._engines().items())
        yield gauge("lipsync_replicas", "Live replicas", {name: state.replicas for name, state in states})
        yield gauge("lipsync_replicas_least", "Replicas that are kept", {name: state.least for name, state in states})
        about = "GPU memory that an engine's replicas hold together; 0 without a GPU, or for an engine that uses none"
        yield gauge("lipsync_gpu_memory_bytes", about, {name: state.gpu_bytes for name, state in states})
        about = "Share of the memory of the fullest GPU under an engine's replicas that nobody holds; 1 without a GPU"
        yield gauge("lipsync_gpu_memory_free_share", about, {name: state.gpu_free for name, state in states})
        spoken = {name: state.streams for name, state in states if ENGINES[name].live}
        yield gauge("lipsync_live_streams", "Live portraits that replicas speak now", spoken)


class _Disk(Collector):
    """The disk under the media store, or under this process's copies where the store is no folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """How large it is, and what is free."""
        usage = shutil.disk_usage(self._folder)
        yield GaugeMetricFamily("lipsync_disk_bytes", "Size of the disk under the store, or under its copies here", usage.total)
        yield GaugeMetricFamily("lipsync_disk_free_bytes", "What is free of it", usage.free)


def add(totals: dict[tuple[str, ...], float], labels: tuple[str, ...], amount: float) -> None:
    """One more of something."""
    totals[labels] = totals.get(labels, 0.0) + amount


def gauge(name: str, about: str, values: Mapping[str, float]) -> Metric:
    """Values by engine in Prometheus's form."""
    made = GaugeMetricFamily(name, about, labels=["engine"])
    for engine, value in values.items():
        made.add_metric([engine], value)
    return made


def counter(name: str, about: str, labels: list[str], totals: dict[tuple[str, ...], float]) -> Metric:
    """Totals in Prometheus's form."""
    made = CounterMetricFamily(name, about, labels=labels)
    for values, total in sorted(totals.items()):
        made.add_metric(list(values), total)
    return made


class Metrics:
    """Counters of one API process."""

    def __init__(
        self, jobs: JobStore, engines: Callable[[], dict[str, EngineState]], folder: Path, clock: Clock = time.monotonic
    ) -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self._requests = Counter("lipsync_http_requests", "Requests", names, registry=self.registry)
        self._seconds = Histogram(
            "lipsync_http_request_seconds",
            "Time to the first byte of the answer",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._bytes = Counter("lipsync_upload_bytes", "Bytes of request bodies", registry=self.registry)
        self._live = Counter(
            "lipsync_live_ended", "Live portraits that ended; code says why one failed", ["code"], registry=self.registry
        )
        for code in ("", FULL):  # `increase` misses the first one of a series that begins at 1
            self._live.labels(code)
        self.registry.register(_Jobs(jobs))
        self.registry.register(_Work(jobs, time.time(), clock))
        self.registry.register(_Replicas(engines))
        self.registry.register(_Disk(folder))

    def count_upload(self, size: int) -> None:
        """Some bytes of a body came in."""
        self._bytes.inc(size)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def count_live(self, code: str) -> None:
        """A live portrait ended: well, or with the code of an error."""
        self._live.labels(code).inc()

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
