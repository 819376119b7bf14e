"""What the tests of the job table share: a clock that they set, a claimed job, and every write of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from serve_app.jobs.records import ChunkRow, Job, StaleFence
from serve_app.jobs.spec import JobSpec, SpeechSpec
from serve_app.jobs.store import JobStore

SPEC = JobSpec(engine="fake", source="inputs/aa/clip.mp4", speech=(SpeechSpec(audio="inputs/bb/speech.wav"),))
LEASE = 10.0


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def start(jobs: JobStore, **asked: Any) -> Job:
    """A new job that a worker has claimed."""
    made, _ = jobs.create(SPEC, "ann", **asked)
    claimed = jobs.claim("worker", LEASE)
    assert claimed is not None and claimed.id == made.id
    return claimed


def chunk(job: Job, first: int = 0, fence: int | None = None) -> ChunkRow:
    return ChunkRow(job.id, first, first + 10, f"jobs/k/{first}.mkv", job.fence if fence is None else fence, 0.5, None)


WRITES: dict[str, Callable[[JobStore, Job], object]] = {
    "heartbeat": lambda jobs, job: jobs.heartbeat(job.id, job.fence, LEASE),
    "progress": lambda jobs, job: jobs.progress(job.id, job.fence, "render", 1, 2, 0.9),
    "note": lambda jobs, job: jobs.note(job.id, job.fence, {"seen": 1}),
    "commit_chunk": lambda jobs, job: jobs.commit_chunk(chunk(job, 50)),
    "succeed": lambda jobs, job: jobs.succeed(job.id, job.fence, "results/z.mp4", None, {}, 60),
    "fail": lambda jobs, job: jobs.fail(job.id, job.fence, "zombie", "zombie"),
    "cancelled": lambda jobs, job: jobs.cancelled(job.id, job.fence),
    "give_back": lambda jobs, job: jobs.give_back(job.id, job.fence),
}


def all_refused(jobs: JobStore, job: Job) -> None:
    """Every write of this worker is refused and changes nothing."""
    before = jobs.get(job.id)
    for name, write in WRITES.items():
        with pytest.raises(StaleFence):
            write(jobs, job)
            pytest.fail(f"{name} was accepted")
    assert jobs.get(job.id) == before
    assert 50 not in [row.start for row in jobs.chunks(job.id)]
