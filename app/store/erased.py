"""People who were erased on request: their older bookings do not bring them back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.domain.erased import without_people
from app.domain.reduced import everybody
from app.security.encryption import Cipher
from app.store.bookings import hash_of
from app.store.models import ErasedPerson
from app.store.upsert import insert_unless_there

ERASURE_TURN = 0x65726173
"""The number of the advisory lock: https://www.postgresql.org/docs/current/explicit-locking.html"""
ANY_BOOKING = ""
"""Stands for every booking that was made before the person was erased."""


def alone_with_erasure(session: Session) -> None:
    """Wait until nobody stores bookings, and let nobody begin before this transaction ends."""
    _erasure_turn(session, "pg_advisory_xact_lock")


def not_beside_erasure(session: Session) -> None:
    """Wait until no erasure is under way: who is erased by then is known."""
    _erasure_turn(session, "pg_advisory_xact_lock_shared")


def _erasure_turn(session: Session, function: str) -> None:
    # SQLite has one transaction at a time anyway.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT {function}(:turn)"), {"turn": ERASURE_TURN})


def without_erased(
    session: Session, cipher: Cipher, bookings: Sequence[Booking], now: datetime
) -> tuple[list[Booking], set[str]]:
    """Return bookings without the people who were erased, and the keys of those that lost somebody.

    A booking that a person makes after that is a new relation: it is not touched.
    """
    identities = {identity for booking in bookings for identity in everybody(booking)}
    hashes = {hash_of(cipher, identity): identity for identity in identities}
    query = select(ErasedPerson).where(ErasedPerson.person_hash.in_(hashes))
    rows = list(session.scalars(query)) if hashes else []
    if not rows:
        return list(bookings), set()
    kept, cut = [], set()
    for booking in bookings:
        gone = {hashes[row.person_hash] for row in rows if _covers(row, booking)}
        gone &= everybody(booking)
        kept.append(without_people(booking, gone, now) if gone else booking)
        if gone:
            cut.add(booking.key)
    return kept, cut


def _covers(row: ErasedPerson, booking: Booking) -> bool:
    if row.booking_key == ANY_BOOKING:
        return (booking.created_at or booking.version) <= row.erased_at
    return row.booking_key == booking.key


def note_erased(
    session: Session, person_hash: str, booking_keys: Collection[str], now: datetime
) -> None:
    """Note that a person was erased, with the bookings that they have taken part in so far."""
    rows = [
        {"person_hash": person_hash, "booking_key": key, "erased_at": now}
        for key in sorted({ANY_BOOKING, *booking_keys})
    ]
    unique = ["person_hash", "booking_key"]
    session.execute(insert_unless_there(session, ErasedPerson, unique), rows)
    # Erased once more: bookings of the time between count as old too.
    at_large = session.get_one(ErasedPerson, (person_hash, ANY_BOOKING))
    at_large.erased_at = now
