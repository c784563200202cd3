"""What an API allows of calls, and the gate that every call passes before it is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

CHECK_EVERY = 0.5
"""Seconds between two looks, while waiting, at whether a call is still to be made."""


class NotOurs(Exception):
    """A call must not be made any more: the lease has passed on, or the process has to end."""


class MakeWay(NotOurs):
    """A call is for later, since others wait: it was not made, nor any part of it."""


@dataclass(frozen=True)
class RateLimit:
    """So many calls within any so many seconds."""

    name: str
    calls: int
    seconds: float
    told: bool = True
    """Whether answers tell of it in their headers, which then correct the figures."""


@dataclass(frozen=True)
class LimitHeaders:
    """What an answer's headers say of an allowance."""

    left: int
    most: int | None = None
    """Calls allowed; None where it is not told."""


class RateLimiter:
    """Lets every call through at once. The service puts one in its place that keeps allowances."""

    def __init__(self) -> None:
        self.backlog = False
        """Whether what is being done is old news."""
        self.ensure_lease: Callable[[], None] = lambda: None
        """Called before each call and while waiting; what it raises ends the wait."""
        self.make_way: Callable[[], None] = lambda: None
        """Called before a call is begun, never while it may be under way. Raises MakeWay."""

    def enter(self, allowance: RateLimit) -> None:
        """Return when a call may be made.

        Raises RateLimited with the seconds to wait where that is long.
        """
        self.look()

    def look(self) -> None:
        """Look whether a call is still to be made, and to be made now."""
        self.ensure_lease()
        self.make_way()

    def rest(self, seconds: float, look: Callable[[], None] | None = None) -> None:
        """Wait, and look now and then, by `look` or else whether the call is still to be made."""
        look = look or self.ensure_lease
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            look()
            time.sleep(min(left, CHECK_EVERY))
        look()

    def refused(self, allowance: RateLimit) -> None:
        """Take in that the CRM has refused a call for there were too many."""

    def learn(
        self, allowance: RateLimit, short: LimitHeaders | None, day: LimitHeaders | None
    ) -> None:
        """Take in what an answer told of a short window and of a day's budget."""
