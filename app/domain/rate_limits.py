"""The rate limits of an API, and the gate that every call passes first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

CHECK_EVERY = 0.5
"""Seconds between two checks, while waiting, whether the call may still be made."""


class NotOurs(Exception):
    """A call must not be made any more: the lease has passed on, or the process has to end."""


class MakeWay(NotOurs):
    """A call has to wait because others come first: no part of it was made."""


@dataclass(frozen=True)
class RateLimit:
    """A number of calls within any period of a number of seconds."""

    name: str
    calls: int
    seconds: float
    told: bool = True
    """Whether the headers of answers report this limit and correct its numbers."""


@dataclass(frozen=True)
class LimitHeaders:
    """The state of a limit in an answer's headers."""

    left: int
    most: int | None = None
    """Calls allowed; None if the headers do not say."""


class RateLimiter:
    """Lets every call through at once. The service replaces it by one that keeps the limits."""

    def __init__(self) -> None:
        self.backlog = False
        """Whether the current work belongs to the backlog."""
        self.ensure_lease: Callable[[], None] = lambda: None
        """Called before each call and while waiting; an error that it raises ends the wait."""
        self.make_way: Callable[[], None] = lambda: None
        """Called before a call starts, never while it may be under way. Raises MakeWay."""

    def enter(self, allowance: RateLimit) -> None:
        """Return as soon as a call may be made.

        Raises RateLimited with the seconds to wait if the wait is long.
        """
        self.look()

    def look(self) -> None:
        """Check that a call may still be made, and may be made now."""
        self.ensure_lease()
        self.make_way()

    def rest(self, seconds: float, look: Callable[[], None] | None = None) -> None:
        """Wait, and check now and then: with `look`, or else whether the call may still be made."""
        look = look or self.ensure_lease
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            look()
            time.sleep(min(left, CHECK_EVERY))
        look()

    def refused(self, allowance: RateLimit) -> None:
        """Note that the CRM refused a call because of too many calls."""

    def learn(
        self, allowance: RateLimit, short: LimitHeaders | None, day: LimitHeaders | None
    ) -> None:
        """Note the limits that an answer reported, for a short window and for the day."""
