"""Files that appear whole or not at all: written beside their place under another name, then moved there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTS = ".*.part*"  # pattern of their names: what a process leaves that is killed while it writes


def part_of(place: Path) -> Path:
    """A name beside a place that nobody else has. It keeps the suffix: some writers choose the format by it."""
    return place.with_name(f".{place.stem}.{uuid.uuid4().hex}.part{place.suffix}")


@contextmanager
def aside(place: Path, *, durable: bool = False) -> Iterator[Path]:
    """`with aside(place) as part`: write `part`; it becomes `place` if all went well, else nothing is left.

    `durable`: the name survives a power cut too (the writer sees to the bytes). Raises OSError.
    """
    part = part_of(place)
    try:
        yield part
        os.replace(part, place)
        if durable:
            sync(place.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
