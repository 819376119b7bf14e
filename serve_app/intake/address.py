"""Which hosts may be asked: a name is resolved once, and every address behind it must be on the open internet."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from serve_app.intake.errors import UrlFailed, UrlRefused

Address = IPv4Address | IPv6Address
GLOBAL_V6 = ip_network("2000::/3")
# Ways to write an IPv4 address as IPv6: what looks global may lead inside (RFC 6052, 3056, 4380), or an old relay.
TUNNELS = tuple(ip_network(one) for one in ("2001::/23", "2002::/16", "192.88.99.0/24"))
METADATA = ip_address("fd00:ec2::254")  # a cloud's keys; its IPv4 twin 169.254.169.254 is link-local
NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class AddressRule:
    """Global addresses are always allowed; `private` ones and loopback, or those of `networks`, only where asked.

    Never without being named in `networks`: link-local addresses (cloud metadata lives there), multicast, 0.0.0.0.
    """

    private: bool = False
    networks: tuple[str, ...] = ()

    def allows(self, address: str) -> bool:
        """Whether a connection to this address may be made."""
        ip = ip_address(address)
        if any(ip in ip_network(one) for one in self.networks):
            return True
        if is_global(ip):
            return True
        shared = ip.version == 4 and ip in ip_network("100.64.0.0/10")
        odd = ip.is_unspecified or ip.is_multicast or ip.is_link_local or (ip.is_reserved and not ip.is_loopback)
        return self.private and (ip.is_private or shared) and not odd and ip != METADATA


def is_global(ip: Address) -> bool:
    """Whether an address is one host's on the open internet, and cannot mean another one."""
    if any(ip in tunnel for tunnel in TUNNELS if tunnel.version == ip.version):
        return False
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    return ip.version == 4 or ip in GLOBAL_V6


def resolve(host: str, port: int, rule: AddressRule, timeout: float) -> list[str]:
    """All addresses of a host. Raises UrlRefused if any one of them is not allowed, UrlFailed if there is none."""
    check_spelling(host)
    found = list(dict.fromkeys(look_up(host, port, timeout)))
    if not found:
        raise UrlFailed(f"expected a host that can be found, got {host!r}; check its name")
    for address in found:
        if "%" in address or not rule.allows(address):
            raise UrlRefused(
                f"expected a host on the open internet, got {host!r}, whose address is not; "
                "send the file itself, or let the operator allow such addresses"
            )
    return found


def check_spelling(host: str) -> None:
    """Refuse numbers that programs read in different ways: 2130706433, 0177.0.0.1, 0x7f.1."""
    last = host.rstrip(".").rpartition(".")[2]
    if not NUMBER.fullmatch(last):
        return
    try:
        ip_address(host)
    except ValueError:
        raise UrlRefused(f"expected a host's name or a plain address like 203.0.113.7, got {host!r}") from None


def look_up(host: str, port: int, timeout: float) -> list[str]:
    """The system's resolver, in a thread: it knows no time limit of its own."""
    found: list[str] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: a label that is too long
            return
        found.extend(str(row[4][0]) for row in rows)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(max(timeout, 0))
    return list(found)
