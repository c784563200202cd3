"""The inbox: every authentic webhook is stored here once, before it is answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.domain.events import Event
from app.security.encryption import Cipher
from app.store.bookings import insert_ignoring
from app.store.models import EventRow
from app.store.states import EventStatus

PURPOSE = "events.payload"


def add_event(
    session: Session,
    cipher: Cipher,
    event: Event,
    status: EventStatus,
    booking_key: str | None = None,
    error: str | None = None,
) -> tuple[int, bool]:
    """Store an event unless it is there already; return its id and whether it is new."""
    values = {
        "dedupe_key": event.dedupe_key,
        "source": event.source,
        "type": event.type,
        "booking_key": booking_key,
        "payload_encrypted": cipher.encrypt(json.dumps(event.payload), PURPOSE),
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
    """Have a quarantined event wait for meetergo's answer, with type and payload as read now."""
    row.status, row.error, row.booking_key = EventStatus.RECEIVED, None, booking_key
    row.tries, row.retry_at, row.missing_since = 0, None, None
    row.type, row.payload_encrypted = event.type, cipher.encrypt(json.dumps(event.payload), PURPOSE)


def read_event_row(row: EventRow, cipher: Cipher) -> Event:
    """The event of a row."""
    payload: Any = json.loads(cipher.decrypt(row.payload_encrypted, PURPOSE))
    return Event(row.source, row.type, payload, row.received_at)


def next_waiting(session: Session, source: str, now: datetime) -> list[EventRow]:
    """All webhooks about one appointment that wait for meetergo's answer.

    Of the appointments that may be asked about now, the newest comes first, so that a live booking
    does not wait for an old one.
    """
    mine = (EventRow.status == EventStatus.RECEIVED, EventRow.source == source)
    due = or_(EventRow.retry_at.is_(None), EventRow.retry_at <= now)
    first = session.scalars(
        select(EventRow.booking_key)
        .where(*mine, due)
        # An appointment that was asked about before is old news next to one that has just come.
        .order_by(EventRow.retry_at.is_not(None), EventRow.id.desc())
        .limit(1)
    ).first()
    if first is None:
        return []
    query = select(EventRow).where(*mine, EventRow.booking_key == first)
    return list(session.scalars(query.order_by(EventRow.id)))


def sources_waiting(session: Session, now: datetime) -> set[str]:
    """Sources with a webhook that waits for an answer for which meetergo may be asked now."""
    due = or_(EventRow.retry_at.is_(None), EventRow.retry_at <= now)
    query = select(EventRow.source).where(EventRow.status == EventStatus.RECEIVED, due).distinct()
    return set(session.scalars(query))


def postpone(
    session: Session, event_ids: Sequence[int], why: str, until: datetime, missing: datetime | None
) -> None:
    """Let webhooks wait longer; `missing`: since when meetergo has no such appointment."""
    for row in session.scalars(select(EventRow).where(EventRow.id.in_(event_ids))):
        row.tries += 1
        row.error, row.retry_at = why, until
        row.missing_since = (row.missing_since or missing) if missing else None
