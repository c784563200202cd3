"""Finds all that the database holds on one person, and deletes it.

A person is found by the keyed hash of the whole address among those who take part in bookings, and in
texts as a whole word: `anna@…` is no part of `susanna@…`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, cast, delete, or_, select, update
from sqlalchemy import Text as SqlText
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.crm.objects import PEOPLE, ObjectName, Ref
from app.domain.booking import Booking
from app.domain.erased import without_people, words_of
from app.domain.text import reworded
from app.security.encryption import Cipher, UnreadableSecret
from app.store.access_models import AuditLog, Revocation
from app.store.bookings import hash_of, seal_state, stored_state, with_texts
from app.store.boxes import unseal
from app.store.erased import note_erased
from app.store.ledger import Ledger
from app.store.models import (
    Backfill,
    BookingPerson,
    BookingRow,
    ConnectionRow,
    DeliveryRow,
    EventRow,
    Notice,
    SourceState,
    SyncLog,
)
from app.store.payloads import UNPROCESSED, forget_payloads
from app.store.retention import forget_aside, forget_words
from app.store.search import forget_terms

CHUNK = 500
ANOTHER = "an erased person"
"""What stands for an erased person in notes and messages for people."""
WORDS: dict[Any, tuple[InstrumentedAttribute[Any], ...]] = {
    DeliveryRow: (
        DeliveryRow.notes, DeliveryRow.error_message, DeliveryRow.error_advice,
        DeliveryRow.error_fields, DeliveryRow.error_raw,
    ),
    Notice: (Notice.reason, Notice.next_step),
    ConnectionRow: (
        ConnectionRow.last_error, ConnectionRow.next_step, ConnectionRow.mapping_problem,
        ConnectionRow.account_notes,
    ),
    EventRow: (EventRow.error,),
    Revocation: (Revocation.error,),
    SourceState: (SourceState.problem, SourceState.next_step),
    Backfill: (Backfill.error,),
    AuditLog: (AuditLog.subject,),
}  # fmt: skip
"""The columns with sentences for people, which may quote a person."""


@dataclass(frozen=True)
class PersonRecord:
    """A record in a CRM that is about a person."""

    connection_id: int
    provider: str
    object: str
    record_id: str
    url: str
    alone: bool
    """Whether it stands for this person alone, and is no deal: it can be deleted with them."""


@dataclass
class Traces:
    """Where a person occurs in the database."""

    identity: str
    words: set[str]
    """Texts by which the person can be told: address, number, whole name."""
    bookings: dict[int, Booking] = field(default_factory=dict)
    """The bookings that the person takes part in, or left."""
    shared: set[int] = field(default_factory=set)
    """Those of them that have other people too."""
    events: list[int] = field(default_factory=list)
    """Webhooks of these bookings, and those of no booking that name the person."""
    waiting: int = 0
    """Webhooks of these bookings that are yet to be processed: they are left to that."""
    records: list[PersonRecord] = field(default_factory=list)


def look_for(session: Session, cipher: Cipher, identity: str) -> Traces:
    """Find a person by identity (`email:…` or `phone:…`): in bookings, webhooks and the ledger.

    Raises UnreadableSecret if a booking of the person cannot be read.
    """
    traces = Traces(identity, {identity.partition(":")[2]})
    person = hash_of(cipher, identity)
    theirs = select(BookingPerson.booking_id).where(BookingPerson.person_hash == person)
    for row in session.scalars(select(BookingRow).where(BookingRow.id.in_(theirs))):
        booking = replace(stored_state(row, cipher), reduced_at=row.reduced_at, story=row.story)
        traces.bookings[row.id] = booking
        traces.words |= words_of(booking, identity)
    others = select(BookingPerson.booking_id).where(
        BookingPerson.booking_id.in_(theirs), BookingPerson.person_hash != person
    )
    traces.shared = set(session.scalars(others.distinct()))
    keys = [booking.key for booking in traces.bookings.values()]
    mine = EventRow.booking_key.in_(keys)
    full = EventRow.payload_encrypted.is_not(None)
    done = EventRow.status.not_in(UNPROCESSED)
    traces.events = list(session.scalars(select(EventRow.id).where(mine, full, done)))
    traces.waiting = len(session.scalars(select(EventRow.id).where(mine, full, ~done)).all())
    is_told = _finder(traces.words)
    for event in _each(session, EventRow, EventRow.booking_key.is_(None), full, done):
        if is_told(_content(event, cipher)):
            traces.events.append(event.id)
    traces.records = _records(session, cipher, traces)
    return traces


def erase(
    session: Session, cipher: Cipher, traces: Traces, quotes: Sequence[Quote], now: datetime
) -> None:
    """Delete all that was found, and note that the person is not to come back.

    `quotes`: the places of sentences that may name the person, from `quotes_of`.
    """
    keys = [booking.key for booking in traces.bookings.values()]
    person, change = hash_of(cipher, traces.identity), _eraser(traces.words)
    query = select(BookingRow).where(BookingRow.id.in_(traces.bookings)).order_by(BookingRow.id)
    for row in session.scalars(query.with_for_update()):
        left = without_people(traces.bookings[row.id], {traces.identity}, now)
        if left.reduced_at is None:
            # Others may have written the name or the address somewhere in the booking.
            left = with_texts(left, change)
        row.reduced_at = row.reduced_at or left.reduced_at
        row.state_encrypted = seal_state(replace(left, story=None, reduced_at=None), cipher)
    session.execute(delete(BookingPerson).where(BookingPerson.person_hash == person))
    session.flush()
    forget_payloads(session, keys)
    forget_aside(session, traces.events)
    forget_words(session, list(traces.bookings))
    forget_terms(session, list(traces.bookings))
    for connection_id in session.scalars(select(ConnectionRow.id)).all():
        ledger = Ledger(session, cipher, connection_id)
        for name in PEOPLE:
            ledger.forget(Ref(name, traces.identity))
    theirs = select(DeliveryRow.id).where(DeliveryRow.booking_id.in_(traces.bookings))
    lines = delete(SyncLog).where(SyncLog.delivery_id.in_(theirs), SyncLog.object.in_(PEOPLE))
    session.execute(lines.execution_options(synchronize_session=False))
    note_erased(session, person, keys, now)
    for quote in quotes:
        _scrub(session, quote, change)


def _each(session: Session, model: Any, *where: Any) -> Iterator[Any]:
    """All rows of a table by id, a chunk at a time."""
    last = 0
    while True:
        query = select(model).where(model.id > last, *where).order_by(model.id).limit(CHUNK)
        rows = session.scalars(query).all()
        yield from rows
        if len(rows) < CHUNK:
            return
        last = rows[-1].id


def _content(event: EventRow, cipher: Cipher) -> str:
    try:
        payload = json.loads(unseal(cipher, EventRow.payload_encrypted, event))
    except UnreadableSecret:
        # Nobody can read it; `doctor` reports it.
        return ""
    return json.dumps(payload, ensure_ascii=False)


def _pattern(words: set[str]) -> re.Pattern[str]:
    """Finds each of the words where it stands for itself, in any case."""
    every = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<![\w.+-])(?:{every})(?![\w-]|\.\w)", re.IGNORECASE)


def _finder(words: set[str]) -> Callable[[str], bool]:
    pattern = _pattern(words)
    return lambda text: pattern.search(text) is not None


def _eraser(words: set[str]) -> Callable[[str], str]:
    pattern = _pattern(words)
    return lambda text: pattern.sub(ANOTHER, text)


def _records(session: Session, cipher: Cipher, traces: Traces) -> list[PersonRecord]:
    """The person's records in every CRM, and those of the bookings that they took part in."""
    found = {}
    for connection in session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)).all():
        ledger = Ledger(session, cipher, connection.id)
        people = [Ref(name, traces.identity) for name in PEOPLE]
        refs = dict.fromkeys(people, True)
        for number, booking in traces.bookings.items():
            for ref in own_refs(booking):
                refs[ref] = number not in traces.shared and ref.object is ObjectName.MEETING
        for ref, entry in ledger.read(refs).items():
            if ref in refs and entry.record_id:
                place = (connection.id, connection.provider, ref.object.value, entry.record_id)
                # Two people may have become one record in the CRM.
                alone = refs[ref] and not ledger.claimed(ref, entry.record_id)
                found[place] = PersonRecord(*place, entry.url, alone)
    return list(found.values())


