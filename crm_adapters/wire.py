"""The last look before a request goes out: none of it leaves once the call is not ours to make."""

from __future__ import annotations

from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from app.domain.allowance import Gate

PIECE = 16 * 1024
"""Bytes that go out between two looks: a CRM does nothing before it has the last of a request."""


def watch(pools: PoolManager, gate: Gate) -> None:
    """Let connections ask the gate right before every piece of a request, and raise what it raises.

    The look at the gate that waits for an allowance is some milliseconds older. A process that is
    stopped in these, and woken after its lease has passed on, would double a record here.
    """
    plain = {"ConnectionCls": _watched(HTTPConnection, gate)}
    secure = {"ConnectionCls": _watched(HTTPSConnection, gate)}
    pools.pool_classes_by_scheme = {
        "http": type("WatchedPool", (HTTPConnectionPool,), plain),
        "https": type("WatchedSecurePool", (HTTPSConnectionPool,), secure),
    }


def _watched(kind: type[HTTPConnection], gate: Gate) -> type[HTTPConnection]:
    def send(self: HTTPConnection, data: bytes) -> None:
        if self.sock is None:
            # What takes long comes before the look.
            self.connect()
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            gate.may_go_on()
            kind.send(self, piece)

    return type(f"Watched{kind.__name__}", (kind,), {"send": send})


class WatchedTransport(HTTPAdapter):
    """The transport of a requests session whose connections ask a gate."""

    def __init__(self, gate: Gate, at_once: int = 1) -> None:
        """`at_once`: how many threads call together."""
        self._gate = gate
        super().__init__(pool_maxsize=at_once)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        watch(self.poolmanager, self._gate)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        """Make, or give, the pool for a proxy."""
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        watch(manager, self._gate)
        return manager
