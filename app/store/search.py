"""Finds bookings by words, and by what they are listed by, in data that stays encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.domain.booking import Booking, MeetingOutcome
from app.domain.search import LONGEST, beginnings, words_of
from app.security.encryption import Cipher, UnreadableSecret
from app.store.bookings import stored_state
from app.store.models import BookingRow, DeliveryRow
from app.store.search_models import BookingTerm
from app.store.states import DeliveryState

log = structlog.get_logger(__name__)
WORD, MEETING_TYPE, HOST = "word", "meeting type", "host"
"""What a term stands for."""
FEW = 1000
"""No more bookings of one condition are counted."""

Cursor = tuple[datetime, int]
"""The place of a booking in its list: a time and a number."""


@dataclass(frozen=True)
class Wanted:
    """What a list of bookings shows; all conditions hold together."""

    words: tuple[str, ...] = ()
    state: DeliveryState | None = None
    connection_ids: tuple[int, ...] | None = None
    """Accounts of one CRM; None: all."""
    outcome: MeetingOutcome | None = None
    meeting_type: str = ""
    host: str = ""
    since: datetime | None = None
    """Changed at this time or later."""


def anything_to_index(session: Session) -> bool:
    """Whether the terms of a booking are out of date."""
    query = select(BookingRow.id).where(~BookingRow.indexed).limit(1)
    return session.scalar(query) is not None


def index_some(session: Session, cipher: Cipher, most: int) -> int:
    """Write the terms of bookings whose terms are out of date; return how many bookings these were."""
    query = (
        select(BookingRow)
        .where(~BookingRow.indexed)
        .order_by(BookingRow.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    rows = session.scalars(query).all()
    if not rows:
        return 0
    forget_terms(session, [row.id for row in rows])
    values = [{"term": term, "booking_id": row.id} for row in rows for term in _terms(row, cipher)]
    if values:
        session.execute(insert(BookingTerm), values)
    for row in rows:
        row.indexed = True
    session.flush()
    return len(rows)


def _terms(row: BookingRow, cipher: Cipher) -> set[int]:
    try:
        booking = stored_state(row, cipher)
    except UnreadableSecret as error:
        log.error("booking_unreadable", booking=row.key, reason=str(error))
        return set()
    found = {term_of(cipher, WORD, part) for word in words_of(booking) for part in beginnings(word)}
    found.add(term_of(cipher, MEETING_TYPE, meeting_type_of(booking)))
    return found | {term_of(cipher, HOST, host) for host in hosts_of(booking)}


def meeting_type_of(booking: Booking) -> str:
    """The name of its meeting type, by which a booking is listed; empty if it has none."""
    return booking.meeting_type.name or ""


def hosts_of(booking: Booking) -> list[str]:
    """The addresses of its hosts, by which a booking is listed."""
    return [host.email for host in booking.hosts if host.email]


def term_of(cipher: Cipher, kind: str, text: str) -> int:
    """The number that stands for a text in the index."""
    whole = bytes.fromhex(cipher.keyed_hash(f"{kind}\0{text}"))
    return int.from_bytes(whole[:8], "big", signed=True)


def forget_terms(session: Session, booking_ids: Sequence[int]) -> None:
    """Delete the terms of bookings; they are written anew from what the bookings hold then."""
    gone = delete(BookingTerm).where(BookingTerm.booking_id.in_(booking_ids))
    session.execute(gone.execution_options(synchronize_session=False))
    stale = update(BookingRow).where(BookingRow.id.in_(booking_ids)).values(indexed=False)
    session.execute(stale.execution_options(synchronize_session=False))


def find(
    session: Session, cipher: Cipher, wanted: Wanted, after: Cursor | None, most: int
) -> list[tuple[BookingRow, Cursor]]:
    """The bookings that fit, each with its place in the list.

    In a state: those that came into it last first; by words and the like: the newest first; else
    those that changed last first. Each order has an index, so that a page reads little more than
    what it shows. Words longer than what the index holds may bring others, too: the caller compares.
    """
    terms = _terms_of(cipher, wanted)
    fits = [_exists(BookingTerm.booking_id, BookingTerm.term == term) for term in terms]
    if wanted.since is not None:
        fits.append(BookingRow.updated_at >= wanted.since)
    if wanted.outcome is not None:
        fits.append(BookingRow.outcome == wanted.outcome.value)
    if wanted.state is not None:
        query = _by_state(wanted.state, wanted.connection_ids, after)
    else:
        if wanted.connection_ids is not None:
            theirs = DeliveryRow.connection_id.in_(wanted.connection_ids)
            fits.append(_exists(DeliveryRow.booking_id, theirs))
        rarest = _rarest(session, terms)
        by_id = rarest is not None or wanted.outcome is not None
        query = _by_id(rarest, after) if by_id else _by_change(after)
    rows = session.execute(query.where(*fits).limit(most))
    return [(row, (moment, number)) for row, moment, number in rows]


_Found = Select[BookingRow, datetime, int]
"""Bookings with their places."""


def _by_state(
    state: DeliveryState, connection_ids: tuple[int, ...] | None, after: Cursor | None
) -> _Found:
    place = tuple_(DeliveryRow.updated_at, DeliveryRow.id)
    later = aliased(DeliveryRow)
    same = [
        later.booking_id == DeliveryRow.booking_id,
        # Not by the index of states: it has all bookings of a state, not the few of one booking.
        func.coalesce(later.state, "") == state.value,
        tuple_(later.updated_at, later.id) > place,
    ]
    query = (
        select(BookingRow, DeliveryRow.updated_at, DeliveryRow.id)
        .join(DeliveryRow, DeliveryRow.booking_id == BookingRow.id)
        .where(DeliveryRow.state == state.value)
        .order_by(DeliveryRow.updated_at.desc(), DeliveryRow.id.desc())
    )
    if connection_ids is not None:
        query = query.where(DeliveryRow.connection_id.in_(connection_ids))
        same.append(later.connection_id.in_(connection_ids))
    # A booking stands there once, for the CRM that it came into the state in last.
    query = query.where(~select(later.id).where(*same).correlate(DeliveryRow).exists())
    return query if after is None else query.where(place < _bound(after))


def _by_id(term: int | None, after: Cursor | None) -> _Found:
    query = select(BookingRow, BookingRow.updated_at, BookingRow.id)
    number: InstrumentedAttribute[int] = BookingRow.id
    if term is not None:
        number = BookingTerm.booking_id
        query = query.join(BookingTerm, BookingTerm.booking_id == BookingRow.id)
        query = query.where(BookingTerm.term == term)
    query = query.order_by(number.desc())
    return query if after is None else query.where(number < after[1])


def _by_change(after: Cursor | None) -> _Found:
    query = select(BookingRow, BookingRow.updated_at, BookingRow.id)
    query = query.order_by(BookingRow.updated_at.desc(), BookingRow.id.desc())
    place = tuple_(BookingRow.updated_at, BookingRow.id)
    return query if after is None else query.where(place < _bound(after))


def _bound(after: Cursor) -> ColumnElement[Any]:
    return tuple_(literal(after[0], BookingRow.updated_at.type), literal(after[1]))


def _rarest(session: Session, terms: Sequence[int]) -> int | None:
    """The term that the fewest bookings have."""
    if len(terms) < 2:
        return terms[0] if terms else None
    return min(terms, key=lambda term: _count(session, BookingTerm.term == term))


def _count(session: Session, condition: ColumnElement[bool]) -> int:
    some = select(literal(1)).where(condition).limit(FEW + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def _terms_of(cipher: Cipher, wanted: Wanted) -> list[int]:
    terms = [term_of(cipher, WORD, word[:LONGEST]) for word in wanted.words]
    if wanted.meeting_type:
        terms.append(term_of(cipher, MEETING_TYPE, wanted.meeting_type))
    if wanted.host:
        terms.append(term_of(cipher, HOST, wanted.host))
    return terms


def _exists(
    booking_id: InstrumentedAttribute[int], condition: ColumnElement[bool]
) -> ColumnElement[bool]:
    query = select(booking_id).where(booking_id == BookingRow.id, condition)
    return query.correlate(BookingRow).exists()


def count_some(session: Session, cipher: Cipher, wanted: Wanted) -> int:
    """How many bookings fit one condition; more than FEW are not counted."""
    conditions: list[ColumnElement[bool]] = [
        BookingTerm.term == term for term in _terms_of(cipher, wanted)
    ]
    if wanted.state is not None:
        conditions.append(DeliveryRow.state == wanted.state.value)
    if wanted.connection_ids is not None:
        conditions.append(DeliveryRow.connection_id.in_(wanted.connection_ids))
    if wanted.outcome is not None:
        conditions.append(BookingRow.outcome == wanted.outcome.value)
    (condition,) = conditions
    return _count(session, condition)
