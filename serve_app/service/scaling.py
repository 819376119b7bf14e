"""How many replicas an engine should have, from the work that waits for it in the job table.

Requests at replicas tell only of jobs that a router has claimed; behind them hundreds may wait. The table knows them all,
and how many seconds of video each of them is.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from serve_app.config import Secrets
from serve_app.jobs.records import ChunkRow, Job, Status
from serve_app.jobs.store import JobStore, open_jobs
from serve_app.service.log import log

UNKNOWN_SECONDS = 30.0  # of video in a job that does not say
LOOK_SECONDS = 2.0
STALE_SECONDS = 30.0  # after which what was seen is no longer believed
MOST_JOBS = 5000
SAMPLE, SAMPLE_SECONDS = 20, 20.0  # ended jobs from which an engine's speed is taken, and how often
UNFINISHED: tuple[Status, ...] = ("queued", "running")
HOUR = 3600.0
STREAMS = "streams"  # what replicas call their live portraits
SPARE = 0.25  # free replicas for callers to come, per live portrait


@dataclass(frozen=True)
class Load:
    """What waits for one engine, in seconds of video."""

    queued: float = 0.0  # nobody has begun
    running: float = 0.0  # what is left of jobs under way
    jobs: int = 0


@dataclass(frozen=True)
class Speed:
    """What the work takes, and how soon it shall be done."""

    cost: float = 1.0  # seconds of one replica per second of video
    patience: float = 30.0  # seconds in which all that waits shall be worked off


def wanted_replicas(load: Load, speed: Speed) -> int:
    """Enough to work off all that waits in time; one as long as there is anything, none without."""
    if load.jobs == 0:
        return 0
    return max(1, math.ceil((load.queued + load.running) * speed.cost / speed.patience))


def wanted_for_streams(streams: int) -> int:
    """A replica for every live portrait, and free ones for who calls next: a caller does not wait for a start."""
    return streams + max(1, math.ceil(SPARE * streams)) if streams else 0


def speaking(told: Mapping[str, Mapping[Any, Sequence[Any]]] | None) -> int:
    """Live portraits now, by the last word of every replica in Serve's raw metrics."""
    return sum(round(values[-1].value) for values in (told or {}).get(STREAMS, {}).values() if values)


def loads(jobs: Iterable[Job]) -> dict[str, Load]:
    """The work of unfinished jobs by engine. Portraits need no replica: they are drawn where the router is."""
    found: dict[str, Load] = {}
    for job in jobs:
        if job.spec.kind == "portrait":
            continue
        before, seconds = found.get(job.spec.engine, Load()), video_seconds(job)
        if job.status == "queued":
            now = replace(before, queued=before.queued + seconds)
        else:
            now = replace(before, running=before.running + seconds * (1 - job.fraction))
        found[job.spec.engine] = replace(now, jobs=before.jobs + 1)
    return found


def video_seconds(job: Job) -> float:
    """Seconds of video that a job renders: its segments, or the whole clip."""
    parts = [(part.start, part.end) for part in job.spec.speech]
    lengths = [float(Fraction(end) - Fraction(start)) for start, end in parts if start is not None and end is not None]
    if lengths and len(lengths) == len(parts):
        return sum(lengths)
    return float(job.info.get("seconds") or UNKNOWN_SECONDS)


def chunk_cost(job: Job, chunks: Iterable[ChunkRow]) -> tuple[float, float]:
    """Seconds that replicas spent on a job, and seconds of video that they made."""
    rows = list(chunks)
    fps = float(job.info.get("fps") or 0)
    frames = sum(row.stop - row.start for row in rows)
    return sum(row.seconds for row in rows), frames / fps if fps > 0 else 0.0


def costs(samples: Mapping[str, Iterable[tuple[float, float]]]) -> dict[str, float]:
    """Seconds of a replica per second of video, by engine, from pairs of the two."""
    found = {}
    for engine, pairs in samples.items():
        spent, made = (sum(values) for values in zip(*pairs, strict=True))
        if spent > 0 and made > 0:
            found[engine] = spent / made
    return found


@dataclass(frozen=True)
class Seen:
    """The table at one moment."""

    loads: dict[str, Load]
    costs: dict[str, float]
    at: float  # time.monotonic()


class QueueLook:
    """Looks at the table every other second, in a thread of its own: who asks for the last look never waits.

    The database may be away, also at the start: the thread opens it, and tries again.
    """

    def __init__(self, open_table: Callable[[], JobStore], start: bool = True) -> None:
        self._open = open_table
        self._table: JobStore | None = None
        self._samples: dict[str, deque[tuple[float, float]]] = {}  # of every engine: spent, made
        self._sampled = 0.0
        self._seen: Seen | None = None
        if start:
            threading.Thread(target=self._look_often, daemon=True, name="queue-look").start()

    def latest(self) -> Seen | None:
        """The last look, or None if it is too old to be believed."""
        seen = self._seen
        return seen if seen is not None and time.monotonic() - seen.at < STALE_SECONDS else None

    def look(self) -> Seen:
        """Read the table. Raises what the database raises."""
        jobs = self._table = self._table or self._open()
        waiting = [job for status in UNFINISHED for job in jobs.find(None, status=status, limit=MOST_JOBS)]
        if time.time() - self._sampled > SAMPLE_SECONDS:
            self._sample(jobs)
        self._seen = Seen(loads(waiting), costs(self._samples), time.monotonic())
        return self._seen

    def _sample(self, jobs: JobStore) -> None:
        """What jobs cost that ended since the last sample; the first time, in the last hour. Only the last few count."""
        now = time.time()
        for job in jobs.ended_since(self._sampled or now - HOUR):
            if job.status == "succeeded":
                last = self._samples.setdefault(job.spec.engine, deque(maxlen=SAMPLE))
                last.append(chunk_cost(job, jobs.chunks(job.id)))
        self._sampled = now

    def _look_often(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 a database that is away comes back; until then requests decide
                log.warning("queue_not_seen", error=f"{type(error).__name__}: {error}")
            time.sleep(LOOK_SECONDS)


_LOOKS: dict[str, QueueLook] = {}
_LOCK = threading.Lock()


def look_at(database: str) -> QueueLook:
    """One look for all engines of a process; an empty address means LIPSYNC_DATABASE."""
    with _LOCK:
        if database not in _LOOKS:
            _LOOKS[database] = QueueLook(partial(open_jobs, database or Secrets().database))
        return _LOOKS[database]
