"""The inbox: every authentic webhook is stored here once, before it is answered."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from app.domain.errors import ContentDeleted
from app.domain.events import Event
from app.security.encryption import Cipher
from app.store.boxes import seal, unseal
from app.store.models import EventRow
from app.store.states import EventStatus
from app.store.upsert import insert_unless_there


@dataclass(frozen=True)
class NewEvent:
    """A webhook, or an appointment that meetergo's API shows, on its way into the inbox."""

    event: Event
    status: EventStatus
    booking_key: str | None = None
    error: str | None = None


def add_event(session: Session, cipher: Cipher, new: NewEvent) -> tuple[int, bool]:
    """Store an event unless it is there already; return its id and whether it is new."""
    return add_events(session.connection(), [event_values(cipher, new)])[0]


def event_values(cipher: Cipher, new: NewEvent) -> dict[str, Any]:
    """The values of an event's row."""
    payload = json.dumps(new.event.payload)
    values = {
        "dedupe_key": new.event.dedupe_key,
        "source": new.event.source,
        "type": new.event.type,
        "booking_key": new.booking_key,
        "received_at": new.event.received_at,
        "status": new.status.value,
        "error": new.error,
    }
    return values | {"payload_encrypted": seal(cipher, EventRow.payload_encrypted, values, payload)}


def add_events(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[tuple[int, bool]]:
    """Store the events that are not there already; return the id of each, and whether it is new."""
    # Always in the same order, so that two processes cannot wait for each other.
    values = sorted(rows, key=lambda row: str(row["dedupe_key"]))
    made = connection.execute(_insert(connection.dialect.name), values)
    fresh: dict[str, int] = {row.dedupe_key: row.id for row in made}
    asked = {row["dedupe_key"] for row in rows}
    known: dict[str, int] = {}
    if asked - fresh.keys():
        there = select(EventRow.dedupe_key, EventRow.id)
        found = connection.execute(there.where(EventRow.dedupe_key.in_(asked - fresh.keys())))
        known = {key: number for key, number in found}
    told = []
    for row in rows:
        key = row["dedupe_key"]
        told.append((fresh[key], True) if key in fresh else (known[key], False))
        if key in fresh:
            # The same message twice in one group.
            known[key] = fresh.pop(key)
    return told


@functools.cache
def _insert(dialect: str) -> ReturningInsert[str, int]:
    """The statement that every webhook needs; to build it takes as long as to run it."""
    insert = insert_unless_there(dialect, EventRow, ["dedupe_key"])
    return insert.returning(EventRow.dedupe_key, EventRow.id)


def next_stored(session: Session, most: int, without: Collection[int] = ()) -> list[EventRow]:
    """The oldest webhooks that no worker has processed, without some."""
    stored = select(EventRow).where(EventRow.status == EventStatus.STORED)
    if without:
        stored = stored.where(EventRow.id.not_in(without))
    return list(session.scalars(stored.order_by(EventRow.id).limit(most)))


def end_stored(
    session: Session, event_ids: Sequence[int], status: EventStatus, error: str | None = None
) -> set[int]:
    """Note what became of stored webhooks; return those that no other process ended before."""
    mine = (EventRow.id.in_(event_ids), EventRow.status == EventStatus.STORED)
    ended = update(EventRow).where(*mine).values(status=status.value, error=error)
    ended = ended.execution_options(synchronize_session=False)
    return set(session.scalars(ended.returning(EventRow.id)))


def hold_event(cipher: Cipher, row: EventRow, event: Event, booking_key: str) -> None:
    """Have a quarantined event wait for meetergo's answer, with type and payload as read now."""
    row.status, row.error, row.booking_key = EventStatus.RECEIVED, None, booking_key
    row.tries, row.retry_at, row.missing_since = 0, None, None
    row.type, payload = event.type, json.dumps(event.payload)
    row.payload_encrypted = seal(cipher, EventRow.payload_encrypted, row, payload)


def read_event_row(row: EventRow, cipher: Cipher) -> Event:
    """The event of a row. Raises ContentDeleted if only the row is left."""
    if row.payload_encrypted is None:
        raise ContentDeleted(
            "its content was deleted after RETENTION_DAYS or on request: it cannot be replayed"
        )
    payload: Any = json.loads(unseal(cipher, EventRow.payload_encrypted, row))
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
