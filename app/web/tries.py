"""Counts wrong keys and passwords, by client address and by account: too many make one wait."""

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


MOST_WRONG_ACCOUNT = 10
"""Wrong passwords for one account within WITHIN, from browsers that are not known for it."""


class WrongTries:
    """The wrong tries of the last minute, in this process: by address, or by another name."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        most: int = MOST_WRONG,
        name: Callable[[str | None], str] | None = None,
    ) -> None:
        self._clock, self._most, self._name = clock, most, name or _network
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str | None) -> int:
        """Return the seconds until a try from this address is looked at again; 0 for now."""
        with self._lock:
            times = self._recent(self._name(address))
            if len(times) < self._most:
                return 0
            return max(1, math.ceil(times[-self._most] + WITHIN - self._clock()))

    def note(self, address: str | None) -> None:
        """Count a wrong try from this address."""
        network = self._name(address)
        with self._lock:
            times = self._recent(network)
            self._seen[network] = [*times, self._clock()][-self._most :]
            self._seen.move_to_end(network)
            if len(self._seen) > MOST_ADDRESSES:
                self._seen.popitem(last=False)

    def take_back(self, address: str | None) -> None:
        """Count the last try from this address no more: it was right."""
        with self._lock:
            times = self._seen.get(self._name(address))
            if times:
                times.pop()

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
