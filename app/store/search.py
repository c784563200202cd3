"""Finds bookings by words, and by what they are listed by, in data that stays encrypted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Select, delete, false, func, insert, literal, select, tuple_, update
from sqlalchemy.orm import Session

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
"""Up to so many bookings of one condition are looked at one by one; no more are counted."""

Cursor = tuple[datetime, int]
"""Last change and id of a booking: where the next page begins."""


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
    query = select(BookingRow.id).where(BookingRow.indexed.is_(False)).limit(1)
    return session.scalar(query) is not None


def index_some(session: Session, cipher: Cipher, most: int) -> int:
    """Write the terms of bookings whose terms are out of date; return how many bookings these were."""
    query = (
        select(BookingRow)
        .where(BookingRow.indexed.is_(False))
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
) -> list[BookingRow]:
    """The bookings that fit, those that changed last first.

    Words longer than what the index holds may bring others, too: the caller compares them.
    """
    conditions = _conditions(cipher, wanted)
    newest = (BookingRow.updated_at.desc(), BookingRow.id.desc())
    query = select(BookingRow).order_by(*newest).limit(most)
    if wanted.since is not None:
        query = query.where(BookingRow.updated_at >= wanted.since)
    if after is not None:
        place = tuple_(literal(after[0], BookingRow.updated_at.type), literal(after[1]))
        query = query.where(tuple_(BookingRow.updated_at, BookingRow.id) < place)
    few = _few(session, conditions)
    if few is not None:
        query = query.where(BookingRow.id.in_(few))
    for ids in conditions:
        query = query.where(BookingRow.id.in_(ids))
    return list(session.scalars(query))


def _few(session: Session, conditions: Iterable[Select[int]]) -> list[int] | None:
    """The bookings of the first condition that only few fit: then nobody walks through all of them."""
    for condition in conditions:
        ids = list(session.scalars(condition.limit(FEW + 1)))
        if len(ids) <= FEW:
            return ids
    return None


def _conditions(cipher: Cipher, wanted: Wanted) -> list[Select[int]]:
    terms = [term_of(cipher, WORD, word[:LONGEST]) for word in wanted.words]
    if wanted.meeting_type:
        terms.append(term_of(cipher, MEETING_TYPE, wanted.meeting_type))
    if wanted.host:
        terms.append(term_of(cipher, HOST, wanted.host))
    found = [select(BookingTerm.booking_id).where(BookingTerm.term == term) for term in terms]
    if wanted.state is not None or wanted.connection_ids is not None:
        found.append(_deliveries(wanted.state, wanted.connection_ids))
    if wanted.outcome is not None:
        found.append(select(BookingRow.id).where(BookingRow.outcome == wanted.outcome.value))
    return found


def _deliveries(state: DeliveryState | None, connection_ids: tuple[int, ...] | None) -> Select[int]:
    query = select(DeliveryRow.booking_id)
    if state is not None:
        query = query.where(DeliveryRow.state == state)
    if connection_ids is not None:
        query = query.where(DeliveryRow.connection_id.in_(connection_ids))
    return query if connection_ids != () else query.where(false())


def count_some(session: Session, cipher: Cipher, wanted: Wanted) -> int:
    """How many bookings fit one condition; more than FEW are not counted."""
    (condition,) = _conditions(cipher, wanted)
    some = condition.limit(FEW + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0
