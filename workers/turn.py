"""How long a batch may take: live bookings get in between its calls, and its results are noted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.domain.rate_limits import MakeWay
from workers.lease import ticks

SHORT = 1.0
"""Seconds that a batch of backlog still goes on while a live booking waits."""
LONG = 30.0
"""Seconds that any batch goes on: then it is cut and its results are noted."""
LOOK_EVERY = 0.25
"""Seconds between two looks at whether a live booking waits."""
PARTS = 20
"""A batch gets no smaller than 1/PARTS of a full one; one of that size is never cut."""


class Turn:
    """The batches of one drain: each may be cut between two calls; the next one is then smaller.

    A cut loses nothing that was written, but what was read has to be read again. So a batch is cut
    only if a live booking waits for it or it has gone on for long, and never below a minimum size.
    """

    def __init__(self, live_waits: Callable[[], bool], clock: Callable[[], float] = ticks) -> None:
        """`live_waits` says whether a live booking is due; `clock` gives seconds."""
        self._live_waits, self._clock = live_waits, clock
        self._lock = threading.Lock()
        self._part = 1.0
        self._began = self._looked = 0.0
        self._small, self._backlog, self._cut, self._whole = True, False, False, False

    def size(self, most: int) -> int:
        """How many deliveries the next batch may have, if the adapter takes `most`."""
        with self._lock:
            if self._whole and not self._cut:
                self._part = min(1.0, self._part * 2)
            self._whole = False
            return max(1, most // PARTS, int(most * self._part))

    def begin(self, number: int, most: int, backlog: bool) -> Callable[[], None]:
        """Start the clock. Return the function to call before each call to the CRM.

        `number`: how many deliveries are in hand; `backlog`: none of them is live.
        """
        with self._lock:
            self._began = self._looked = self._clock()
            self._small, self._backlog = number <= max(1, most // PARTS), backlog
            self._cut, self._whole = False, True
        return self.check

    def check(self) -> None:
        """Raise MakeWay if the rest of the batches in hand is to be done later."""
        with self._lock:
            if not self._cut:
                self._cut = not self._small and self._is_over()
                self._part = max(1 / PARTS, self._part / 2) if self._cut else self._part
            if self._cut:
                raise MakeWay

    def _is_over(self) -> bool:
        now = self._clock()
        if now - self._began > LONG:
            return True
        if not self._backlog or now - self._began < SHORT or now - self._looked < LOOK_EVERY:
            return False
        self._looked = now
        return self._live_waits()
