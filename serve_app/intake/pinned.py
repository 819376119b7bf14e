"""HTTP to strangers: connections go to the address that was checked, and all of it ends at one deadline.

The name of the host stays in the Host header and in TLS: only the connection is pinned. There are no proxies, no
cookies, and no redirects are followed here.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from serve_app.intake.address import AddressRule, resolve
from serve_app.intake.errors import UrlFailed, UrlRefused

AGENT = "lipsync-serve"
MAX_URL = 4096


@contextmanager
def ask(
    method: str,
    url: str,
    allow: AddressRule,
    deadline: float,
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
) -> Iterator[httpcore.Response]:
    """The answer to one request, its body not read yet. `deadline` is of `time.monotonic`.

    Raises UrlRefused for an address that may not be asked, UrlFailed for all that goes wrong on the way.
    """
    parts = read_url(url)
    place = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
    sent: dict[bytes | str, bytes | str] = {
        "Host": parts.netloc.decode("ascii"),
        "User-Agent": AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    sent.update(headers or {})
    backend = PinnedBackend(allow, deadline)
    pool = httpcore.ConnectionPool(ssl_context=tls(), max_connections=1, network_backend=backend)
    try:
        with pool, pool.stream(method, place, headers=sent, content=content) as response:
            yield response
    except httpcore.TimeoutException as error:
        raise UrlFailed(f"expected {parts.host} to answer in time, got nothing; try again, or send the file itself") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise UrlFailed(f"expected an answer from {parts.host}, got: {str(error)[:200] or type(error).__name__}") from error


def read_url(url: str) -> httpx.URL:
    """A web address without a user or a password. Raises UrlRefused."""
    try:
        parts = httpx.URL(url) if len(url) <= MAX_URL else httpx.URL("")
    except (httpx.InvalidURL, ValueError):
        parts = httpx.URL("")
    port = parts.port or 80
    if parts.scheme not in ("http", "https") or not parts.host or not 0 < port < 1 << 16:
        raise UrlRefused(f"expected an address like https://host/path, got {url[:80]!r}")
    if parts.userinfo:
        raise UrlRefused("expected an address without a user or a password, got one with; use a signed link instead")
    return parts


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Certificates are verified, always."""
    return httpx.create_ssl_context()


class PinnedBackend(httpcore.NetworkBackend):
    """Opens connections to checked addresses."""

    def __init__(self, allow: AddressRule, deadline: float) -> None:
        self._allow, self._deadline = allow, deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address of the host that answers. All of them are checked before."""
        addresses = resolve(host, port, self._allow, left(self._deadline))
        for number, address in enumerate(addresses):
            try:
                share = left(self._deadline) / (len(addresses) - number)
                stream = self._plain.connect_tcp(address, port, share, local_address, socket_options)
                return TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number + 1 == len(addresses):
                    raise
        raise AssertionError("resolve gives at least one address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never."""
        raise UrlRefused("expected a host, got a socket of this machine")


class TimedStream(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline: a host that drips bytes gains nothing."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes."""
        return self._stream.read(max_bytes, left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All bytes."""
        self._stream.write(buffer, left(self._deadline))

    def close(self) -> None:
        """End it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted and verified for the host's name."""
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """See the base class."""
        return self._stream.get_extra_info(info)


def left(deadline: float) -> float:
    """Seconds until the deadline. Raises httpcore.ReadTimeout after it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout("the time is up")
    return seconds
