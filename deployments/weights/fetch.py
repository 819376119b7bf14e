"""Fetch, verify and cache model files: `weights_path(name)` is all that other rooms need."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from deployments.errors import WeightsError
from deployments.settings import cache_folder, weights_mirror
from deployments.weights.manifest import WeightsFile, find, read_manifest
from deployments.weights.sources import BLOCK, SourceError, bring


def weights_folder() -> Path:
    """Where verified model files are kept."""
    return cache_folder() / "weights"


def weights_path(name: str, manifest: dict[str, WeightsFile] | None = None) -> Path:
    """Path of the model file `name`: from the cache, or fetched and verified first.

    Raises WeightsError for an unknown name, or naming every source that was tried and why it failed.
    """
    entry = find(name, manifest or read_manifest())
    path = cached_path(entry)
    # The name carries the checksum and the file is moved there only after verification, so that the size is
    # enough to see that nobody truncated it since; `lipsync weights verify` reads every byte.
    if not (path.is_file() and path.stat().st_size == entry.size):
        _fetch(entry, path)
    return path


def verify(entry: WeightsFile, path: Path) -> str | None:
    """Why the file at `path` is not the one in the manifest, or None if it is."""
    if not path.is_file():
        return "not here"
    if path.stat().st_size != entry.size:
        return f"expected {entry.size} bytes, got {path.stat().st_size}"
    found = file_digest(path)
    return None if found == entry.sha256 else f"expected sha256 {entry.sha256}, got {found}"


def cached_path(entry: WeightsFile) -> Path:
    """Where the cache keeps (or would keep) a file."""
    return weights_folder() / f"{entry.sha256[:16]}-{entry.name}"


def file_digest(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def all_sources(entry: WeightsFile) -> tuple[str, ...]:
    """The sources of a file in the order they are tried: the user's mirror comes first."""
    mirror = weights_mirror()
    if mirror is None:
        return entry.sources
    address = f"{mirror.rstrip('/')}/{entry.name}"
    known = mirror.startswith(("http://", "https://", "s3://", "hf:", "file:"))
    return (address if known else f"file:{Path(address).expanduser().resolve()}", *entry.sources)


def _fetch(entry: WeightsFile, path: Path) -> None:
    failures = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
            arriving = Path(folder) / "file"
            for source in all_sources(entry):
                reason = _try_source(source, entry, arriving)
                if reason is None:
                    os.replace(arriving, path)
                    return
                failures.append(f"  {source}: {reason}")
    except OSError as error:
        raise WeightsError(f"expected a writable cache folder, got {error}; set LIPSYNC_CACHE to one") from error
    tried = "\n".join(failures)
    raise WeightsError(
        f"{entry.name} could not be fetched. Tried:\n{tried}\n"
        "Put the file into a folder and set LIPSYNC_WEIGHTS_MIRROR to that folder (or to a URL that serves it)."
    )


def _try_source(source: str, entry: WeightsFile, arriving: Path) -> str | None:
    try:
        bring(source, arriving, limit=entry.size)
    except SourceError as error:
        return str(error)
    return verify(entry, arriving)
