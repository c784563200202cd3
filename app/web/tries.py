"""Counts wrong keys by client address: whoever sends too many has to wait."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_WRONG = 20
"""Wrong keys from one address within WITHIN; after that, no key from there is looked at."""
WITHIN = 60.0
MOST_ADDRESSES = 10_000
"""Addresses that a process remembers; the one that was silent longest is forgotten first."""


class WrongTries:
    """The wrong keys of the last minute, in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str | None) -> int:
        """Return the seconds until a key from this address is looked at again; 0 for now."""
        with self._lock:
            times = self._recent(_network(address))
            if len(times) < MOST_WRONG:
                return 0
            return max(1, math.ceil(times[-MOST_WRONG] + WITHIN - self._clock()))

    def note(self, address: str | None) -> None:
        """Count a wrong key from this address."""
        network = _network(address)
        with self._lock:
            times = self._recent(network)
            self._seen[network] = [*times, self._clock()][-MOST_WRONG:]
            self._seen.move_to_end(network)
            if len(self._seen) > MOST_ADDRESSES:
                self._seen.popitem(last=False)

    def _recent(self, network: str) -> list[float]:
        begin = self._clock() - WITHIN
        return [moment for moment in self._seen.get(network, ()) if moment > begin]


def _network(address: str | None) -> str:
    """The network of one client: an IPv6 client has 2^64 addresses or more."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
