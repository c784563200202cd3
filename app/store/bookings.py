"""Keeps the newest state of every booking; whatever order the events come in, it ends the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.domain.booking import Booking, Outcome, is_newer
from app.domain.history import History, tell
from app.security.encryption import Cipher
from app.store.models import BookingPerson, BookingRow

PURPOSE = "bookings.state"
MOST_BOOKINGS = 500
"""Bookings of one person that a summary looks at, the newest ones."""
_codec = TypeAdapter(Booking)


def keep_newest(
    session: Session, cipher: Cipher, booking: Booking, now: datetime
) -> BookingRow | None:
    """Store a state if it is the newest; give the row, or None where nothing new is known by it."""
    values = {
        "key": booking.key,
        "status": booking.status.value,
        "start": booking.start,
        "version": booking.version,
        "revision": 1,
        "state_box": cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE),
        "updated_at": now,
    }
    fresh = session.scalar(
        insert_ignoring(session, BookingRow, values, ["key"]).returning(BookingRow.id)
    )
    row = session.scalars(
        select(BookingRow).where(BookingRow.key == booking.key).with_for_update()
    ).one()
    if fresh is not None:
        _note_people(session, row.id, booking)
        return row
    known = _stored(row, cipher)
    # Also a state that comes too late tells of a time at which the meeting once was to be.
    older, newest = (known, booking) if is_newer(booking, known) else (booking, known)
    starts = {*known.earlier, *booking.earlier, older.start} - {newest.start}
    people = {*known.left, *booking.left, *_identities(older)} - _identities(newest)
    kept = replace(newest, earlier=tuple(sorted(starts)), left=tuple(sorted(people)))
    if newest is known and kept == known:
        return None
    _store(session, cipher, row, kept, now)
    _note_people(session, row.id, kept)
    row.revision += 1
    session.flush()
    return row


def _store(
    session: Session, cipher: Cipher, row: BookingRow, booking: Booking, now: datetime
) -> None:
    row.status, row.start, row.version = booking.status.value, booking.start, booking.version
    row.state_box = cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE)
    row.updated_at = now


def add_details(
    session: Session, cipher: Cipher, row: BookingRow, booking: Booking, now: datetime
) -> None:
    """Keep what meetergo told beside the webhook; it is the same state of the booking."""
    row.state_box = cipher.encrypt(_codec.dump_json(booking).decode(), PURPOSE)
    row.details_at = now


def _stored(row: BookingRow, cipher: Cipher) -> Booking:
    return _codec.validate_json(cipher.decrypt(row.state_box, PURPOSE))


def read_state(row: BookingRow, cipher: Cipher) -> Booking:
    """The booking that a row holds, with what people said of it. Raises UnreadableSecret."""
    booking = _stored(row, cipher)
    if row.outcome and row.outcome_start == booking.start:
        return replace(booking, outcome=Outcome(row.outcome))
    return booking


def set_outcome(
    session: Session, cipher: Cipher, row: BookingRow, outcome: Outcome | None, now: datetime
) -> None:
    """Say how the meeting at its present start went, or take that back with None."""
    row.outcome = outcome.value if outcome else None
    row.outcome_start = _stored(row, cipher).start
    row.revision += 1
    row.updated_at = now
    session.flush()


def histories(
    session: Session, cipher: Cipher, identities: Iterable[str], now: datetime
) -> dict[str, History]:
    """What all bookings of each person come to."""
    found = {}
    for identity in dict.fromkeys(identities):
        query = (
            select(BookingRow)
            .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
            .where(BookingPerson.person_hash == hash_of(identity))
            .order_by(BookingRow.start.desc())
            .limit(MOST_BOOKINGS)
        )
        found[identity] = tell((read_state(r, cipher) for r in session.scalars(query)), now)
    return found


def take_part(session: Session, identities: Iterable[str]) -> bool:
    """Whether some of these people are on a booking."""
    hashes = [hash_of(identity) for identity in identities]
    query = select(BookingPerson.booking_id).where(BookingPerson.person_hash.in_(hashes))
    return session.scalars(query.limit(1)).first() is not None


def has_booked_since(session: Session, cipher: Cipher, identity: str, since: datetime) -> bool:
    """Whether a person has made a booking after a moment (UTC); moving an older one is none."""
    query = (
        select(BookingRow)
        .join(BookingPerson, BookingPerson.booking_id == BookingRow.id)
        .where(BookingPerson.person_hash == hash_of(identity), BookingRow.version >= since)
    )
    found = (_stored(row, cipher) for row in session.scalars(query))
    return any(not b.form and (b.created_at or b.version) >= since for b in found)


def _note_people(session: Session, booking_id: int, booking: Booking) -> None:
    hashes = {hash_of(identity) for identity in _identities(booking)}
    session.execute(
        delete(BookingPerson).where(
            BookingPerson.booking_id == booking_id, BookingPerson.person_hash.not_in(hashes)
        )
    )
    for person_hash in sorted(hashes):
        values: Mapping[str, Any] = {"booking_id": booking_id, "person_hash": person_hash}
        unique = ["booking_id", "person_hash"]
        session.execute(insert_ignoring(session, BookingPerson, dict(values), unique))


def _identities(booking: Booking) -> set[str]:
    return {person.identity for person in booking.attendees if person.identity}


def hash_of(identity: str) -> str:
    """What stands for a person in the tables."""
    return hashlib.sha256(f"person\0{identity}".encode()).hexdigest()


def insert_ignoring(
    session: Session,
    model: Any,
    values: dict[str, Any] | list[dict[str, Any]],
    unique: list[str],
) -> postgresql.Insert | sqlite.Insert:
    """An INSERT, of one row or several, that skips those whose unique columns are taken."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(model).values(values).on_conflict_do_nothing(index_elements=unique)
    return sqlite.insert(model).values(values).on_conflict_do_nothing(index_elements=unique)
