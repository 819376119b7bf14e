"""Read model files that are already here and verified. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsError

MEMBER_LIMIT = 256 << 20


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


def load_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays of a safetensors file as `{name: array}`. Raises WeightsError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"expected a safetensors file at {path}: {error}") from error
