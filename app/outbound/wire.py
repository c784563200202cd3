"""Connections to the outside: they end at the call's deadline and send only while the lease holds.

Every outgoing call of this service uses one of these two: `watch` for a urllib3 pool, and
BoundedTransport for a requests session.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)

from app.domain.rate_limits import RateLimiter
from app.outbound.addresses import REACH
from app.outbound.deadline import current_call
from app.outbound.reply import MOST_BYTES, read_body
from app.outbound.tracing import pattern_of, span

UNHEARD_SECONDS = 10
"""Data that the other end has not confirmed for so long are given up: less than a lease lasts."""
PIECE = 16 * 1024
"""Bytes sent between two checks: a CRM does nothing before it has the end of a request."""


def watch(pools: PoolManager, gate: RateLimiter) -> None:
    """Have connections ask the gate before every piece of a request, and raise what it raises.

    The gate's check while waiting for an allowance is some milliseconds older. A process that is
    stopped in this gap, and continues after its lease has passed on, would duplicate a record here.
    """
    plain = {
        "ConnectionCls": _watched(HTTPConnection, gate),
        "urlopen": _traced(HTTPConnectionPool),
    }
    secure = {
        "ConnectionCls": _watched(HTTPSConnection, gate),
        "urlopen": _traced(HTTPSConnectionPool),
    }
    pools.pool_classes_by_scheme = {
        "http": type("WatchedPool", (HTTPConnectionPool,), plain),
        "https": type("WatchedSecurePool", (HTTPSConnectionPool,), secure),
    }


def _watched(kind: type[HTTPConnection], gate: RateLimiter) -> type[HTTPConnection]:
    def new_connection(self: Any) -> socket.socket:
        # A second handle on the same socket: TLS takes over the first one.
        line = _connect(kind, self)
        _forget_late_data(line)
        self.line = line.dup()
        _use(self)
        return line

    def close(self: Any) -> None:
        kind.close(self)
        line, self.line = getattr(self, "line", None), None
        if line is not None:
            line.close()

    def send(self: Any, data: bytes) -> None:
        if self.sock is None:
            # Connecting takes long, so it comes before the check.
            self.connect()
        _use(self)
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            gate.ensure_lease()
            kind.send(self, piece)

    methods = {"_new_conn": new_connection, "close": close, "send": send}
    return type(f"Watched{kind.__name__}", (kind,), methods)


def _forget_late_data(line: socket.socket) -> None:
    # The same as `_drop_unsent` of app/outbound/deadline.py does, for a process that is killed before
    # its call has ended. https://man7.org/linux/man-pages/man7/tcp.7.html
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_SECONDS * 1000)


def _connect(kind: type[HTTPConnection], connection: Any) -> socket.socket:
    """Connect to an address of the host that this service may call, and to no other.

    Behind a proxy, the proxy resolves the name; its own address is the operator's choice.
    """
    if connection.proxy:
        return kind._new_conn(connection)
    name, failure = connection._dns_host, None
    try:
        for place in _places(connection):
            connection._dns_host = place
            try:
                return kind._new_conn(connection)
            except HTTPError as error:
                failure = error
    finally:
        connection._dns_host = name
    raise failure or NewConnectionError(connection, "the host has no address")


def _places(connection: Any) -> Sequence[str]:
    name = connection._dns_host
    try:
        return REACH.resolve(name, connection.port)
    except UnicodeError:
        raise LocationParseError(f"{name!r}, label empty or too long") from None
    except socket.gaierror as error:
        raise NameResolutionError(name, connection, error) from error


def _traced(kind: type[HTTPConnectionPool]) -> Any:
    def urlopen(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        with span("call", http__request__method=method, server__address=self.host) as current:
            answer = kind.urlopen(self, method, url, *args, **kwargs)
            if current is not None:
                pattern = pattern_of(urlsplit(url).path)
                current.update_name(f"{method} {self.host}{pattern}")
                current.set_attribute("url.template", pattern)
                current.set_attribute("http.response.status_code", answer.status)
            return answer

    return urlopen


def _use(connection: Any) -> None:
    call, line = current_call(), getattr(connection, "line", None)
    if call and line is not None:
        call.use(line)


class BoundedTransport(HTTPAdapter):
    """The transport of a requests session: asks a gate and limits how much of an answer is read."""

    def __init__(
        self, gate: RateLimiter | None = None, at_once: int = 1, most_bytes: int = MOST_BYTES
    ) -> None:
        """`at_once`: how many threads call together; `most_bytes`: of an answer, decompressed."""
        self._gate = gate or RateLimiter()
        self._most_bytes = most_bytes
        self._surroundings: dict[str, dict[str, Any]] = {}
        super().__init__(pool_maxsize=at_once)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        watch(self.poolmanager, self._gate)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        """Make or return the pool for a proxy."""
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        watch(manager, self._gate)
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Send a request and read the whole answer. Raises Unreadable if it is too large.

        No redirect is followed. `Location` is removed: requests fails on an invalid address.
        """
        kwargs |= self._settings_for(urlsplit(str(request.url)))
        response = super().send(request, *args, **kwargs)
        response.headers.pop("Location", None)
        try:
            response._content = read_body(response.raw, self._most_bytes)
            response._content_consumed = True  # type: ignore[attr-defined]
        except BaseException:
            response.close()
            raise
        return response

    def _settings_for(self, url: SplitResult) -> dict[str, Any]:
        """The proxies and certificates that the environment names for a host, read once.

        Requests would read the whole environment for every call, which costs more than the call.
        """
        host = f"{url.scheme}://{url.netloc}"
        if host not in self._surroundings:
            with requests.Session() as session:
                found = session.merge_environment_settings(f"{host}/", {}, None, None, None)
            self._surroundings[host] = {name: found[name] for name in ("proxies", "verify")}
        return self._surroundings[host]


def bounded_session(
    gate: RateLimiter | None = None, at_once: int = 1, most_bytes: int = MOST_BYTES
) -> requests.Session:
    """A requests session within these limits, which takes nothing from the environment's netrc."""
    session = requests.Session()
    bound(session, gate, at_once, most_bytes)
    return session


def bound(
    session: requests.Session,
    gate: RateLimiter | None = None,
    at_once: int = 1,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Give a session these limits."""
    session.trust_env = False
    session.headers["Accept-Encoding"] = "gzip, deflate"
    for scheme in ("https://", "http://"):
        session.mount(scheme, BoundedTransport(gate, at_once, most_bytes))
