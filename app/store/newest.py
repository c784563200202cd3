"""Keeps the newest state of every booking; the order in which events arrive makes no difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.domain.merge import fill, identities, is_more_than_said, merge
from app.domain.reduced import is_news_of_reduced
from app.security.encryption import Cipher
from app.store.bookings import hash_of, seal_state, stored_state
from app.store.erased import not_beside_erasure, without_erased
from app.store.models import BookingPerson, BookingRow
from app.store.payloads import forget_payloads
from app.store.stories import join_story, look_for_kin, wait_for_kin
from app.store.upsert import insert_unless_there


def keep_newest(
    session: Session, cipher: Cipher, bookings: Sequence[Booking], now: datetime
) -> list[BookingRow]:
    """Store each state that is the newest of its booking; return the rows of those that are news."""
    not_beside_erasure(session)
    bookings, cut = without_erased(session, cipher, bookings, now)
    wait_for_kin(session, cipher, bookings)
    first: dict[str, Booking] = {}
    for booking in bookings:
        first.setdefault(booking.key, booking)
    fresh = _insert(session, cipher, first.values(), now)
    query = select(BookingRow).where(BookingRow.key.in_(first)).order_by(BookingRow.id)
    rows = {row.key: row for row in session.scalars(query.with_for_update())}
    new = {rows[key].id: first[key] for key in first if key in fresh}
    _note_people(session, cipher, new)
    kin = look_for_kin(session, cipher, new.values())
    news: dict[int, BookingRow] = {}
    for booking in bookings:
        row = rows[booking.key]
        state: Booking | None = booking
        if new.get(row.id) is not booking:
            state = _keep(session, cipher, row, booking, now)
            if state is not None:
                kin.add(look_for_kin(session, cipher, [state]))
        if state is not None:
            changed = join_story(session, cipher, row, state, now, kin)
            news |= {found.id: found for found in (row, *changed)}
    session.flush()
    forget_payloads(session, cut)
    return list(news.values())


def is_old_news(session: Session, cipher: Cipher, booking: Booking) -> bool:
    """Whether storing a state that meetergo's API shows would change nothing."""
    row = session.scalars(select(BookingRow).where(BookingRow.key == booking.key)).first()
    if row is None:
        return False
    if row.reduced_at is not None:
        return not is_news_of_reduced(stored_state(row, cipher), booking)
    if row.details_at is None:
        return False
    known = stored_state(row, cipher)
    return not is_more_than_said(known, booking) and not _fills(known, booking)


def _insert(
    session: Session, cipher: Cipher, bookings: Iterable[Booking], now: datetime
) -> set[str]:
    """Store the bookings that are not known at all; return their keys."""
    values = [
        {
            "key": booking.key,
            "status": booking.status.value,
            "start": booking.start,
            "version": booking.version,
            "revision": 1,
            "state_encrypted": seal_state(booking, cipher),
            "updated_at": now,
            "reduced_at": booking.reduced_at,
        }
        # Always in the same order, so that two processes cannot wait for each other.
        for booking in sorted(bookings, key=lambda booking: booking.key)
    ]
    statement = insert_unless_there(session, BookingRow, ["key"]).returning(BookingRow.key)
    return set(session.scalars(statement, values))


def _keep(
    session: Session, cipher: Cipher, row: BookingRow, booking: Booking, now: datetime
) -> Booking | None:
    """Store a state of a known booking if it is newer; return what it is now, None if no news."""
    known = stored_state(row, cipher)
    if row.reduced_at is not None and not is_news_of_reduced(known, booking):
        forget_payloads(session, [row.key])
        return None
    if not is_more_than_said(known, booking):
        if _fills(known, booking):
            row.state_encrypted, row.indexed = seal_state(fill(known, booking), cipher), False
        return None
    kept = merge(known, booking)
    row.status, row.start, row.version = kept.status.value, kept.start, kept.version
    row.state_encrypted, row.indexed = seal_state(kept, cipher), False
    row.updated_at, row.reduced_at = now, booking.reduced_at
    row.revision += 1
    _note_people(session, cipher, {row.id: kept}, anew=True)
    return kept


def _fills(known: Booking, booking: Booking) -> bool:
    kept = fill(known, booking)
    return kept.conference != known.conference or kept.payload != known.payload


def _note_people(
    session: Session, cipher: Cipher, bookings: dict[int, Booking], anew: bool = False
) -> None:
    """Note who takes part in each booking; `anew`: others may have been noted before."""
    values = []
    for booking_id, booking in bookings.items():
        hashes = {hash_of(cipher, identity) for identity in identities(booking)}
        if anew:
            mine = BookingPerson.booking_id == booking_id
            gone = delete(BookingPerson).where(mine, BookingPerson.person_hash.not_in(hashes))
            session.execute(gone)
        values += [{"booking_id": booking_id, "person_hash": person} for person in sorted(hashes)]
    if values:
        unique = ["booking_id", "person_hash"]
        session.execute(insert_unless_there(session, BookingPerson, unique), values)
