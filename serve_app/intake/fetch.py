"""Files behind URLs, streamed to disk: a bounded number of bytes, seconds and redirects."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urljoin

from deployments.errors import OutputError
from serve_app.intake.address import AddressRule
from serve_app.intake.errors import TooLarge, UrlFailed, UrlRefused

if TYPE_CHECKING:
    import httpcore

MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)


def fetch_url(url: str, into: Path, *, limit_bytes: int, allow: AddressRule, timeout: float = 30) -> Path:
    """Download a file to `into`; `timeout` is for all of it. Nothing is left at `into` after an error.

    Raises UrlRefused, UrlFailed or TooLarge.
    """
    from serve_app.intake.pinned import ask

    deadline = time.monotonic() + timeout
    for _ in range(MAX_REDIRECTS + 1):
        with ask("GET", url, allow, deadline) as response:
            if response.status not in REDIRECTS:
                save(response, into, limit_bytes)
                return into
            url = next_url(url, header(response, b"location"))
    raise UrlFailed(f"expected at most {MAX_REDIRECTS} redirects, got more; give the file's own address")


def next_url(url: str, location: str) -> str:
    """Where a redirect leads. Raises UrlFailed for nowhere, UrlRefused for a way out of encryption."""
    try:
        following = urljoin(url, location)
    except ValueError:
        location = following = ""
    if not location:
        raise UrlFailed(
            "expected a redirect to an address like https://host/path, got one to nowhere; give the file's own address"
        )
    if url.lower().startswith("https:") and following.lower().startswith("http:"):
        raise UrlRefused("expected a redirect that stays with https, got one to http; give the file's own address")
    return following


def save(response: httpcore.Response, into: Path, limit: int) -> None:
    """The body as a file, byte by byte as it came."""
    if response.status != 200:
        raise UrlFailed(f"expected a file, got the status {response.status}; does the address need a login, or is it old?")
    encoding = header(response, b"content-encoding") or "identity"
    if encoding.lower() != "identity":  # it was asked for as it is; packed, few bytes can become very many
        raise UrlFailed(f"expected a file as it is, got one packed with {encoding[:20]!r}")
    told = header(response, b"content-length")
    if told.isdigit() and int(told) > limit:
        too_large(limit)
    size = 0
    try:
        with into.open("wb") as file:
            for piece in response.iter_stream():
                size += len(piece)
                if size > limit:
                    too_large(limit)
                file.write(piece)
    except BaseException as error:
        into.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"expected room for a downloaded file, got: {error.strerror}; free some space") from error
        raise


def header(response: httpcore.Response, name: bytes) -> str:
    """A header's value; empty where there is none."""
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "").strip()


def too_large(limit: int) -> NoReturn:
    """The refusal of a file over the cap."""
    raise TooLarge(
        f"expected a file of at most {limit} bytes behind the address, got a larger one; send a shorter or smaller one"
    )
