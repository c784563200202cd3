"""The limits of the CRMs: calls in a time, the length of a text."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_EMAIL = 80
"""The longest address that the sandboxes accept, as an admin's rule might set it."""


def java_length(text: str) -> int:
    """Return a text's length in UTF-16 units, as Java and so HubSpot and Salesforce count it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _window_clock() -> float:
    return Window.clock()


class Window:
    """A rate limit: a number of calls in a number of seconds."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, limit: int, seconds: float, now: Callable[[], float] | None = None) -> None:
        self.limit, self.seconds = limit, seconds
        self._now = now or _window_clock
        self._times: list[float] = []

    def take(self) -> bool:
        """Count a call; return False if the limit is reached."""
        now = self._now()
        self._times = [moment for moment in self._times if now - moment < self.seconds]
        if len(self._times) >= self.limit:
            return False
        self._times.append(now)
        return True

    @property
    def left(self) -> int:
        """Return the calls left in this window."""
        return max(0, self.limit - len(self._times))
