"""Everything that is kept: inputs, avatars, chunks, results, behind one fsspec URL. Keys are relative posix paths.

A local folder is used in place; of anything else a mirror folder holds copies, whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from deployments.errors import InputError, LipSyncError, OptionError, OutputError

KEY = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9._@-]*|\.[A-Za-z0-9_-][A-Za-z0-9._@-]*")
LONGEST_KEY = 400
MARKER = "whole.marker"  # written last into a stored folder: without it the folder is not there
BLOCK = 1 << 20
ABANDONED_SECONDS = 6 * 3600.0  # a temporary file that nobody wrote to for so long


class MediaMissing(LipSyncError):
    """Nothing is stored under a key."""

    http_status = 404
    code = "media_missing"


def check_key(key: str) -> None:
    """Raise InputError unless the key is a plain relative path."""
    parts = key.split("/")
    if not key or len(key) > LONGEST_KEY or not all(KEY.fullmatch(part) for part in parts):
        raise InputError(f"expected a key like inputs/ab/name.mp4 of at most {LONGEST_KEY} letters, got {key[:80]!r}")


class MediaStore:
    """A folder (`/path`, `file:///path`) or an object store (`s3://bucket/prefix`) with a mirror on this machine."""

    def __init__(self, url: str, mirror: Path | None = None, options: dict[str, Any] | None = None) -> None:
        scheme = url.partition("://")[0] if "://" in url else "file"
        self.local = scheme == "file"
        if self.local:
            self.root = Path(url.removeprefix("file://")).absolute()
        elif mirror is None:
            raise OptionError(f"expected a mirror folder for the store {url}, got none; name a local folder for copies")
        else:
            self.root = mirror.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._files, base = fsspec.core.url_to_fs(str(self.root) if self.local else url, **(options or {}))
        except (OSError, ValueError, ImportError) as error:
            raise OutputError(f"expected a store at {url}, got: {error}; check the address and the rights") from error
        self._base = base.rstrip("/")

    def put(self, path: Path, key: str) -> None:
        """Keep a file under a key, whole or not at all. Raises OutputError."""
        check_key(key)
        place = self.root / key
        if place != path.absolute():
            _copy_whole(path, place)
        if not self.local:
            self._ask(lambda: self._files.put_file(str(place), self._name(key)))

    def put_content(self, path: Path, room: str, suffix: str) -> str:
        """Keep a file under a key made of its content; an equal file is stored once. Returns the key."""
        digest = content_digest(path)
        key = f"{room}/{digest[:2]}/{digest}{suffix}"
        if self.exists(key):
            if self.local:
                os.utime(self.root / key)  # young again: the collector must not take it before the new row is written
        else:
            self.put(path, key)
        return key

    def put_folder(self, folder: Path, key: str) -> None:
        """Keep all files below a folder. Raises OutputError."""
        check_key(key)
        place = self.root / key
        if place != folder.absolute():
            for path in _files_below(folder):
                _copy_whole(path, place / path.relative_to(folder))
        if self.local:
            return
        for path in _files_below(place):
            name = f"{key}/{path.relative_to(place).as_posix()}"
            self._ask(lambda path=path, name=name: self._files.put_file(str(path), self._name(name)))
        self._ask(lambda: self._files.pipe_file(self._name(f"{key}/{MARKER}"), b"1"))

    def fetch(self, key: str) -> Path:
        """Local file of a key. Raises MediaMissing."""
        check_key(key)
        place = self.root / key
        if place.is_file():
            return place
        if self.local:
            raise missing(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        with _aside(place) as part:
            self._ask(lambda: self._files.get_file(self._name(key), str(part)), key)
        return place

    def fetch_folder(self, key: str) -> Path:
        """Local folder of a key. Raises MediaMissing, also for one that was not stored whole."""
        check_key(key)
        place = self.root / key
        if self.local:
            if not place.is_dir():
                raise missing(key)
            return place
        if place.is_dir() and any(place.iterdir()):
            return place
        if not self.exists(f"{key}/{MARKER}"):
            raise missing(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".fetch-", dir=place.parent))
        try:
            for name, _ in list(self.keys(f"{key}/")):
                target = aside / name.removeprefix(f"{key}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                self._ask(lambda name=name, target=target: self._files.get_file(self._name(name), str(target)), name)
            shutil.rmtree(place, ignore_errors=True)
            os.rename(aside, place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return place

    def open(self, key: str) -> IO[bytes]:
        """For reading, seekable. Raises MediaMissing."""
        check_key(key)
        place = self.root / key
        if place.is_file():
            return place.open("rb")
        if self.local:
            raise missing(key)
        opened: IO[bytes] = self._ask(lambda: self._files.open(self._name(key), "rb"), key)
        return opened

    def size(self, key: str) -> int:
        """Bytes. Raises MediaMissing."""
        check_key(key)
        if self.local:
            try:
                return (self.root / key).stat().st_size
            except OSError:
                raise missing(key) from None
        return int(self._ask(lambda: self._files.size(self._name(key)), key))

    def exists(self, key: str) -> bool:
        """Whether a file is stored under a key."""
        check_key(key)
        return (self.root / key).is_file() if self.local else bool(self._ask(lambda: self._files.isfile(self._name(key))))

    def delete(self, key: str) -> None:
        """Forget a file; nothing happens if there is none."""
        check_key(key)
        (self.root / key).unlink(missing_ok=True)
        if not self.local and self.exists(key):
            self._ask(lambda: self._files.rm_file(self._name(key)))

    def delete_folder(self, key: str) -> None:
        """Forget all files below a key."""
        check_key(key)
        shutil.rmtree(self.root / key, ignore_errors=True)
        if not self.local:
            for name, _ in list(self.keys(f"{key}/")):
                self._ask(lambda name=name: self._files.rm_file(self._name(name)))

    def keys(self, prefix: str) -> Iterator[tuple[str, float]]:
        """Keys below a folder, with their age in seconds. Temporary files are left out."""
        now = time.time()
        if self.local:
            for path in _files_below(self.root / prefix):
                yield path.relative_to(self.root).as_posix(), now - path.stat().st_mtime
            return
        self._files.invalidate_cache()
        found = self._ask(lambda: self._files.find(self._name(prefix.rstrip("/")), detail=True))
        for name, about in found.items():
            written = about.get("LastModified") or about.get("mtime")
            age = now - (written.timestamp() if hasattr(written, "timestamp") else float(written or now))
            yield PurePosixPath(name).relative_to(self._base).as_posix(), age

    def collect(self, in_use: set[str], older_than: float, rooms: Sequence[str]) -> int:
        """Delete files of some rooms that nobody refers to and that are old enough; and what crashes left. Returns how many."""
        gone = 0
        for room in rooms:
            for key, age in list(self.keys(f"{room}/")):
                if key not in in_use and age > older_than:
                    self.delete(key)
                    gone += 1
        for path in self.root.rglob(".part-*"):
            if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _name(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _ask(self, call: Any, key: str = "") -> Any:
        """One call of the object store with its errors made typed."""
        try:
            return call()
        except FileNotFoundError:
            raise missing(key) from None
        except OSError as error:
            raise OutputError(f"expected the store to answer, got: {error}; check its address, rights and space") from error


def missing(key: str) -> MediaMissing:
    """The error for a key without a file."""
    return MediaMissing(f"expected a stored file under {key!r}, got nothing; it may have been deleted")


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_below(folder: Path) -> list[Path]:
    """Files below a folder in order, without temporary ones."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


class _aside:
    """`with _aside(place) as part`: write `part`; it becomes `place` if all went well, else nothing is left."""

    def __init__(self, place: Path) -> None:
        handle, name = tempfile.mkstemp(prefix=".part-", dir=place.parent)
        os.close(handle)
        self._place, self._part = place, Path(name)

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            os.replace(self._part, self._place)
        else:
            self._part.unlink(missing_ok=True)


def _copy_whole(path: Path, place: Path) -> None:
    """Copy a file to a place of the mirror, on disk before it appears. Raises OutputError."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _aside(place) as part, path.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise OutputError(f"expected room and write access at {place.parent}, got: {error}") from error
