"""The inbox: every authentic webhook is stored here once, before it is answered."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.events import Event
from app.security.encryption import Cipher
from app.store.bookings import insert_ignoring
from app.store.models import EventRow, EventStatus

PURPOSE = "events.payload"
MOST_WAITING = 500
"""Events of a source that are looked at together."""


def add_event(
    session: Session,
    cipher: Cipher,
    event: Event,
    status: EventStatus,
    booking_key: str | None = None,
    error: str | None = None,
) -> tuple[int, bool]:
    """Store an event unless it is there; give its id and whether it is new."""
    values = {
        "dedupe_key": event.dedupe_key,
        "source": event.source,
        "type": event.type,
        "booking_key": booking_key,
        "payload_box": cipher.encrypt(json.dumps(event.payload), PURPOSE),
        "received_at": event.received_at,
        "status": status.value,
        "error": error,
    }
    statement = insert_ignoring(session, EventRow, values, ["dedupe_key"])
    new_id = session.scalar(statement.returning(EventRow.id))
    if new_id is not None:
        return new_id, True
    known = select(EventRow.id).where(EventRow.dedupe_key == event.dedupe_key)
    return session.scalars(known).one(), False


def hold_event(cipher: Cipher, row: EventRow, event: Event, booking_key: str) -> None:
    """Let an event that was set aside wait for meetergo's word, read as it is read by now."""
    row.status, row.error, row.booking_key = EventStatus.RECEIVED, None, booking_key
    row.type, row.payload_box = event.type, cipher.encrypt(json.dumps(event.payload), PURPOSE)


def read_event_row(row: EventRow, cipher: Cipher) -> Event:
    """The event that a row holds."""
    payload: Any = json.loads(cipher.decrypt(row.payload_box, PURPOSE))
    return Event(row.source, row.type, payload, row.received_at)


def waiting_events(session: Session, source: str) -> list[EventRow]:
    """Events that are stored but not yet confirmed with meetergo, the oldest of a source."""
    query = select(EventRow).where(
        EventRow.status == EventStatus.RECEIVED, EventRow.source == source
    )
    return list(session.scalars(query.order_by(EventRow.id).limit(MOST_WAITING)))


def has_waiting_events(session: Session) -> bool:
    """Whether any source has such events."""
    query = select(EventRow.id).where(EventRow.status == EventStatus.RECEIVED)
    return session.scalars(query.limit(1)).first() is not None
