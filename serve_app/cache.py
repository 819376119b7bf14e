"""What is kept between runs, addressed by content: tracks, avatars, the chunks of unfinished jobs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from deployments.contracts import Avatar, Track
from deployments.errors import Cancelled, OutputError, WeightsError
from deployments.records import load_track, save_track, write_json

ROOT = Path(__file__).resolve().parents[1]
TRACK_CODE = (
    "deployments/face",
    "deployments/media",
    "deployments/weights",
    "deployments/contracts.py",
    "deployments/motion/lip_space.py",
    "deployments/motion/refine.py",
    "kernels/lucas_kanade",
    "kernels/mesh_warp",
)
CODE = ("deployments", "kernels", "serve_app")
DAY = 86400
ABANDONED_SECONDS = 600
CACHED = "cached.json"  # the last file of an avatar: what it is, and how large its files are


class Cache:
    """One folder. Every entry is written aside and moved into place whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def track(self, key: str, make: Callable[[], Track]) -> tuple[Track, Path]:
        """The track stored under `key`, or a new one; with the file for the workers."""
        path = self.folder / "tracks" / f"{key}.safetensors"
        if path.is_file():
            try:
                return load_track(path), path
            except WeightsError:
                path.unlink()
        save_track(make(), path)
        return load_track(path), path  # its pages are the workers', too

    def avatar(self, key: str, fit: Callable[[Path], Avatar]) -> Avatar:
        """The avatar stored under `key`, or one fitted into a folder aside and moved here; a damaged one is fitted anew.

        What a cancelled fit leaves is kept: the next one begins in the same folder and goes on if its engine can.
        """
        place = self.folder / "avatars" / key
        known = whole_avatar(place)
        if known is not None:
            return known
        place.parent.mkdir(parents=True, exist_ok=True)
        aside, left = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent)), place.with_name(f".{key}.left")
        with suppress(OSError):  # there is none, or another process took it
            os.rename(left, aside)
        try:
            fitted = fit(aside)
            write_json(aside / CACHED, {"engine": fitted.engine, "digest": fitted.digest, "files": sizes(aside)})
            shutil.rmtree(place, ignore_errors=True)
            os.rename(aside, place)
        except (Cancelled, KeyboardInterrupt):
            with suppress(OSError):  # somebody else was cancelled too
                os.rename(aside, left)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Avatar(fitted.engine, place, fitted.digest)

    def job(self, key: str) -> Path:
        """Folder of a job's chunks; those of an interrupted identical job are still in it."""
        folder = self.folder / "jobs" / key
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part.*"):
            with suppress(FileNotFoundError):  # another process may be writing it this moment, or have finished
                if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                    part.unlink()
        return folder

    def drop_job(self, key: str) -> None:
        """Delete a finished job's chunks."""
        shutil.rmtree(self.folder / "jobs" / key, ignore_errors=True)

    def still(self, key: str) -> Path:
        """Folder of chunks in which nothing changes: all jobs of a clip share them."""
        folder = self.folder / "still" / key
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        return folder

    def prune(self, days: int) -> None:
        """Delete jobs and fits that nobody went on with, and unchanged chunks that nobody used, for `days` days."""
        for folder in (path for room in ("jobs/*", "still/*", "avatars/.*") for path in self.folder.glob(room)):
            if time.time() - folder.stat().st_mtime > days * DAY:
                shutil.rmtree(folder, ignore_errors=True)


def whole_avatar(place: Path) -> Avatar | None:
    """The finished avatar in a folder; None where there is none, or a file of it is gone or has another size."""
    try:
        known = json.loads((place / CACHED).read_text(encoding="utf-8"))
        whole = known["files"].items() <= sizes(place).items()
        return Avatar(known["engine"], place, known["digest"]) if whole else None
    except (OSError, ValueError, KeyError):
        return None


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file of an avatar."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CACHED)
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def open_cache(folder: Path) -> Cache:
    """The cache at `folder`. Raises OutputError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Cache(folder)
    except OSError as error:
        raise OutputError(f"expected a writable cache folder, got {error}; set LIPSYNC_CACHE to one") from error


def digest_of(*facts: Any) -> str:
    """Short hex digest of JSON-able facts."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@lru_cache(maxsize=8)
def code_version(rooms: tuple[str, ...] = CODE) -> str:
    """Digest of the source and data files of some rooms: another program makes other results."""
    digest = hashlib.sha256()
    for room in rooms:
        place = ROOT / room
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        for path in files:
            if path.is_file() and path.suffix in (".py", ".toml", ".safetensors", ".npz", ".json"):
                digest.update(str(path.relative_to(ROOT)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