def own_refs(booking: Booking) -> list[Ref]:
    """The records that a booking may have for itself: its deal, its case, its meetings."""
    key = booking.record_key
    own = [Ref(name, key) for name in (ObjectName.DEAL, ObjectName.CASE, ObjectName.MEETING)]
    # If the mapping keeps the history of moves, there is a meeting for each start so far.
    starts = (*booking.previous_starts, booking.start)
    return own + [Ref(ObjectName.MEETING, f"{key}@{start:%Y%m%dT%H%M%SZ}") for start in starts]


@dataclass(frozen=True)
class Quote:
    """A place with a sentence for people that names the person."""

    column: InstrumentedAttribute[Any]
    key: tuple[Any, ...]


def quotes_of(session: Session, words: set[str]) -> list[Quote]:
    """The sentences for people that name somebody. All of them are read: do it without a lock."""
    is_told = _finder(words)
    forms = sorted({form for word in words for form in (word, json.dumps(word)[1:-1])})
    return [
        Quote(column, tuple(key))
        for columns in WORDS.values()
        for column in columns
        for *key, value in session.execute(_naming(column, forms))
        if any(map(is_told, _texts(value)))
    ]


def _naming(column: InstrumentedAttribute[Any], forms: Sequence[str]) -> Select[Any]:
    """The key and the value of each row in which a column holds one of some texts."""
    text = cast(column, SqlText)
    named = or_(*(text.icontains(form, autoescape=True) for form in forms))
    entities: list[Any] = [*column.class_.__table__.primary_key.columns, column]
    return select(*entities).where(named)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _scrub(session: Session, quote: Quote, change: Callable[[str], str]) -> None:
    """Take the person out of one sentence, as it stands now."""
    table = quote.column.class_.__table__
    pairs = zip(table.primary_key.columns, quote.key, strict=True)
    mine = [column == part for column, part in pairs]
    value = session.execute(select(quote.column).where(*mine)).scalar_one_or_none()
    if value is not None:
        fresh = reworded(value, change)
        statement = update(table).where(*mine).values({quote.column.key: fresh})
        session.execute(statement)
