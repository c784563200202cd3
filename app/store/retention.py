"""Deletes people's data that is no longer needed: what stays keeps every booking from being doubled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Select, delete, exists, func, select, tuple_, update
from sqlalchemy.orm import Session

from app.domain.reduced import everybody, reduced
from app.security.encryption import Cipher, UnreadableSecret
from app.store.access_models import AuditLog, OAuthFlow, WebSession
from app.store.bookings import hash_of, seal_state, stored_state
from app.store.cause_models import CauseRow
from app.store.ledger import Ledger
from app.store.models import (
    Backfill,
    BookingPerson,
    BookingRow,
    ConnectionRow,
    DeliveryRow,
    EventRow,
    Notice,
    SyncLog,
)
from app.store.payloads import forget_payloads
from app.store.search import forget_terms
from app.store.states import DeliveryState, EventStatus

log = structlog.get_logger(__name__)
UNFINISHED = (
    DeliveryState.DUE,
    DeliveryState.RETRYING,
    DeliveryState.WAITING,
    DeliveryState.PARKED,
)
"""Deliveries that still need the booking: it is reduced once they have ended."""
ASIDE = (EventStatus.IGNORED, EventStatus.QUARANTINED)
"""Webhooks that belong to no booking."""
DELETED = "Its content was deleted after RETENTION_DAYS."
AUDIT_KEPT = timedelta(days=365)
"""The audit log tells who did what; it is kept for a year, whatever RETENTION_DAYS says."""
SHORT = timedelta(days=1)
"""After this, a consent that was begun and a browser session are of no use."""

Place = tuple[datetime, int]
"""Start and id of a booking: where a walk through the bookings goes on."""


def over_since(before: datetime, after: Place | None, most: int) -> Select[BookingRow]:
    """The bookings that began before a moment and hold people's data, by their start."""
    query = select(BookingRow).where(BookingRow.reduced_at.is_(None), BookingRow.start < before)
    if after is not None:
        query = query.where(tuple_(BookingRow.start, BookingRow.id) > tuple_(*after))
    return query.order_by(BookingRow.start, BookingRow.id).limit(most)


def aside_since(status: EventStatus, before: datetime, most: int) -> Select[int]:
    """The webhooks of no booking that arrived before a moment and still have their content.

    Their time counts from their arrival.
    """
    return (
        select(EventRow.id)
        .where(
            EventRow.status == status,
            EventRow.payload_encrypted.is_not(None),
            EventRow.received_at < before,
        )
        .order_by(EventRow.received_at)
        .limit(most)
    )


def reduce_bookings(
    session: Session, cipher: Cipher, rows: Sequence[BookingRow], before: datetime, now: datetime
) -> int:
    """Reduce those of some bookings that ended before a moment and need no more work.

    Return their number.
    """
    ids = [row.id for row in rows]
    query = select(DeliveryRow.booking_id).where(
        DeliveryRow.booking_id.in_(ids), DeliveryRow.state.in_(UNFINISHED)
    )
    busy = set(session.scalars(query))
    chosen, people = [], set()
    for row in rows:
        if row.id in busy:
            continue
        try:
            booking = stored_state(row, cipher)
        except UnreadableSecret as error:
            # The others must not wait for it.
            log.error("booking_unreadable", booking=row.key, reason=str(error))
            continue
        if booking.end >= before:
            continue
        people |= everybody(booking)
        row.state_encrypted = seal_state(reduced(booking), cipher)
        row.reduced_at, row.details_at, row.details_due_at = now, row.details_at or now, None
        chosen.append(row)
    session.flush()
    forget_payloads(session, [row.key for row in chosen])
    forget_words(session, [row.id for row in chosen])
    forget_terms(session, [row.id for row in chosen])
    forget_keys(session, cipher, people)
    return len(chosen)


def forget_aside(session: Session, event_ids: Sequence[int]) -> None:
    """Delete the content of webhooks that belong to no booking."""
    session.execute(
        update(EventRow)
        .where(EventRow.id.in_(event_ids))
        .values(payload_encrypted=None, error=DELETED)
        .execution_options(synchronize_session=False)
    )


def forget_words(session: Session, booking_ids: Sequence[int]) -> None:
    """Delete the notes and errors of deliveries: they may name people and quote values.

    A booking of which nothing is left to sync has no cause any more.
    """
    words: dict[str, Any] = {
        "notes": [], "error_message": None, "error_advice": None, "error_fields": {},
        "error_raw": None,
    }  # fmt: skip
    mine = DeliveryRow.booking_id.in_(booking_ids)
    bare = exists().where(
        BookingRow.id == DeliveryRow.booking_id, BookingRow.reduced_at.is_not(None)
    )
    for rows, values in ((mine, words), (mine & bare, {"cause_key": None})):
        session.execute(
            update(DeliveryRow)
            .where(rows)
            .values(values)
            .execution_options(synchronize_session=False)
        )


def forget_keys(session: Session, cipher: Cipher, identities: Iterable[str]) -> None:
    """Delete addresses and numbers from the ledger, unless a booking with data has the person.

    The records are still found by their keyed hashes.
    """
    hashes = {hash_of(cipher, identity): identity for identity in identities}
    if not hashes:
        return
    alive = (
        select(BookingPerson.person_hash)
        .join(BookingRow, BookingRow.id == BookingPerson.booking_id)
        .where(BookingPerson.person_hash.in_(hashes), BookingRow.reduced_at.is_(None))
    )
    gone = [hashes[each] for each in hashes.keys() - set(session.scalars(alive))]
    for connection_id in session.scalars(select(ConnectionRow.id)).all():
        Ledger(session, cipher, connection_id).forget_keys(gone)


def delete_old(session: Session, before: datetime, now: datetime, most: int) -> dict[str, int]:
    """Delete the lines of logs and flows that are too old; return how many of each, at most `most`."""
    chosen: dict[str, tuple[Any, Any]] = {
        "sync_log": (SyncLog.id, SyncLog.at < before),
        "notices": (Notice.id, (Notice.created_at < before) & Notice.next_try_at.is_(None)),
        "backfills": (Backfill.id, Backfill.ended_at < before),
        "audit_log": (AuditLog.id, AuditLog.at < now - AUDIT_KEPT),
        "oauth_flows": (OAuthFlow.state_hash, OAuthFlow.created_at < now - SHORT),
        "web_sessions": (WebSession.id_hash, WebSession.created_at < now - SHORT),
    }
    left = exists().where(DeliveryRow.cause_key == CauseRow.key)
    chosen["causes"] = (CauseRow.key, (CauseRow.last_seen < before) & ~left)
    done = {}
    for name, (key, old) in chosen.items():
        some = select(key).where(old).limit(most)
        gone = delete(key.class_).where(key.in_(some)).returning(key)
        gone = gone.execution_options(synchronize_session=False)
        done[name] = len(session.scalars(gone).all())
    return done


def count_waiting(session: Session, before: datetime) -> tuple[int, datetime | None]:
    """The number of bookings that began before a moment and hold people's data, and the first start."""
    query = select(func.count(), func.min(BookingRow.start)).where(
        BookingRow.reduced_at.is_(None), BookingRow.start < before
    )
    number, first = session.execute(query).one()
    return number, first
