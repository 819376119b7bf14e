"""Prometheus metrics of the HTTP door, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serve_app.jobs.records import Status
from serve_app.jobs.store import JobStore

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


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


class Metrics:
    """Counters of one API process."""

    def __init__(self, jobs: JobStore) -> None:
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
        self.registry.register(_Jobs(jobs))

    def count_upload(self, size: int) -> None:
        """Some bytes of a body came in."""
        self._bytes.inc(size)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
