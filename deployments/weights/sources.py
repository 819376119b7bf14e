"""How the bytes of one model file are brought from one source into one local file.

Every function writes at most `limit` bytes and raises `SourceError` with a reason a person can act on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlparse

from deployments.settings import hub_endpoint

TIMEOUT_SECONDS = 20.0
PIP_TIMEOUT_SECONDS = 300.0
BLOCK = 1 << 20


class SourceError(Exception):
    """One source could not give the file; the next one is tried."""


def bring(source: str, out: Path, limit: int) -> None:
    """Copy the file that `source` names to `out`. Raises SourceError."""
    kind, _, rest = source.partition(":")
    if kind in ("https", "http"):
        _from_web(source, out, limit)
    elif kind == "hf":
        _from_web(_hub_address(rest), out, limit)
    elif kind == "s3":
        _from_web(_bucket_address(source), out, limit)
    elif kind == "file":
        _from_disk(Path(unquote(urlparse(source).path)), out, limit)
    elif kind == "pypi":
        _from_wheel(rest, out, limit)
    else:
        raise SourceError(f"unknown kind {kind!r}; known: https, hf, s3, file, pypi")


def copy_bounded(stream: BinaryIO, out: Path, limit: int) -> None:
    """Copy a stream to a file, at most `limit` bytes. Raises SourceError when there are more."""
    done = 0
    with out.open("wb") as file:
        while block := stream.read(BLOCK):
            done += len(block)
            if done > limit:
                raise SourceError(f"expected at most {limit} bytes, got more")
            file.write(block)


def _from_web(address: str, out: Path, limit: int) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "lipsync-serve"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            copy_bounded(answer, out, limit)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise SourceError(str(error)) from error


def _from_disk(path: Path, out: Path, limit: int) -> None:
    try:
        with path.open("rb") as file:
            copy_bounded(file, out, limit)
    except OSError as error:
        raise SourceError(f"{error.strerror}: {path}") from error


def _hub_address(rest: str) -> str:
    parts = rest.split("/", 2)
    if len(parts) != 3:
        raise SourceError(f"expected hf:owner/repo/file, got hf:{rest}")
    owner, repo, file = parts
    return f"{hub_endpoint()}/{owner}/{repo}/resolve/main/{file}"


def _bucket_address(source: str) -> str:
    """Public buckets only: a private one needs credentials, and those belong to the user's own mirror."""
    parts = urlparse(source)
    return f"https://{parts.netloc}.s3.amazonaws.com{parts.path}"


def _from_wheel(rest: str, out: Path, limit: int) -> None:
    package, _, member = rest.partition("!")
    if not member or package.startswith("-"):
        raise SourceError(f"expected pypi:package==version!path/in/wheel, got pypi:{rest}")
    with tempfile.TemporaryDirectory(prefix="lipsync-wheel-") as folder:
        wheel = _download_wheel(package, Path(folder))
        extract_member(wheel, member, out, limit)


def _download_wheel(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "-d", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"pip download: {error}") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise SourceError(f"pip download: {last}")
    return wheels[0]


def extract_member(archive: Path, member: str, out: Path, limit: int) -> None:
    """Copy one member of a zip to `out`. The member's name chooses what is read, never where it is written."""
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as stream:
            copy_bounded(stream, out, limit)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError) as error:
        raise SourceError(f"{archive.name}: {error}") from error
