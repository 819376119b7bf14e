"""Arguments of the server: one frozen record for the command line, config files and Kubernetes manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.engines.registry import replica_settings
from deployments.engines.scaling import ReplicaSettings
from deployments.settings import cache_folder
from serve_app.api.services import ApiSettings
from serve_app.config import Secrets


class EngineArgs(BaseModel):
    """What an operator says of one engine; what is left out is the engine's own default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_gpus: float | None = Field(default=None, ge=0, le=1)
    num_cpus: float | None = Field(default=None, ge=0)
    min_replicas: int | None = Field(default=None, ge=0)
    max_replicas: int | None = Field(default=None, ge=1)

    def merged(self, name: str) -> ReplicaSettings:
        """The engine's defaults with these changes."""
        own = replica_settings(name)
        least = own.min_replicas if self.min_replicas is None else self.min_replicas
        most = own.max_replicas if self.max_replicas is None else self.max_replicas
        return ReplicaSettings(
            gpus=own.gpus if self.num_gpus is None else self.num_gpus,
            cpus=own.cpus if self.num_cpus is None else self.num_cpus,
            min_replicas=min(least, most) if self.min_replicas is None else least,
            max_replicas=max(least, most),
            idle_seconds=own.idle_seconds,
            start_seconds=own.start_seconds,
            shutdown_seconds=own.shutdown_seconds,
            health_seconds=own.health_seconds,
        )


class RouterArgs(BaseModel):
    """Processes that claim jobs and see them through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1)
    slots: int = Field(default=2, ge=1, le=64)
    """Jobs at once in each of them."""
    lease_seconds: float = Field(default=20.0, gt=1)
    """A job whose process says nothing for so long is taken over."""
    task_cpus: float = Field(default=0.5, ge=0)
    """What one piece of tracking or measuring reserves on a node."""


class ServeArgs(BaseModel):
    """Arguments of `serve_app.app:build`: the same from the command line, a config file and a Kubernetes manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = ""
    """Folder or `s3://bucket/prefix` of inputs, avatars, chunks and results; empty: `server` in the cache folder."""
    store_options: dict[str, Any] = Field(default_factory=dict)
    """For fsspec: endpoint_url and the like."""
    mirror: str = ""
    """Local folder for copies where the store is not one; empty: `mirror` in the cache folder."""
    database: str = ""
    """`postgresql+psycopg://…` or `sqlite:///…`; empty: LIPSYNC_DATABASE, or a file in the store's folder."""
    engines: dict[str, EngineArgs] = Field(default_factory=lambda: {"video_rewrite": EngineArgs(), "portrait": EngineArgs()})
    router: RouterArgs = RouterArgs()
    api: ApiSettings = ApiSettings()
    api_replicas: int = Field(default=1, ge=1)
    log_level: str = "INFO"

    def store_url(self) -> str:
        """Where files live."""
        return self.store or str(cache_folder() / "server")

    def mirror_folder(self) -> Path:
        """Where copies of files live."""
        return Path(self.mirror) if self.mirror else cache_folder() / "mirror"

    def database_url(self) -> str:
        """Where jobs live."""
        if self.database or Secrets().database:
            return self.database or Secrets().database
        folder = self.mirror_folder() if "://" in self.store else Path(self.store_url())
        return f"sqlite:///{folder.absolute() / 'jobs.db'}"
