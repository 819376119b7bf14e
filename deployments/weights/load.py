"""Read model files that are already here and verified. Nothing is ever unpickled."""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsError

MEMBER_LIMIT = 256 << 20
HEAD = 8  # bytes of a safetensors file that say how long its header is
DTYPES = {"F32": "<f4", "F64": "<f8", "U8": "u1", "I32": "<i4", "I64": "<i8", "BOOL": "?"}
AGAIN = "what was learned is damaged or of another version: fit the avatar again"


def bundle_member(path: Path, name: str, limit: int = MEMBER_LIMIT) -> bytes:
    """Bytes of one member of a zip bundle (a `.task` file is one).

    Raises WeightsError if there is no such member or it unpacks to more than `limit` bytes.
    """
    try:
        with zipfile.ZipFile(path) as bundle, bundle.open(name) as member:
            data = member.read(limit + 1)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise WeightsError(f"expected {path.name} to hold {name!r}: {error}; run `lipsync weights verify`") from error
    if len(data) > limit:
        raise WeightsError(f"{path.name}: expected {name!r} to have at most {limit} bytes, got more")
    return data


def load_tensors(path: Path, *needed: str) -> dict[str, NDArray[Any]]:
    """Arrays of a safetensors file as `{name: array}`, at least those `needed`. Raises WeightsError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"expected a safetensors file at {path}: {error}") from error
    check_keys(path, found, needed)
    return found


def map_tensors(path: Path, *needed: str) -> dict[str, NDArray[Any]]:
    """Like `load_tensors`, as views of the file that nobody can write to: processes share its pages. Raises WeightsError.

    The file must be replaced, never written over, by whoever wants it changed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy"):  # checks all sizes and places against each other
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(HEAD), "little")
            head = json.loads(file.read(size))
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        head.pop("__metadata__", None)
        check_keys(path, head, needed)
        return {name: _view(pages, HEAD + size, facts) for name, facts in head.items()}
    except (SafetensorError, OSError, KeyError) as error:
        raise WeightsError(f"expected a safetensors file of plain numbers at {path}: {error}") from error


def _view(pages: mmap.mmap, start: int, facts: dict[str, Any]) -> NDArray[Any]:
    """One tensor of a file whose numbers begin at `start`."""
    dtype, (first, last) = np.dtype(DTYPES[facts["dtype"]]), facts["data_offsets"]
    return np.frombuffer(pages, dtype, (last - first) // dtype.itemsize, start + first).reshape(facts["shape"])


def load_facts(path: Path, *needed: str) -> dict[str, Any]:
    """A JSON object that has at least the keys `needed`. Raises WeightsError."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"expected a JSON file at {path}, got: {error}; {AGAIN}") from error
    if not isinstance(facts, dict):
        raise WeightsError(f"expected a JSON object at {path}, got {type(facts).__name__}; {AGAIN}")
    check_keys(path, facts, needed)
    return facts


def check_keys(path: Path, found: Container[str], needed: Sequence[str]) -> None:
    """Raises WeightsError that names what a file lacks."""
    missing = [key for key in needed if key not in found]
    if missing:
        raise WeightsError(f"{path}: expected {', '.join(missing)} in it; {AGAIN}")


def map_bytes(path: Path, shape: Sequence[int]) -> NDArray[np.uint8]:
    """A file of bytes as a read-only memory map of `shape`. Raises WeightsError if it has another size."""
    wanted, found = int(np.prod(shape, dtype=np.int64)), path.stat().st_size if path.is_file() else -1
    if found != wanted or wanted <= 0:
        raise WeightsError(f"expected {wanted} bytes at {path}, got {'no file' if found < 0 else found}; {AGAIN}")
    return np.memmap(path, np.uint8, "r", shape=tuple(shape))
