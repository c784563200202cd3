"""Marks deliveries as due, parked or waiting: what has to go to which CRM, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    case,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.security.encryption import Cipher
from app.store import causes
from app.store.bookings import hash_of
from app.store.deliveries import WORKABLE
from app.store.leases import SKEW
from app.store.models import BookingPerson, BookingRow, ConnectionRow, DeliveryRow
from app.store.states import TIMED, WORKING, ConnectionStatus, DeliveryState
from app.store.upsert import insert_into

OVERLOOKED, RACE = timedelta(hours=1), timedelta(minutes=1)
"""How long after a connection began to work the sweep looks for bookings that it missed, and how
much earlier than that they may have arrived: no transaction is open for longer."""


FRESH: dict[str, Any] = {
    "attempts": 0, "worker_crashes": 0, "failing_since": None, "last_outage_at": None,
    "failure_notified": False,
}  # fmt: skip
"""The values with which a delivery that is wanted again starts."""


def mark_due(
    session: Session, bookings: Iterable[BookingRow], now: datetime, backlog: bool = False
) -> list[int]:
    """Mark the newest states of bookings as due everywhere; return the connections to wake.

    `backlog`: nobody waits for them, so they come after live bookings.
    """
    query = select(ConnectionRow.id, ConnectionRow.status).order_by(ConnectionRow.id)
    query = query.where(ConnectionRow.status != ConnectionStatus.DISCONNECTED)
    # New deliveries lock their connections. Whoever changes a connection goes on to its deliveries:
    # so the connections come first here too.
    query = query.with_for_update(read=True, key_share=True)
    connections = {number: status for number, status in session.execute(query)}
    mark_due_for(session, bookings, connections, now, backlog)
    return [number for number, status in connections.items() if status in WORKING]


def mark_due_for(
    session: Session,
    bookings: Iterable[BookingRow],
    connections: Mapping[int, str],
    now: datetime,
    backlog: bool = False,
) -> None:
    """Mark the newest states of bookings as due for connections, given with their status.

    A failed delivery gets new tries.
    """
    rows = [
        {
            "booking_id": booking.id,
            "connection_id": number,
            "wanted_revision": booking.revision,
            "synced_revision": 0,
            "state": (DeliveryState.DUE if status in WORKING else DeliveryState.PARKED).value,
            "backlog": backlog,
            "next_attempt_at": now - SKEW,
            "due_since": now,
            "updated_at": now,
            "cause_key": None if status in WORKING else causes.connection_cause(number),
            **FRESH,
        }
        # All code that changes several deliveries does so in this order: so a transaction that
        # waits for one delivery never holds a later one that another transaction waits for.
        for booking in sorted(bookings, key=lambda booking: booking.id)
        for number, status in connections.items()
    ]
    if not rows:
        return
    session.execute(_upsert(session.get_bind().dialect.name, tuple(rows[0])), rows)


@cache
def _upsert(dialect: str, columns: tuple[str, ...]) -> postgresql.Insert | sqlite.Insert:
    """The statement that each webhook needs; to build it takes longer than to run it."""
    insert = insert_into(dialect, DeliveryRow)
    again: dict[str, ColumnElement[Any]] = {name: insert.excluded[name] for name in columns}
    del again["synced_revision"]
    again["wanted_revision"] = _newer(insert.excluded.wanted_revision)
    # A booking that changes while it waits keeps the time since which it waits.
    again["due_since"] = func.coalesce(DeliveryRow.due_since, insert.excluded.due_since)
    # Until it is tried again it has the cause that it had.
    again["cause_key"] = func.coalesce(insert.excluded.cause_key, DeliveryRow.cause_key)
    unique = ["booking_id", "connection_id"]
    return insert.on_conflict_do_update(index_elements=unique, set_=again)


def _newer(revision: ColumnElement[int]) -> ColumnElement[int]:
    """The revision to want, unless a newer one is wanted already: another process may be ahead."""
    wanted = DeliveryRow.wanted_revision
    return case((wanted > revision, wanted), else_=revision)


def release_rechecks(session: Session, now: datetime) -> None:
    """Mark as due the deliveries to be looked at once more, although nothing changed.

    `recheck_at` stays: it shows the plan that this is the second look.
    """
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.recheck_at <= now, DeliveryRow.state == DeliveryState.SYNCED)
        .values(state=DeliveryState.DUE.value, next_attempt_at=now - SKEW, due_since=now)
        .execution_options(synchronize_session=False)
    )


def release_skewed(session: Session, now: datetime) -> None:
    """Mark as due what waits for a time that was set while the clock was ahead of what it is now."""
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.state.in_(TIMED),
            DeliveryRow.updated_at > now + SKEW,
        )
        .values(next_attempt_at=now - SKEW, updated_at=now)
        .execution_options(synchronize_session=False)
    )


def recover_missed(session: Session, now: datetime) -> None:
    """Mark as due the bookings that were stored just when a connection was made or came back.

    The webhook's transaction saw the connection as it was before, and the connection's transaction
    did not see the webhook. Such a booking would wait, or go nowhere, although everything works.
    """
    working = ConnectionRow.status.in_(WORKING)
    parked = exists().where(
        DeliveryRow.connection_id == ConnectionRow.id, DeliveryRow.state == DeliveryState.PARKED
    )
    for connection_id in session.scalars(select(ConnectionRow.id).where(working, parked)).all():
        unpark(session, connection_id, now)
    young = ConnectionRow.status_since > now - OVERLOOKED
    for connection in session.scalars(select(ConnectionRow).where(working, young)).all():
        since = connection.status_since
        _mark_due_unless_settled(
            session,
            connection,
            now,
            BookingRow.updated_at >= since - RACE,
            # What came later saw the connection; the clocks of two machines may differ.
            BookingRow.updated_at <= since + SKEW,
            or_(BookingRow.start >= since, BookingRow.updated_at >= since),
        )


def mark_people_due(
    session: Session, cipher: Cipher, connection_id: int, identities: Iterable[str], now: datetime
) -> None:
    """Look again at the bookings of some people: what the ledger has of them may be wrong."""
    hashes = [hash_of(cipher, identity) for identity in identities]
    theirs = select(BookingPerson.booking_id).where(BookingPerson.person_hash.in_(hashes))
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.SYNCED,
            DeliveryRow.booking_id.in_(theirs),
        )
        .values(
            state=DeliveryState.DUE.value, backlog=True, next_attempt_at=now - SKEW, due_since=now
        )
        .execution_options(synchronize_session=False)
    )


def mark_replanned_due(session: Session, connection_id: int, version: str, now: datetime) -> int:
    """Mark as due the bookings planned by another version of the mapping; return their number.

    Deliveries that are due already may be in the hands of a worker that plans by the version
    before: `replan_by` has them planned again.
    """
    settled = (DeliveryState.SYNCED, DeliveryState.SKIPPED, DeliveryState.FAILED)
    other = or_(DeliveryRow.mapping_version.is_(None), DeliveryRow.mapping_version != version)
    mine = DeliveryRow.connection_id == connection_id
    session.execute(
        update(DeliveryRow)
        .where(mine, DeliveryRow.state.in_(WORKABLE))
        .values(replan_by=version)
        .execution_options(synchronize_session=False)
    )
    changed = session.execute(
        update(DeliveryRow)
        .where(mine, DeliveryRow.state.in_(settled), other)
        .values(
            state=DeliveryState.DUE.value,
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            **FRESH,
        )
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(changed.all())


def retry_failed(
    session: Session,
    now: datetime,
    connection_id: int | None = None,
    delivery_ids: Sequence[int] = (),
) -> list[int]:
    """Give failed deliveries new tries, all or some; return the connections to wake."""
    working = exists().where(
        ConnectionRow.id == DeliveryRow.connection_id, ConnectionRow.status.in_(WORKING)
    )
    conditions = [DeliveryRow.state == DeliveryState.FAILED, working]
    if connection_id is not None:
        conditions.append(DeliveryRow.connection_id == connection_id)
    if delivery_ids:
        conditions.append(DeliveryRow.id.in_(delivery_ids))
    taken = session.execute(
        update(DeliveryRow)
        .where(*conditions)
        .values(
            state=DeliveryState.DUE.value,
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            inconclusive_batches=0,
            **FRESH,
        )
        .returning(DeliveryRow.connection_id)
        .execution_options(synchronize_session=False)
    )
    return [row.connection_id for row in taken]


def park(session: Session, connection_id: int, now: datetime) -> None:
    """Set the work of a broken connection aside: nothing is tried, nothing is lost."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.connection_id == connection_id, DeliveryRow.state.in_(WORKABLE))
        .values(
            state=DeliveryState.PARKED.value,
            updated_at=now,
            cause_key=causes.note_connection(session, connection_id, now),
        )
    )


