"""A database with as many synced bookings as wanted, and what a query costs in it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, event, func, insert, select, text
from sqlalchemy.orm import Session

from app.domain.booking import Booking
from app.domain.events import Event, read_booking, read_event
from app.domain.merge import identities
from app.security.encryption import Cipher
from app.store.bookings import hash_of, seal_state
from app.store.boxes import seal
from app.store.engine import Store, utcnow
from app.store.inbox import NewEvent, event_values
from app.store.models import (
    BookingPerson,
    BookingRow,
    ConnectionRow,
    DeliveryRow,
    EventRow,
    RecordLink,
    SyncLog,
)
from app.store.states import DeliveryState, EventStatus
from tests.bridge import sample

MESSAGE = sample("booking_created")
CHUNK = 1000
STEP = 100
"""The number of SQLite's instructions after which it calls back."""


def fill(
    store: Store, cipher: Cipher, bookings: int, undone: bool = False, indexed: bool = True
) -> None:
    """Store bookings of different people that are synced in every connection.

    `undone`: they are due backlog of the second connection and parked in the third one, and those of
    the first one wait for a later time. `indexed`: the search is not to index them.
    """
    now = utcnow() - timedelta(days=1)
    with store.read() as session:
        connections = list(session.scalars(select(ConnectionRow.id).order_by(ConnectionRow.id)))
        first = (session.scalar(select(func.max(BookingRow.id))) or 0) + 1
    likeness = read_booking(read_event("default", MESSAGE, now))
    for start in range(first, first + bookings, CHUNK):
        numbers = range(start, min(start + CHUNK, first + bookings))
        made = {number: _booking(likeness, number) for number in numbers}
        with store.write() as session:
            _insert(session, cipher, made, connections, undone, indexed)


def _booking(likeness: Booking, number: int) -> Booking:
    person = replace(likeness.attendees[0], email=f"p{number}@corp{number % 1000}.example")
    began = likeness.start + timedelta(minutes=number % 500_000)
    return replace(likeness, id=f"many-{number}", attendees=(person,), start=began)


def _insert(
    session: Session,
    cipher: Cipher,
    made: dict[int, Booking],
    connections: list[int],
    undone: bool,
    indexed: bool,
) -> None:
    now = utcnow() - timedelta(days=1)
    bookings, people, events = [], [], []
    for number, booking in made.items():
        bookings.append(
            {
                "id": number, "key": booking.key, "status": booking.status.value, "revision": 1,
                "start": booking.start, "version": booking.version, "updated_at": now, "indexed": indexed,
                "state_encrypted": seal_state(booking, cipher),
            }
        )  # fmt: skip
        people += [
            {"booking_id": number, "person_hash": hash_of(cipher, who)}
            for who in identities(booking)
        ]
        message = Event("default", "booking_created", {**MESSAGE, "id": booking.id}, now)
        new = NewEvent(message, EventStatus.APPLIED, booking.key)
        events.append(event_values(cipher, new))
    places = [(number, place) for number in made for place in range(len(connections))]
    session.execute(insert(BookingRow), bookings)
    session.execute(insert(BookingPerson), people)
    session.execute(insert(EventRow), events)
    session.execute(
        insert(DeliveryRow), [_delivery(n, p, connections[p], undone, now) for n, p in places]
    )
    session.execute(insert(RecordLink), [_link(cipher, n, connections[p]) for n, p in places])
    last = session.scalar(select(func.max(SyncLog.id))) or 0
    log = [
        {"id": last + line, "delivery_id": _number(n, p), "object": "deal", "record_id": str(n),
         "outcome": "created", "at": now}
        for line, (n, p) in enumerate(places, start=1)
    ]  # fmt: skip
    session.execute(insert(SyncLog), log)


def _number(booking: int, place: int) -> int:
    """The id of a delivery; the ids below it are left to others."""
    return booking * 10 + place


def _delivery(
    number: int, place: int, connection_id: int, undone: bool, now: Any
) -> dict[str, Any]:
    state, due_since, attempt = DeliveryState.SYNCED, None, now
    if undone:
        state = (DeliveryState.WAITING, DeliveryState.DUE, DeliveryState.PARKED)[place]
        due_since = now if state == DeliveryState.DUE else None
        attempt = now + timedelta(days=30) if state == DeliveryState.WAITING else now
    return {
        "id": _number(number, place), "booking_id": number, "connection_id": connection_id,
        "wanted_revision": 1, "synced_revision": 1, "state": state.value, "due_since": due_since,
        "next_attempt_at": attempt, "backlog": state == DeliveryState.DUE, "updated_at": now,
        "mapping_version": "older", "notes": [], "error_fields": {}, "round_robin_position": number,
    }  # fmt: skip


def _link(cipher: Cipher, number: int, connection_id: int) -> dict[str, Any]:
    key = f"default:many-{number}"
    place = {"connection_id": connection_id, "object": "deal", "key_hash": hash_of(cipher, key)}
    return {
        **place,
        "key_encrypted": seal(cipher, RecordLink.key_encrypted, place, key),
        "fingerprints_encrypted": seal(cipher, RecordLink.fingerprints_encrypted, place, "{}"),
        "record_id": f"many-{number}",
        "updated_at": utcnow(),
    }


def analyze(store: Store) -> None:
    """Let the database count its rows, as autovacuum does on a running PostgreSQL."""
    if store.engine.dialect.name == "postgresql":
        with store.write() as session:
            for table in ("bookings", "deliveries", "sync_log"):
                last = f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"
                session.execute(text(last))
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


class Idle:
    """A pool of drains that begins nothing."""

    stopping = threading.Event()

    def submit(self, connection_id: int) -> None:
        """Begin no drain."""

    def aside(self, name: str, action: Callable[[], object], again: bool = False) -> None:
        """Begin no action."""


class Costs:
    """What each statement costs: SQLite's instructions, or the pages that PostgreSQL looks at."""

    def __init__(self) -> None:
        self.by_statement: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """The cost of all statements."""
        return sum(self.by_statement.values())

    @contextmanager
    def measured(self, engine: Engine) -> Iterator[Costs]:
        """Measure what is done on an engine within the block."""
        explained = engine.dialect.name == "postgresql"
        before = self._explain if explained else self._count
        event.listen(engine, "before_cursor_execute", before)
        try:
            yield self
        finally:
            event.remove(engine, "before_cursor_execute", before)

    def _count(
        self, connection: Connection, cursor: Any, statement: str, values: Any, *rest: Any
    ) -> None:
        def step() -> int:
            self.by_statement[statement] += STEP
            return 0

        cursor.connection.set_progress_handler(step, STEP)

    def _explain(
        self, connection: Connection, cursor: Any, statement: str, values: Any, *rest: Any
    ) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "UPDATE", "INSERT", "DELETE")):
            return
        many = isinstance(values, (list, tuple))
        with cursor.connection.cursor() as own:
            own.execute("SAVEPOINT cost")
            own.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}",
                values[0] if many else values,
            )
            (told,) = own.fetchone()
            own.execute("ROLLBACK TO SAVEPOINT cost")
        plan = (told if isinstance(told, list) else json.loads(told))[0]["Plan"]
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        self.by_statement[statement] += pages
