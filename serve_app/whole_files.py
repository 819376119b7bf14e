"""Files and folders that appear whole or not at all: written aside, on disk, then moved to their place."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from deployments.aside import aside, part_of, sync
from deployments.errors import OutputError

MARKER = "whole.marker"  # written last into a stored folder: without it the folder is not there
BLOCK = 1 << 20
FOLDER = ".folder-"  # how names of folders that are not whole begin


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Files below a folder in order, without temporary ones and those of temporary folders."""
    found = [path for path in folder.rglob("*") if not hidden(path.relative_to(folder)) and path.name != MARKER]
    return sorted(path for path in found if path.is_file())


def hidden(path: PurePath) -> bool:
    """Whether it is, or lies in, something that is not whole yet."""
    return any(part.startswith(".") for part in path.parts)


def age_of(path: Path) -> float | None:
    """Seconds since something was written there; None if nothing is."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return None


class folder_aside:
    """The same for a folder; `replaces()`: what is at the place already goes, else it stays and the new one goes."""

    def __init__(self, place: Path, replaces: Callable[[], bool]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        self._place, self._replaces = place, replaces
        self._part = new_folder(place.parent)

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if kind is None:
                self._settle()
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def _settle(self) -> None:
        try:
            os.rename(self._part, self._place)
        except OSError:  # a folder with files is there
            if self._replaces():
                old = new_folder(self._place.parent)
                with suppress(FileNotFoundError):
                    os.rename(self._place, old)
                os.rename(self._part, self._place)
                shutil.rmtree(old, ignore_errors=True)
            elif not self._place.is_dir():
                raise


def new_folder(parent: Path) -> Path:
    """An empty one that is not whole."""
    folder = parent / f"{FOLDER}{uuid.uuid4().hex}"
    folder.mkdir()
    return folder


def keep_whole(path: Path) -> None:
    """Make sure of a file that was written in its place. Raises OutputError."""
    try:
        sync(path)
        sync(path.parent)
    except OSError as error:
        raise OutputError(f"expected a file to keep at {path}, got: {error}") from error


def drop_old(place: Path, older_than: float) -> bool:
    """Delete a file unless it is young; True if it went. Safe against a writer that touches it this moment.

    The file is taken away first and looked at then: whoever comes later finds none and writes it again.
    """
    taken = part_of(place)
    try:
        os.rename(place, taken)
    except FileNotFoundError:
        return False
    if old := (age_of(taken) or 0.0) > older_than:
        taken.unlink()
        return old
    with suppress(FileExistsError):  # then a writer has put an equal one there
        os.link(taken, place)
    taken.unlink()
    return False


def copy_whole(path: Path, place: Path) -> None:
    """Copy a file, on disk before it appears. Raises OutputError."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with aside(place, durable=True) as part, path.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise OutputError(f"expected to copy {path} to {place}, got: {error}; check space and rights") from error


def copy_folder_whole(folder: Path, place: Path) -> None:
    """Copy a folder's files; they appear together. Raises OutputError."""
    try:
        with folder_aside(place, replaces=lambda: True) as part:
            for path in files_below(folder):
                copy_whole(path, part / path.relative_to(folder))
    except OSError as error:
        raise OutputError(f"expected room and write access at {place.parent}, got: {error}") from error
