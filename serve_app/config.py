"""Settings at the door: the only reader of environment variables in this layer."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """`LIPSYNC_WORKERS`, `LIPSYNC_KEEP_DAYS`. The cache folder is `deployments.settings.cache_folder`."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_", frozen=True)

    workers: int | None = Field(default=None, ge=1, le=1024)
    """Worker processes; default: one per core."""

    keep_days: int = Field(default=14, ge=1)
    """Unfinished jobs older than this are deleted from the cache."""


class Secrets(BaseSettings):
    """`LIPSYNC_CALLBACK_SECRET`, `LIPSYNC_DATABASE`, `LIPSYNC_API_KEY`: what must not stand in a shared file."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_", frozen=True)

    callback_secret: str = ""
    database: str = ""
    api_key: str = ""
    """The caller's own, for `lipsync sync --server`."""
