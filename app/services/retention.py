"""Deletes people's data RETENTION_DAYS after a meeting: in small steps, and any number of times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from app.security.encryption import Cipher
from app.store.engine import Store, utcnow
from app.store.retention import (
    ASIDE,
    Place,
    aside_since,
    count_waiting,
    delete_old,
    forget_aside,
    over_since,
    reduce_bookings,
)

log = structlog.get_logger(__name__)
CHUNK = 100
"""Rows in one transaction: on SQLite, nobody else can write meanwhile."""


LEAST_REST = 0.11
"""The seconds that others have between two chunks (SQLite's busy handler sleeps up to 0.1 s)."""


@dataclass(frozen=True)
class Kept:
    """What retention is about to do."""

    days: int
    """0: everything is kept."""
    waiting: int
    """Bookings whose time is over, but that still hold data: the next run reduces them."""
    oldest: datetime | None
    """The start of the oldest of these."""


class Retention:
    """Reduces bookings, webhooks and logs whose time is over."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        days: int,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`days`: RETENTION_DAYS; 0 keeps everything. `wait`: waits for some seconds."""
        self._store, self._cipher, self.days = store, cipher, days
        self._wait = wait

    def run(self, stopping: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Delete what is too old; return how many rows of each kind. It may stop and run again."""
        done: Counter[str] = Counter()
        if not self.days:
            return {}
        now = utcnow()
        before = now - timedelta(days=self.days)
        done["bookings"] = self._reduce_bookings(before, now, stopping)
        done["webhooks"] = self._reduce_aside(before, stopping)
        while not stopping():
            with self._making_way(), self._store.write() as session:
                gone = delete_old(session, before, now, CHUNK)
            done.update(gone)
            if max(gone.values()) < CHUNK:
                break
        told = {name: number for name, number in done.items() if number}
        reduced = {name: done[name] for name in ("bookings", "webhooks")}
        log.info(
            "retention_done",
            days=self.days,
            bookings=reduced["bookings"],
            webhooks=reduced["webhooks"],
            deleted=sum(told.values()) - sum(reduced.values()),
        )
        return told

    @contextmanager
    def _making_way(self) -> Iterator[None]:
        """Wait after a transaction for as long as it took, so that others get as much of the time.

        SQLite has one writer, and others that wait for it look again only every 0.1 seconds.
        """
        began = time.monotonic()
        yield
        self._wait(max(LEAST_REST, time.monotonic() - began))

    def figures(self) -> Kept:
        """What the next run has to do."""
        if not self.days:
            return Kept(0, 0, None)
        with self._store.read() as session:
            found = count_waiting(session, utcnow() - timedelta(days=self.days))
        return Kept(self.days, *found)

    def _reduce_bookings(
        self, before: datetime, now: datetime, stopping: Callable[[], bool]
    ) -> int:
        done, after = 0, None
        while not stopping():
            with self._making_way():
                number, after = self._store.attempt(
                    lambda session, place=after: self._reduce_some(session, before, now, place)  # type: ignore[misc]
                )
            done += number
            if after is None:
                break
        return done

    def _reduce_some(
        self, session: Session, before: datetime, now: datetime, after: Place | None
    ) -> tuple[int, Place | None]:
        """Reduce one chunk; return the number, and where to go on (None: at the end)."""
        rows = session.scalars(over_since(before, after, CHUNK).with_for_update()).all()
        number = reduce_bookings(session, self._cipher, rows, before, now)
        last = (rows[-1].start, rows[-1].id) if len(rows) == CHUNK else None
        return number, last

    def _reduce_aside(self, before: datetime, stopping: Callable[[], bool]) -> int:
        done, left = 0, list(ASIDE)
        while left and not stopping():
            with self._making_way(), self._store.write() as session:
                ids = list(session.scalars(aside_since(left[0], before, CHUNK)))
                forget_aside(session, ids)
            done += len(ids)
            if len(ids) < CHUNK:
                left.pop(0)
        return done
