"""Addresses of other systems: how they may be written, and where they may lead.

Everything that a setting, a person or an answer may name goes through `read_address`; everything
that this service then calls goes through `Reach.resolve`, which is asked again for each connection.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.domain.errors import RetryLater

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK = frozenset(["127.0.0.1", "localhost", "::1"])
LONGEST_HOST = 200
"""Most characters of a host name."""
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"(?:{_LABEL}\.)+[a-z]{{2,63}}")
"""A name with at least one dot, such as a company has; no number in any spelling."""
_LOCAL_NAME = rf"(?:{_LABEL}\.)*[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
_ADDRESS = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LOCAL_NAME}|[0-9]+(?:\.[0-9]+){{3}}|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[\w.~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
PLAIN = "an https:// address (http:// only on 127.0.0.1)"
BARE = "an address without user, query, fragment or odd characters"


class PrivateAddress(RetryLater):
    """A name of another system leads into a private network; nothing was sent there."""


@dataclass(frozen=True)
class Address:
    """An address that is written in the one way that every parser reads alike."""

    scheme: str
    host: str
    """In lower case, without brackets."""
    port: int | None
    path: str


def read_address(text: str) -> Address:
    """Read an address. Raises ValueError with what it must be.

    https, or http on loopback (RFC 9700, 2.6). No user, query, fragment, backslash, percent sign or
    number in an odd spelling: one parser may read another host there than the next one does.
    """
    found = _ADDRESS.fullmatch(text)
    if not found:
        plain = re.match(r"https?://", text, re.IGNORECASE)
        raise ValueError(f"must be {BARE if plain else PLAIN}")
    scheme, host = found["scheme"].lower(), found["host"].strip("[]").lower()
    port = int(found["port"]) if found["port"] else None
    if not _is_fit_host(host) or (port is not None and not 0 < port < 65_536):
        raise ValueError(f"must be {BARE}")
    if scheme == "http" and host not in LOOPBACK:
        raise ValueError(f"must be {PLAIN}")
    return Address(scheme, host, port, found["path"])


def _is_fit_host(host: str) -> bool:
    if len(host) > LONGEST_HOST:
        return False
    if host[0].isdigit() or ":" in host:
        name = re.fullmatch(_LOCAL_NAME, host)
        return bool(name) or _ip(host) is not None
    return True


def _ip(text: str) -> Ip | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def host_of(address: str) -> str | None:
    """Return the host of `https://<host>`, at most with port 443 and a slash; None for anything else.

    A host is never cut out of a longer URL that is then used as it is: another parser may end the
    host at another sign (a backslash, a user name before an @).
    """
    try:
        read = read_address(address)
    except ValueError:
        return None
    bare = read.scheme == "https" and read.port in (None, 443) and read.path in ("", "/")
    return read.host if bare and HOST_NAME.fullmatch(read.host) else None


Resolve = Callable[[str, int], Sequence[str]]


def _system_resolve(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[4][0]) for place in found))


class Reach:
    """Which machines this service may call: public ones, and the networks that the operator names."""

    def __init__(self, resolve: Resolve = _system_resolve) -> None:
        self._resolve = resolve
        self._allowed: tuple[Network, ...] = ()

    def allow(self, networks: Iterable[Network]) -> None:
        """Let calls go into these private networks."""
        self._allowed = tuple(networks)

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the IP addresses of a host, to be used as they are: the next look may differ.

        Raises PrivateAddress if any of them is not public, and OSError if there is none. A host
        that is written as this machine (127.0.0.1) is this machine.
        """
        name = host.strip("[]").rstrip(".").lower()
        found = self._resolve(name, port)
        for text in found:
            ip = _ip(text.partition("%")[0])
            named = name in LOOPBACK
            fits = ip is not None and (
                ip.is_loopback or self._is_allowed(ip) if named else self._may_call(ip)
            )
            if not fits:
                raise PrivateAddress(
                    f"The host {name} leads into a private network, so nothing was sent there. If that"
                    " is meant, name the network in PRIVATE_NETWORKS."
                )
        return found

    def _may_call(self, ip: Ip) -> bool:
        return all(is_public(part) or self._is_allowed(part) for part in _parts(ip))

    def _is_allowed(self, ip: Ip) -> bool:
        return any(ip.version == net.version and ip in net for net in self._allowed)


def _parts(ip: Ip) -> list[Ip]:
    """The address that a packet goes to in the end: the IPv4 address inside an IPv6 one counts."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if ip in _NAT64:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    inside: list[Ip | None] = [ip.sixtofour, *(ip.teredo or ())]
    return [ip, *(part for part in inside if part is not None)]


def is_public(ip: Ip) -> bool:
    """Whether an address belongs to a machine on the internet: none that is private or special."""
    special = ip.is_multicast or ip.is_unspecified or ip.is_loopback or ip.is_link_local
    return ip.is_global and not special and not ip.is_reserved


REACH = Reach()
"""The one of this process; `bootstrap` sets it."""
