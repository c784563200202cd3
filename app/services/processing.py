"""Processes stored webhooks: the newest state of each booking, and what is due for the CRMs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.domain.errors import UnfitPayload
from app.domain.events import FORM_EVENT, read_booking, read_form
from app.domain.faults import place_of
from app.outbound.tracing import span
from app.security.encryption import Cipher, NoHashKey, UnreadableSecret
from app.store.delivery_marking import mark_due
from app.store.engine import DATABASE_DOWN, Store, utcnow
from app.store.inbox import end_stored, next_stored, read_event_row
from app.store.meeting_types import note_type, with_type
from app.store.models import BookingRow, EventRow
from app.store.newest import keep_newest
from app.store.states import EventStatus
from app.store.stories import story_mates

log = structlog.get_logger(__name__)
MOST = 50
"""The most webhooks in one transaction: on SQLite, nobody else can write meanwhile."""


def apply(
    session: Session,
    cipher: Cipher,
    bookings: Sequence[Booking],
    now: datetime,
    again: bool = False,
    backlog: bool = False,
) -> list[int]:
    """Store states of bookings and mark those that are news as due; return the connections to wake.

    `again`: mark all of them as due.
    """
    rows = keep_newest(session, cipher, typed(session, bookings), now)
    if again:
        query = select(BookingRow).where(BookingRow.key.in_([b.key for b in bookings]))
        rows = list(session.scalars(query))
    return mark_stories_due(session, rows, now, backlog) if rows else []


def typed(session: Session, bookings: Sequence[Booking]) -> list[Booking]:
    """Store what bookings say about their meeting types, and fill in what the store knows."""
    # The session forgets a row that nobody holds, and would read it again for each booking.
    held = [note_type(session, b.source, b.meeting_type, b.version) for b in bookings]
    filled = [with_type(session, booking) for booking in bookings]
    del held
    return filled


def mark_stories_due(
    session: Session, rows: Sequence[BookingRow], now: datetime, backlog: bool = False
) -> list[int]:
    """Mark bookings as due, and the bookings that they continue or that continue them."""
    mates = story_mates(session, rows)
    for mate in mates:
        # A worker that has it in hand does not know of this: the new revision keeps it due.
        mate.revision += 1
    return mark_due(session, [*rows, *mates], now, backlog)


class Processor:
    """Works off the inbox. Several processes may do so: each webhook is processed once."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    def run(
        self,
        wake: Callable[[list[int]], object] = lambda connections: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Process what is stored, until nothing is left; `wake` gets the connections with work."""
        unread: set[int] = set()
        while not stopping():
            with self._store.read() as session:
                rows = next_stored(session, MOST, unread)
            bookings = self._read(rows, unread)
            if bookings:
                self._process(bookings, wake)
            if len(rows) < MOST:
                # Whoever stores more wakes a worker.
                return

    def _read(self, rows: Sequence[EventRow], unread: set[int]) -> dict[int, Booking | None]:
        """The booking of each webhook, None if it is of no use; note those that cannot be read.

        The key of a webhook may be known to another process only, while keys are being changed: it
        stays stored, and `doctor` reports it.
        """
        found: dict[int, Booking | None] = {}
        for row in rows:
            try:
                event = read_event_row(row, self._cipher)
                found[row.id] = (
                    read_form(event) if event.type == FORM_EVENT else read_booking(event)
                )
            except UnreadableSecret as error:
                log.error("webhook_unreadable", event_id=row.id, problem=str(error))
                unread.add(row.id)
            except Exception as error:
                self._set_aside(row.id, error)
        return found

    def _process(
        self, found: dict[int, Booking | None], wake: Callable[[list[int]], object]
    ) -> None:
        """Process webhooks in one transaction; if one of them is to blame for a failure, alone."""
        try:
            with span("inbox", event_ids=list(found)):
                connections = self._store.attempt(lambda session: self._apply(session, found))
        except (*DATABASE_DOWN, ProgrammingError, NoHashKey):
            # The database is away, or not prepared for this version: no webhook is to blame.
            raise
        except Exception as error:
            if len(found) > 1:
                for number, booking in found.items():
                    self._process({number: booking}, wake)
                return
            self._set_aside(next(iter(found)), error)
            return
        if connections:
            wake(connections)

    def _apply(self, session: Session, found: dict[int, Booking | None]) -> list[int]:
        bookings = {number: booking for number, booking in found.items() if booking is not None}
        if len(bookings) < len(found):
            end_stored(session, list(found.keys() - bookings.keys()), EventStatus.IGNORED)
        mine = end_stored(session, list(bookings), EventStatus.APPLIED) if bookings else set()
        news = [booking for number, booking in bookings.items() if number in mine]
        for number in mine:
            log.debug("webhook_processed", event_id=number, booking=bookings[number].key)
        return apply(session, self._cipher, news, utcnow()) if news else []

    def _set_aside(self, event_id: int, error: Exception) -> None:
        """Quarantine a webhook that cannot be processed: it can be replayed once that is mended."""
        why = f"it could not be processed: {type(error).__name__} at {place_of(error)}"
        if isinstance(error, UnfitPayload):
            why = str(error)
        with self._store.write() as session:
            end_stored(session, [event_id], EventStatus.QUARANTINED, why)
        log.error("webhook_quarantined", event_id=event_id, reason=why)
