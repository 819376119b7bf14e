"""Descriptors between machines: a task's files are named by their keys in the store, never by a machine's paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from deployments.errors import RenderError
from deployments.worker import ChunkTask, FitTask, ReportTask

MARK = "@store"
Value = TypeVar("Value")


class Store(Protocol):
    """What a worker needs of the media store: local copies of inputs, and a way back for products."""

    root: Path

    def fetch(self, key: str) -> Path:
        """Local file of a key."""
        ...

    def fetch_folder(self, key: str) -> Path:
        """Local folder of a key."""
        ...

    def put(self, path: Path, key: str) -> None:
        """Keep a file under a key."""
        ...

    def put_folder(self, folder: Path, key: str) -> None:
        """Keep a folder under a key."""
        ...


def pack(value: Value, root: Path) -> Value:
    """The same record with every path below `root` replaced by its key. Raises RenderError for a path elsewhere."""

    def to_key(path: Path) -> Path:
        if not path.is_relative_to(root):
            raise RenderError(f"expected every file of a job below {root}, got {path}")
        return Path(MARK) / path.relative_to(root)

    return _each_path(value, to_key)


def unpack(value: Value, root: Path) -> Value:
    """What `pack` made, for a machine whose copies lie below `root`."""

    def to_path(path: Path) -> Path:
        if path.parts[:1] != (MARK,) or ".." in path.parts:
            raise RenderError(f"expected a key of the store, got {path}")
        return root.joinpath(*path.parts[1:])

    return _each_path(value, to_path)


def _each_path(value: Any, change: Callable[[Path], Path]) -> Any:
    if isinstance(value, Path):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _each_path(getattr(value, f.name), change) for f in fields(value) if f.init}
        return replace(value, **changed)
    if isinstance(value, (list, tuple)):
        return type(value)(_each_path(item, change) for item in value)
    return value


def key_of(path: Path, store: Store) -> str:
    """Key of a local path."""
    return PurePosixPath(path.relative_to(store.root)).as_posix()


def bring(task: Any, store: Store) -> None:
    """Local copies of all that a task reads. Where the store is a folder of this machine, nothing is copied."""
    files, folders = reads(task)
    for path in files:
        store.fetch(key_of(path, store))
    for folder in folders:
        store.fetch_folder(key_of(folder, store))
    for path in makes(task):
        path.parent.mkdir(parents=True, exist_ok=True)


def give(task: Any, store: Store) -> None:
    """What a task made, into the store."""
    for path in makes(task):
        if path.is_dir():
            store.put_folder(path, key_of(path, store))
        elif path.is_file():
            store.put(path, key_of(path, store))


def reads(task: Any) -> tuple[list[Path], list[Path]]:
    """Files and folders that a task reads."""
    match task:
        case ChunkTask():
            sound = [task.stream.sound] if task.stream is not None and task.stream.sound is not None else []
            return [task.clip.path, task.motion, task.track, *sound], [task.avatar.path]
        case FitTask():
            return [task.clip.path, task.track], []
        case ReportTask():
            return [task.out, task.clip, task.track], []
        case _:
            clip = getattr(task, "clip", None)
            return ([clip.path] if clip is not None else []), []


def makes(task: Any) -> Sequence[Path]:
    """Files and folders that a task writes."""
    match task:
        case ChunkTask():
            return [task.out, *([task.stream.out] if task.stream is not None else [])]
        case FitTask():
            return [task.out]
        case ReportTask():
            return [task.folder]
        case _:
            return []
