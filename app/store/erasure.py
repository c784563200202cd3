"""Finds all that the database holds on one person, and deletes it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Table, cast, delete, or_, select, update
from sqlalchemy import Text as SqlText
from sqlalchemy.orm import Session

from app.crm.objects import PEOPLE, ObjectName, Ref
from app.domain.booking import Booking
from app.domain.erased import without_people, words_of
from app.domain.reduced import reduced
from app.security.encryption import Cipher
from app.store.all_tables import metadata
from app.store.bookings import hash_of, seal_state, state_text, stored_state
from app.store.boxes import unseal
from app.store.columns import Label, Text
from app.store.erased import note_erased
from app.store.ledger import Ledger
from app.store.models import (
    BookingPerson,
    BookingRow,
    ConnectionRow,
    DeliveryRow,
    EventRow,
    SyncLog,
)
from app.store.payloads import forget_payloads
from app.store.retention import forget_aside, forget_words
from app.store.states import EventStatus

CHUNK = 500
ANOTHER = "an erased person"
"""What stands for an erased person in notes and messages for people."""
STAFF = {("connections", "account"), ("audit_log", "actor")}
"""Columns with the names of accounts and of people who use this service."""


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
    events: list[int] = field(default_factory=list)
    """Webhooks with the person in their content."""
    waiting: list[int] = field(default_factory=list)
    """Those of them that meetergo has yet to confirm."""
    records: list[PersonRecord] = field(default_factory=list)


def look_for(session: Session, cipher: Cipher, identity: str) -> Traces:
    """Find a person by identity (`email:…` or `phone:…`): in bookings, webhooks and the ledger.

    All bookings and webhooks with content are read: this is rare, and nothing may be overlooked.
    """
    traces = Traces(identity, {identity.partition(":")[2]})
    theirs = select(BookingPerson.booking_id).where(
        BookingPerson.person_hash == hash_of(cipher, identity)
    )
    known = set(session.scalars(theirs))
    for row in _each(session, BookingRow):
        if row.id in known or (row.reduced_at is None and _tells(state_text(row, cipher), traces)):
            booking = stored_state(row, cipher)
            traces.bookings[row.id] = replace(booking, reduced_at=row.reduced_at, story=row.story)
            traces.words |= words_of(booking, identity)
    keys = {booking.key for booking in traces.bookings.values()}
    for event in _each(session, EventRow, EventRow.payload_encrypted.is_not(None)):
        if event.booking_key in keys or _tells(_content(event, cipher), traces):
            waits = event.status in (EventStatus.STORED, EventStatus.RECEIVED)
            (traces.waiting if waits else traces.events).append(event.id)
    traces.records = _records(session, cipher, traces)
    return traces


def erase(session: Session, cipher: Cipher, traces: Traces, now: datetime) -> None:
    """Delete all that was found, and note that the person is not to come back."""
    keys = [booking.key for booking in traces.bookings.values()]
    person = hash_of(cipher, traces.identity)
    for number, booking in traces.bookings.items():
        row = session.get_one(BookingRow, number, with_for_update=True)
        left = without_people(booking, {traces.identity}, now)
        if left.reduced_at is None and _is_told(left, traces):
            # Others wrote the name or the address somewhere in the booking.
            left = replace(reduced(booking), reduced_at=now)
        row.reduced_at = left.reduced_at
        row.state_encrypted = seal_state(replace(left, story=None, reduced_at=None), cipher)
    session.execute(delete(BookingPerson).where(BookingPerson.person_hash == person))
    session.flush()
    forget_payloads(session, keys)
    forget_aside(session, [*traces.events, *traces.waiting])
    forget_words(session, list(traces.bookings))
    for connection_id in session.scalars(select(ConnectionRow.id)).all():
        ledger = Ledger(session, cipher, connection_id)
        for name in PEOPLE:
            ledger.forget(Ref(name, traces.identity))
    theirs = select(DeliveryRow.id).where(DeliveryRow.booking_id.in_(traces.bookings))
    lines = delete(SyncLog).where(SyncLog.delivery_id.in_(theirs), SyncLog.object.in_(PEOPLE))
    session.execute(lines.execution_options(synchronize_session=False))
    note_erased(session, person, keys, now)
    _scrub(session, traces.words)


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
    payload = json.loads(unseal(cipher, EventRow.payload_encrypted, event))
    return json.dumps(payload, ensure_ascii=False)


def _tells(text: str, traces: Traces) -> bool:
    """Whether a text has the person's address or number."""
    return traces.identity.partition(":")[2].lower() in text.lower()


def _is_told(booking: Booking, traces: Traces) -> bool:
    text = str(booking).lower()
    return any(word.lower() in text for word in traces.words)


def _records(session: Session, cipher: Cipher, traces: Traces) -> list[PersonRecord]:
    """The person's records in every CRM, and those of the bookings that they took part in."""
    found = {}
    for connection in session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)).all():
        ledger = Ledger(session, cipher, connection.id)
        people = [Ref(name, traces.identity) for name in PEOPLE]
        refs = dict.fromkeys(people, True)
        for booking in traces.bookings.values():
            others = {p.identity for p in booking.attendees} - {traces.identity}
            for ref in own_refs(booking):
                refs[ref] = not others and ref.object is ObjectName.MEETING
        for ref, entry in ledger.read(refs).items():
            if ref in refs and entry.record_id:
                place = (connection.id, connection.provider, ref.object.value, entry.record_id)
                found[place] = PersonRecord(*place, entry.url, refs[ref])
    return list(found.values())


def own_refs(booking: Booking) -> list[Ref]:
    """The records that a booking may have for itself: its deal, its case, its meetings."""
    key = booking.record_key
    own = [Ref(name, key) for name in (ObjectName.DEAL, ObjectName.CASE, ObjectName.MEETING)]
    # If the mapping keeps the history of moves, there is a meeting for each start so far.
    starts = (*booking.previous_starts, booking.start)
    return own + [Ref(ObjectName.MEETING, f"{key}@{start:%Y%m%dT%H%M%SZ}") for start in starts]


def _scrub(session: Session, words: Collection[str]) -> None:
    """Take the person out of every text for people: errors, notes, notices."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            kind = isinstance(column.type, Text | Label | JSON)
            if kind and "purpose" not in column.info and (table.name, column.name) not in STAFF:
                _scrub_column(session, table, column, sorted(words, key=len, reverse=True))


def _scrub_column(
    session: Session, table: Table, column: Column[Any], words: Sequence[str]
) -> None:
    keys = list(table.primary_key.columns)
    text = cast(column, SqlText)
    forms = {form for word in words for form in (word, json.dumps(word)[1:-1])}
    named = or_(*(text.icontains(form, autoescape=True) for form in sorted(forms)))
    for row in session.execute(select(*keys, column).where(named)).all():
        value = row[-1]
        fresh: Any = _without(value, words)
        if isinstance(column.type, JSON):
            fresh = json.loads(_without(json.dumps(value, ensure_ascii=False), words))
        mine = [key == part for key, part in zip(keys, row[:-1], strict=True)]
        session.execute(update(table).where(*mine).values({column.name: fresh}))


def _without(text: str, words: Sequence[str]) -> str:
    for word in words:
        text = re.sub(re.escape(word), ANOTHER, text, flags=re.IGNORECASE)
    return text