def unpark(session: Session, connection_id: int, now: datetime) -> None:
    """Resume parked work, with the newest state of each booking."""
    newest = select(BookingRow.revision).where(BookingRow.id == DeliveryRow.booking_id)
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .values(
            state=DeliveryState.DUE.value,
            wanted_revision=_newer(newest.scalar_subquery()),
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            cause_key=None,
        )
        .execution_options(synchronize_session=False)
    )
    causes.settle(session, causes.connection_cause(connection_id), now)


def discard_parked(session: Session, connection_id: int, now: datetime) -> int:
    """Discard parked work; a newer event of a booking resumes it. Return the number discarded."""
    gone = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .values(state=DeliveryState.DISCARDED.value, due_since=None, updated_at=now, cause_key=None)
        .returning(DeliveryRow.id)
    )
    number = len(gone.all())
    causes.settle(session, causes.connection_cause(connection_id), now)
    return number


def count_parked(session: Session, connection_id: int) -> int:
    """The number of bookings that wait for a connection to work again."""
    query = select(func.count()).where(
        DeliveryRow.connection_id == connection_id, DeliveryRow.state == DeliveryState.PARKED
    )
    return session.scalar(query) or 0


def mark_missed_due(
    session: Session, connection: ConnectionRow, now: datetime, since: datetime | None
) -> int:
    """Mark as due the newest states that a connection lacks, and return their number.

    These are bookings that have not begun, and bookings that changed after `since`, when the
    connection was disconnected.
    """
    wanted = BookingRow.start >= now
    if since is not None:
        wanted = or_(wanted, BookingRow.updated_at >= since)
    return _mark_due_unless_settled(session, connection, now, wanted)


def _mark_due_unless_settled(
    session: Session, connection: ConnectionRow, now: datetime, *wanted: ColumnElement[bool]
) -> int:
    settled = exists().where(
        DeliveryRow.booking_id == BookingRow.id,
        DeliveryRow.connection_id == connection.id,
        DeliveryRow.wanted_revision == BookingRow.revision,
    )
    query = select(BookingRow).where(*wanted, ~settled).order_by(BookingRow.id)
    rows = session.scalars(query).all()
    mark_due_for(session, rows, {connection.id: connection.status}, now, backlog=True)
    return len(rows)


def mark_all_due(session: Session, connection_id: int, now: datetime) -> None:
    """Mark everything that was ever wanted as due again: the records are gone or elsewhere."""
    newest = select(BookingRow.revision).where(BookingRow.id == DeliveryRow.booking_id)
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state != DeliveryState.DISCARDED,
        )
        .values(
            state=DeliveryState.DUE.value,
            wanted_revision=_newer(newest.scalar_subquery()),
            synced_revision=0,
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            **FRESH,
        )
        .execution_options(synchronize_session=False)
    )
