"""A job as it is stored, its legal state changes, and what can go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from deployments.errors import LipSyncError
from serve_app.jobs.spec import JobSpec

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
NEXT: dict[Status, tuple[Status, ...]] = {
    "queued": ("running", "cancelled", "failed"),
    "running": ("queued", "running", "succeeded", "failed", "cancelled"),  # queued: given back; running: taken over
    "succeeded": (),
    "failed": (),
    "cancelled": (),
}
FINAL: tuple[Status, ...] = ("succeeded", "failed", "cancelled")


class JobNotFound(LipSyncError):
    """No job, asset or avatar of this caller has that id."""

    http_status = 404
    code = "not_found"


class IdempotencyConflict(LipSyncError):
    """The same idempotency key came with another request."""

    http_status = 409
    code = "idempotency_conflict"


class IllegalChange(LipSyncError):
    """A job cannot go from its state to the one asked for."""

    http_status = 409
    code = "illegal_state"


class StaleFence(LipSyncError):
    """Another worker took the job over: this one's writes are refused. It must stop."""

    http_status = 409
    code = "stale_fence"


@dataclass(frozen=True)
class Job:
    """One row. Times are seconds since 1970."""

    id: str  # video_<32 hex> or avatar_<32 hex>
    owner: str
    spec: JobSpec
    status: Status
    created_at: float
    stage: str = ""  # probe, track, avatar, motion, render, stitch, report
    done: int = 0  # of the stage, mostly frames
    total: int = 0
    fraction: float = 0.0  # of the whole job, 0..1, never falls
    eta: float | None = None  # seconds
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    attempt: int = 0
    fence: int = 0
    worker: str = ""
    lease_until: float = 0.0
    cancel_requested: bool = False
    result: str | None = None  # key of the video
    report: str | None = None  # key prefix of the quality report's folder
    info: dict[str, Any] = field(default_factory=dict)  # facts: frames, width, height, seconds, chunks, avatar
    error_code: str | None = None
    error: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    callback_url: str | None = None
    request_id: str = ""


@dataclass(frozen=True)
class ChunkRow:
    """A finished chunk: committed once, under the fence of the worker that rendered it."""

    job: str
    start: int  # frames
    stop: int
    key: str  # encoded frames in the media store
    fence: int
    seconds: float
    segment: str | None = None  # key of the chunk's fragment of the stream


@dataclass(frozen=True)
class Asset:
    """A file that a caller sent ahead."""

    id: str  # asset_<32 hex>
    owner: str
    key: str  # in the media store
    kind: Literal["video", "audio", "image"]
    name: str  # as the caller called it; never used as a path
    size: int  # bytes
    created_at: float


@dataclass(frozen=True)
class Callback:
    """A message that a caller waits for."""

    id: int
    job: str
    url: str
    attempt: int
    due_at: float
