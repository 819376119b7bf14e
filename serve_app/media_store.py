"""Everything that is kept: inputs, avatars, chunks, results, behind one fsspec URL. Keys are relative posix paths.

A local folder is used in place; of anything else a mirror folder holds copies, whole or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from deployments.aside import PARTS, aside
from deployments.errors import InputError, LipSyncError, OptionError, OutputError
from serve_app.whole_files import (
    FOLDER,
    MARKER,
    age_of,
    content_digest,
    copy_folder_whole,
    copy_whole,
    drop_old,
    files_below,
    folder_aside,
    hidden,
    keep_whole,
)

KEY = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9._@-]*|\.[A-Za-z0-9_-][A-Za-z0-9._@-]*")
LONGEST_KEY = 400
LONGEST_PART = 200  # file systems end at 255
ABANDONED_SECONDS = 6 * 3600.0  # a temporary file that nobody wrote to for so long


class MediaMissing(LipSyncError):
    """Nothing is stored under a key."""

    http_status = 404
    code = "media_missing"


def check_key(key: str) -> None:
    """Raise InputError unless the key is a plain relative path."""
    parts = key.split("/")
    plain = all(KEY.fullmatch(part) and len(part) <= LONGEST_PART for part in parts)
    if not plain or len(key) > LONGEST_KEY:
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
        # Listings are never remembered: other machines write here too.
        asked = {} if self.local else {"use_listings_cache": False, **(options or {})}
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._files, base = fsspec.core.url_to_fs(str(self.root) if self.local else url, **asked)
        except (OSError, ValueError, ImportError) as error:
            raise OutputError(f"expected a store at {url}, got: {error}; check the address and the rights") from error
        self._base = base.rstrip("/")

    def put(self, path: Path, key: str) -> None:
        """Keep a file under a key, whole or not at all. Raises OutputError."""
        check_key(key)
        place = self.root / key
        if not self.local:
            self._send(path, key)
        if place != path.absolute():
            copy_whole(path, place)
        elif self.local:
            keep_whole(place)

    def put_content(self, path: Path, room: str, suffix: str) -> str:
        """Keep a file under a key made of its content; an equal file is stored once. Returns the key.

        A file that was there is young again: the collector must not take it before the new row is written.
        """
        try:
            digest = content_digest(path)
        except OSError as error:
            raise OutputError(f"expected a file to keep at {path}, got: {error}") from error
        key = f"{room}/{digest[:2]}/{digest}{suffix}"
        check_key(key)
        place = self.root / key
        if not place.is_file():
            self.put(path, key)
        elif self.local:
            try:
                os.utime(place)
            except FileNotFoundError:  # collected this moment
                self.put(path, key)
        else:
            self._send(path, key)  # nothing else makes an object young
        return key

    def put_folder(self, folder: Path, key: str) -> None:
        """Keep all files below a folder. Raises OutputError."""
        check_key(key)
        place = self.root / key
        files = files_below(folder)
        if not files:
            raise OutputError(f"expected a folder with files to keep at {folder}, got none")
        if not self.local:
            for path in files:
                self._send(path, f"{key}/{path.relative_to(folder).as_posix()}")
            self._ask(lambda: self._files.pipe_file(self._name(f"{key}/{MARKER}"), b"1"))
        if place != folder.absolute():
            copy_folder_whole(folder, place)
        if not self.local:
            (place / MARKER).touch()  # what the mirror has is whole; without it there may be a few of the folder's files

    def fetch(self, key: str) -> Path:
        """Local file of a key. Raises MediaMissing."""
        check_key(key)
        place = self.root / key
        if place.is_file():
            return place
        if self.local or not self.exists(key):
            raise missing(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        with aside(place, durable=True) as part:
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
        if (place / MARKER).is_file():
            return place
        if not self.exists(f"{key}/{MARKER}"):
            raise missing(key)
        with folder_aside(place, replaces=lambda: not (place / MARKER).is_file()) as part:
            for name, _ in list(self.keys(f"{key}/")):
                target = part / name.removeprefix(f"{key}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                self._ask(lambda name=name, target=target: self._files.get_file(self._name(name), str(target)), name)
            (part / MARKER).touch()
        return place

    def open(self, key: str) -> IO[bytes]:
        """For reading, seekable. Raises MediaMissing."""
        check_key(key)
        place = self.root / key
        if place.is_file():
            return place.open("rb")
        if self.local or not self.exists(key):
            raise missing(key)
        opened: IO[bytes] = self._ask(lambda: self._files.open(self._name(key), "rb"), key)
        return opened

    def newest(self, key: str) -> bytes:
        """What the store has now, whatever this machine kept of it. Raises MediaMissing."""
        check_key(key)
        if self.local:
            return self.open(key).read()
        return bytes(self._ask(lambda: self._files.cat_file(self._name(key)), key))

    def size(self, key: str) -> int:
        """Bytes. Raises MediaMissing."""
        check_key(key)
        if self.local:
            try:
                return (self.root / key).stat().st_size
            except OSError:
                raise missing(key) from None
        return int(self._about(key)["size"])

    def exists(self, key: str) -> bool:
        """Whether a file is stored under a key."""
        check_key(key)
        if self.local:
            return (self.root / key).is_file()
        try:
            return bool(self._about(key)["type"] == "file")
        except MediaMissing:
            return False

    def delete(self, key: str) -> None:
        """Forget a file; nothing happens if there is none."""
        check_key(key)
        (self.root / key).unlink(missing_ok=True)
        if not self.local and self.exists(key):
            self._remove(key)

    def delete_folder(self, key: str) -> None:
        """Forget all files below a key."""
        check_key(key)
        shutil.rmtree(self.root / key, ignore_errors=True)
        if self.local:
            return
        self._remove(f"{key}/{MARKER}")  # first: what is half deleted is not there
        for name, _ in list(self.keys(f"{key}/")):
            self._remove(name)

    def keys(self, prefix: str) -> Iterator[tuple[str, float]]:
        """Keys below a folder, with their age in seconds. Temporary files are left out."""
        if self.local:
            for path in files_below(self.root / prefix):
                age = age_of(path)
                if age is not None:  # not deleted this moment
                    yield path.relative_to(self.root).as_posix(), age
            return
        found = self._ask(lambda: self._files.find(self._name(prefix.rstrip("/")), detail=True))
        for name, about in found.items():
            key = PurePosixPath(name).relative_to(self._base)
            if not hidden(key) and key.name != MARKER:
                yield key.as_posix(), age_told(about)

    def collect(self, in_use: set[str], older_than: float, rooms: Sequence[str]) -> int:
        """Delete files of some rooms that nobody refers to and that are old enough; and what crashes left. Returns how many.

        `in_use` holds keys of files, and of folders with all that is below them.
        """
        gone = 0
        for room in rooms:
            for key, age in list(self.keys(f"{room}/")):
                if age > older_than and not used(key, in_use):
                    gone += self._drop(key, older_than)
            if not self.local:
                self._drop_copies(room, in_use, older_than)
        return gone + self._sweep()

    def _drop(self, key: str, older_than: float) -> bool:
        """Delete a file that was old when it was listed, unless it is young by now; True if it went."""
        if self.local:
            return drop_old(self.root / key, older_than)
        if self._age(key) <= older_than:
            return False
        self.delete(key)
        return True

    def _drop_copies(self, room: str, in_use: set[str], older_than: float) -> None:
        """Delete copies of what another machine may have deleted; one that is missed is fetched again."""
        for path in files_below(self.root / room):
            if not used(path.relative_to(self.root).as_posix(), in_use):
                drop_old(path, older_than)

    def _sweep(self) -> int:
        """Delete what was being written when a process died."""
        gone = 0
        for path in [*self.root.rglob(PARTS), *self.root.rglob(f"{FOLDER}*")]:
            if (age_of(path) or 0.0) > ABANDONED_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _age(self, key: str) -> float:
        """Seconds since an object was written; 0 for what is gone."""
        try:
            return age_told(self._about(key))
        except MediaMissing:
            return 0.0

    def _name(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _about(self, key: str) -> dict[str, Any]:
        return dict(self._ask(lambda: self._files.info(self._name(key)), key))

    def _send(self, path: Path, key: str) -> None:
        if not path.is_file():  # the object store's client would say nothing
            raise OutputError(f"expected a file to keep at {path}, got none")
        self._ask(lambda: self._files.put_file(str(path), self._name(key)))

    def _remove(self, key: str) -> None:
        with suppress(MediaMissing):
            self._ask(lambda: self._files.rm_file(self._name(key)), key)

    def _ask(self, call: Any, key: str = "") -> Any:
        """One call of the object store with its errors made typed: MediaMissing where a key is read, else OutputError."""
        try:
            return call()
        except Exception as error:  # clients have errors of their own, not all of them OSErrors
            if isinstance(error, FileNotFoundError) and key:
                raise missing(key) from None
            raise OutputError(f"expected the store to answer, got: {error}; check its address, rights and space") from error


def used(key: str, in_use: set[str]) -> bool:
    """Whether a key, or a folder that it lies in, is in use."""
    return key in in_use or any(str(folder) in in_use for folder in PurePosixPath(key).parents)


def age_told(about: dict[str, Any]) -> float:
    """Seconds since an object was written, by what its store says of it."""
    written: Any = about.get("LastModified") or about.get("mtime")
    now = time.time()
    return now - (written.timestamp() if hasattr(written, "timestamp") else float(written or now))


def missing(key: str) -> MediaMissing:
    """The error for a key without a file."""
    return MediaMissing(f"expected a stored file under {key!r}, got nothing; it may have been deleted")
