"""Tells the log of an outage: when it begins, at growing intervals while it lasts, when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
"""Seconds from the first line of an outage to the second; after that each pause is twice as long."""
CALM = 600.0
"""Seconds without a failure after which another failure is an outage of its own."""


class Outage:
    """What one process has told of one thing that it cannot reach; for all threads of the process.

    A thing that comes and goes every second is one long outage here: it gets no line for each time.
    """

    def __init__(self, subject: str, now: Callable[[], float] = time.monotonic) -> None:
        """`subject`: what is away; the lines are `<subject>_away` and `<subject>_back`."""
        self._subject, self._now = subject, now
        self._lock = threading.Lock()
        self._began: float | None = None
        self._told = False
        """Whether a line said that it is away and none said since that it is back."""
        self._reasons: set[str] = set()
        self._pause, self._next_at, self._ended_at = FIRST_PAUSE, 0.0, float("-inf")

    def note(self, reason: str) -> None:
        """Note a failure, with its reason as a sentence; a reason that is new is told at once."""
        with self._lock:
            now = self._now()
            if self._began is None:
                self._began = now
                if now - self._ended_at > CALM:
                    self._pause, self._next_at, self._reasons = FIRST_PAUSE, now, set()
            if now < self._next_at and reason in self._reasons:
                return
            if reason not in self._reasons:
                self._reasons.add(reason)
            else:
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._next_at, self._told = now + self._pause, True
            since = round(now - self._began)
        log.warning(f"{self._subject}_away", reason=reason, seconds=since)

    def over(self) -> None:
        """Note that it works."""
        with self._lock:
            if self._began is None:
                return
            now = self._now()
            lasted, self._began, self._ended_at = round(now - self._began), None, now
            told, self._told = self._told, False
        if told:
            log.info(f"{self._subject}_back", seconds=lasted)
