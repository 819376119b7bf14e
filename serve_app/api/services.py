"""What the API is given: the stores, its settings, and what the engines are doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

from anyio import to_thread
from fastapi import Depends
from fastapi.requests import HTTPConnection
from pydantic import BaseModel, ConfigDict, Field

from serve_app.jobs.store import JobStore
from serve_app.media_store import MediaStore

if TYPE_CHECKING:
    from serve_app.intake import AddressRule
    from serve_app.live import Live

P = ParamSpec("P")
Result = TypeVar("Result")
INCOMING = "incoming"  # folder under the media store's root: files of requests that are still being checked


class ApiSettings(BaseModel):
    """Limits and keys of the HTTP door."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_upload_bytes: int = Field(default=2 << 30, ge=1)
    """Of one whole request body, and of every file behind a URL."""
    api_keys: tuple[str, ...] = ()
    """SHA-256 of every key, as 64 hex digits. None: everybody may come in, so listen on loopback only."""
    allow_private_urls: bool = False
    """Fetch inputs from, and call back to, addresses that are not global."""
    max_queue: int = Field(default=500, ge=1)
    """Queued jobs; more are answered with 429."""
    retry_after_seconds: int = Field(default=10, ge=1)
    retention_seconds: int = Field(default=7 * 86400, ge=60)
    """How long results are kept; the worker writes it into the job."""
    max_seconds_per_clip: float = Field(default=3600, gt=0)
    max_side: int = Field(default=8192, ge=16)
    """Pixels."""
    max_frames_per_second: float = Field(default=240, gt=0)
    look_for_face: bool = True
    """Refuse a clip of which no looked-at frame shows a face; without, its job fails later."""
    url_timeout_seconds: float = Field(default=30, gt=0)
    poll_seconds: float = Field(default=0.25, gt=0)
    """How often `events` and `stream` look into the job table."""
    heartbeat_seconds: float = Field(default=15, gt=0)
    checks_at_once: int = Field(default=8, ge=1)
    """Requests whose inputs are fetched and probed at the same time; others wait, and the other routes do not."""
    max_streams: int = Field(default=8, ge=0)
    """Live portraits at once; more are refused. Each needs a replica of its own that speaks for nobody else."""
    stream_seconds: float = Field(default=600, gt=0)
    """Of sound in one live portrait."""
    stream_idle_seconds: float = Field(default=30, gt=0)
    """Without any sound, after which a live portrait ends."""
    stream_start_seconds: float = Field(default=60, gt=0)
    """Until a replica takes a caller, where one has to start first."""

    def address_rule(self) -> AddressRule:
        """Which addresses inputs are fetched from and callbacks go to."""
        from serve_app.intake import AddressRule

        return AddressRule(private=self.allow_private_urls)


@dataclass(frozen=True)
class EngineState:
    """One engine, as `/v1/models` tells of it."""

    name: str
    about: str
    options: tuple[str, ...] = ()
    state: Literal["ready", "starting", "on demand"] = "ready"
    takes: Literal["video", "image"] = "video"
    replicas: int = 0
    gpu_bytes: int = 0  # memory that they hold together
    pictures: bool = False  # moves still pictures, too
    streams: int = 0  # live portraits that its replicas speak
    most: int = 1  # replicas that it may have
    least: int = 0  # replicas that it keeps
    gpu_free: float = 1.0  # share of the memory of the fullest GPU that its replicas see
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # lowest and highest value of an option that has them

    def takes_kind(self, picture: bool) -> bool:
        """Whether it takes a still picture, or a clip."""
        return (self.pictures or self.takes == "image") if picture else self.takes == "video"


@dataclass(frozen=True)
class Services:
    """The parts behind the routes. `ready` answers None, or the reason why not."""

    jobs: JobStore
    media: MediaStore
    settings: ApiSettings
    engines: Callable[[], dict[str, EngineState]]
    ready: Callable[[], str | None]
    live: Live | None = None
    """Speaks while the sound is still coming; None: no engine here can."""
    facts: dict[tuple[str, str, bool], Any] = field(default_factory=dict)
    """What is known of media by SHA-256, kind, and whether a face was looked for: a probe costs a process."""

    @property
    def incoming(self) -> Path:
        """Where request bodies land until they are checked."""
        return self.media.root / INCOMING


async def run_check(request: HTTPConnection, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Slow work of a request in a thread, a few at once."""
    return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=request.app.state.checks)


def get_services(request: HTTPConnection) -> Services:
    """The services of the app that a request came to."""
    services: Services = request.app.state.services
    return services


Door = Annotated[Services, Depends(get_services)]
