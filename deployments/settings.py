"""The few environment variables that worker code needs, read in this one file."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder for models, tracks, avatars and unfinished jobs (`LIPSYNC_CACHE`, default `~/.cache/lipsync`)."""
    asked = os.environ.get("LIPSYNC_CACHE", "")
    return Path(asked).expanduser() if asked else Path.home() / ".cache" / "lipsync"


def voices_folder() -> Path:
    """Folder of the voices that the operator lists, NAME.onnx and NAME.onnx.json (`LIPSYNC_VOICES`, by default in the cache)."""
    asked = os.environ.get("LIPSYNC_VOICES", "")
    return Path(asked).expanduser() if asked else cache_folder() / "voices"


def weights_mirror() -> str | None:
    """Folder or URL that is asked first for every model file (`LIPSYNC_WEIGHTS_MIRROR`), or None."""
    return os.environ.get("LIPSYNC_WEIGHTS_MIRROR") or None


def hub_endpoint() -> str:
    """Host of `hf:` sources (`HF_ENDPOINT`, the variable that the hub's own client reads)."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def liveportrait_folder() -> Path | None:
    """Folder of LivePortrait's and JoyVASA's weights that the operator brought, or None.

    `LIPSYNC_LIVEPORTRAIT`, or else `weights/liveportrait` in the cache folder where that is there.
    """
    asked = os.environ.get("LIPSYNC_LIVEPORTRAIT", "")
    usual = cache_folder() / "weights" / "liveportrait"
    return Path(asked).expanduser() if asked else usual if usual.is_dir() else None


def inside_ray_job() -> bool:
    """Whether this process was started by `ray job submit`, which tells it where its cluster is (`RAY_ADDRESS`)."""
    return bool(os.environ.get("RAY_ADDRESS"))
