"""What has to go where: one delivery per booking and connection, and who may work on it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session

from app.domain.errors import Blocked, CrmError, Gone, RetryLater
from app.store.bookings import insert_ignoring
from app.store.models import (
    WORKING,
    BookingRow,
    ConnectionRow,
    ConnectionStatus,
    DeliveryRow,
    DeliveryState,
)

LEASE = timedelta(seconds=120)
"""How long a drainer may be silent before another one takes its connection over."""
RETRY_CEILINGS = (30, 120, 600, 1800, 7200, 21_600, 43_200, 86_400, 86_400, 129_600)
"""Seconds: the longest wait before each new attempt; the last ends over 96 hours after the first."""
WORKABLE = (DeliveryState.DUE, DeliveryState.RETRYING, DeliveryState.WAITING)


def want(session: Session, booking: BookingRow, now: datetime) -> list[int]:
    """Mark the newest state as due everywhere; give the connections to wake."""
    connections = session.scalars(
        select(ConnectionRow).where(ConnectionRow.status != ConnectionStatus.DISCONNECTED)
    ).all()
    for connection in connections:
        want_for(session, booking, connection, now)
    return [c.id for c in connections if c.status in WORKING]


def want_for(
    session: Session, booking: BookingRow, connection: ConnectionRow, now: datetime
) -> None:
    """Mark a booking's newest state as due for one connection; a failed delivery gets new tries."""
    active = connection.status in WORKING
    values = {
        "booking_id": booking.id,
        "connection_id": connection.id,
        "wanted_revision": booking.revision,
        "state": (DeliveryState.DUE if active else DeliveryState.PARKED).value,
        "attempts": 0,
        "next_attempt_at": now,
        "updated_at": now,
    }
    new = {**values, "synced_revision": 0, "calls": 0}
    session.execute(insert_ignoring(session, DeliveryRow, new, ["booking_id", "connection_id"]))
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.booking_id == booking.id, DeliveryRow.connection_id == connection.id)
        .values(**values)
    )


def take_lease(session: Session, connection_id: int, now: datetime) -> int | None:
    """Become the one drainer of a connection; give the fencing token, or None if there is one."""
    taken = session.execute(
        update(ConnectionRow)
        .where(
            ConnectionRow.id == connection_id,
            ConnectionRow.status.in_(WORKING),
            or_(ConnectionRow.drain_until.is_(None), ConnectionRow.drain_until < now),
            or_(ConnectionRow.pause_until.is_(None), ConnectionRow.pause_until <= now),
        )
        .values(drain_fence=ConnectionRow.drain_fence + 1, drain_until=now + LEASE)
        .returning(ConnectionRow.drain_fence)
    )
    fence: int | None = taken.scalar()
    return fence


def hold_lease(session: Session, connection_id: int, fence: int, now: datetime) -> bool:
    """Renew a lease and lock it for this transaction; False where another drainer has it."""
    held = session.execute(
        update(ConnectionRow)
        .where(ConnectionRow.id == connection_id, ConnectionRow.drain_fence == fence)
        .values(drain_until=now + LEASE)
        .returning(ConnectionRow.id)
    )
    return held.scalar() is not None


def give_lease(session: Session, connection_id: int, fence: int) -> None:
    """Let the next drainer in."""
    session.execute(
        update(ConnectionRow)
        .where(ConnectionRow.id == connection_id, ConnectionRow.drain_fence == fence)
        .values(drain_until=None)
    )


def due(
    session: Session, connection_id: int, now: datetime, limit: int
) -> list[tuple[DeliveryRow, BookingRow]]:
    """The deliveries to work on now, oldest first."""
    query = (
        select(DeliveryRow, BookingRow)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state.in_(WORKABLE),
            DeliveryRow.next_attempt_at <= now,
        )
        .order_by(DeliveryRow.next_attempt_at, DeliveryRow.id)
        .limit(limit)
    )
    return [(delivery, booking) for delivery, booking in session.execute(query)]


def connections_with_work(session: Session, now: datetime) -> list[int]:
    """Active connections that have something due."""
    query = (
        select(DeliveryRow.connection_id)
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .where(
            DeliveryRow.state.in_(WORKABLE),
            DeliveryRow.next_attempt_at <= now,
            ConnectionRow.status.in_(WORKING),
            or_(ConnectionRow.pause_until.is_(None), ConnectionRow.pause_until <= now),
        )
        .distinct()
    )
    return list(session.scalars(query))


@dataclass(frozen=True)
class Ending:
    """How a delivery ended beside its state."""

    calls: int
    mapping_version: str
    notes: tuple[str, ...] = ()
    again_at: datetime | None = None


def end_well(
    session: Session, delivery_id: int, revision: int, ending: Ending, now: datetime
) -> None:
    """Note that a revision is in the CRM; a newer one that came meanwhile stays due."""
    row = _ended(session, delivery_id, ending, now)
    row.synced_revision, row.attempts, row.again_at = revision, 0, ending.again_at
    row.state = DeliveryState.SYNCED if row.wanted_revision == revision else DeliveryState.DUE
    row.error_code = row.error_message = row.error_advice = None


def end_skipped(
    session: Session, delivery_id: int, revision: int, why: str, ending: Ending, now: datetime
) -> None:
    """Note that the mapping wants nothing of a revision, and why."""
    end_well(session, delivery_id, revision, ending, now)
    row = session.get_one(DeliveryRow, delivery_id)
    if row.state == DeliveryState.SYNCED:
        row.state, row.error_message = DeliveryState.SKIPPED, why


def put_off(
    session: Session,
    delivery_id: int,
    revision: int,
    until: datetime,
    ending: Ending,
    now: datetime,
) -> None:
    """Leave a delivery for later; a newer revision that came meanwhile is looked at at once."""
    row = _ended(session, delivery_id, ending, now)
    if row.wanted_revision == revision:
        row.state, row.next_attempt_at = DeliveryState.WAITING, until


def _ended(session: Session, delivery_id: int, ending: Ending, now: datetime) -> DeliveryRow:
    row = session.get_one(DeliveryRow, delivery_id, with_for_update=True)
    row.calls += ending.calls
    row.mapping_version, row.notes = ending.mapping_version, list(ending.notes)
    row.updated_at = now
    return row


def ripen(session: Session, now: datetime) -> None:
    """Take up again what was to be looked at once more although nothing changed."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.again_at <= now, DeliveryRow.state == DeliveryState.SYNCED)
        .values(state=DeliveryState.DUE.value, again_at=None, next_attempt_at=now)
        .execution_options(synchronize_session=False)
    )


def want_resync(session: Session, connection_id: int, version: str, now: datetime) -> int:
    """Mark as due what another version of the mapping has planned; give its number."""
    settled = (DeliveryState.SYNCED, DeliveryState.SKIPPED, DeliveryState.FAILED)
    changed = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state.in_(settled),
            or_(
                DeliveryRow.mapping_version.is_(None),
                DeliveryRow.mapping_version != version,
            ),
        )
        .values(state=DeliveryState.DUE.value, attempts=0, next_attempt_at=now, updated_at=now)
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(changed.all())


def take_turn(session: Session, delivery: DeliveryRow) -> int:
    """A booking's place in the rotation of owners: the next one, and from then on always that."""
    if delivery.turn is None:
        query = select(func.max(DeliveryRow.turn)).where(
            DeliveryRow.connection_id == delivery.connection_id
        )
        last = session.scalar(query)
        delivery.turn = 0 if last is None else last + 1
        session.flush()
    return delivery.turn


def end_badly(
    session: Session, delivery_id: int, revision: int, error: CrmError, calls: int, now: datetime
) -> bool:
    """Note a failure: tried again later with full jitter, or given up until a newer event.

    True where it was given up.
    """
    row = session.get_one(DeliveryRow, delivery_id, with_for_update=True)
    row.calls += calls
    row.again_at = None
    row.attempts += 1
    row.error_code, row.error_message = error.code, error.message
    row.error_advice = error.advice
    row.updated_at = now
    if row.wanted_revision != revision:
        # A newer state came meanwhile and is tried at once: it may mend what failed.
        row.state, row.attempts = DeliveryState.DUE, 0
        return False
    transient = isinstance(error, (RetryLater, Gone, Blocked))
    if not transient or row.attempts > len(RETRY_CEILINGS):
        row.state = DeliveryState.FAILED
        return True
    row.state = DeliveryState.RETRYING
    row.next_attempt_at = now + _wait(error, row.attempts)
    return False


def _wait(error: CrmError, attempts: int) -> timedelta:
    if isinstance(error, Gone) and attempts == 1:
        return timedelta()  # the ledger has forgotten the record; it is made again at once
    after = error.after if isinstance(error, RetryLater) else None
    ceiling = RETRY_CEILINGS[attempts - 1]
    return timedelta(seconds=after or random.uniform(ceiling / 4, ceiling))  # noqa: S311


def park(session: Session, connection_id: int, now: datetime) -> None:
    """Set the work of a broken connection aside: nothing is tried, nothing is lost."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.connection_id == connection_id, DeliveryRow.state.in_(WORKABLE))
        .values(state=DeliveryState.PARKED.value, updated_at=now)
    )


def unpark(session: Session, connection_id: int, now: datetime) -> None:
    """Take parked work up again, in the newest state of each booking."""
    newest = select(BookingRow.revision).where(BookingRow.id == DeliveryRow.booking_id)
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .values(
            state=DeliveryState.DUE.value,
            wanted_revision=newest.scalar_subquery(),
            next_attempt_at=now,
            updated_at=now,
        )
        .execution_options(synchronize_session=False)
    )


def discard_parked(session: Session, connection_id: int, now: datetime) -> int:
    """Let go of parked work; a newer event of a booking takes it up again. Give its number."""
    gone = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .values(state=DeliveryState.DISCARDED.value, updated_at=now)
        .returning(DeliveryRow.id)
    )
    return len(gone.all())


def count_parked(session: Session, connection_id: int) -> int:
    """How many bookings wait for a connection to work again."""
    query = select(func.count()).where(
        DeliveryRow.connection_id == connection_id, DeliveryRow.state == DeliveryState.PARKED
    )
    return session.scalar(query) or 0


def want_missed(
    session: Session, connection: ConnectionRow, now: datetime, since: datetime | None
) -> int:
    """Mark as due what a connection has not in its newest state: bookings that have not begun, and
    those that changed after `since` (when it was disconnected). Give their number.
    """
    wanted = BookingRow.start >= now
    if since is not None:
        wanted = or_(wanted, BookingRow.updated_at >= since)
    settled = exists().where(
        DeliveryRow.booking_id == BookingRow.id,
        DeliveryRow.connection_id == connection.id,
        DeliveryRow.wanted_revision == BookingRow.revision,
    )
    rows = session.scalars(select(BookingRow).where(wanted, ~settled).order_by(BookingRow.id)).all()
    for row in rows:
        want_for(session, row, connection, now)
    return len(rows)


def want_again(session: Session, connection_id: int, now: datetime) -> None:
    """Mark everything that was ever wanted as due once more: the records are gone or elsewhere."""
    newest = select(BookingRow.revision).where(BookingRow.id == DeliveryRow.booking_id)
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state != DeliveryState.DISCARDED,
        )
        .values(
            state=DeliveryState.DUE.value,
            wanted_revision=newest.scalar_subquery(),
            synced_revision=0,
            attempts=0,
            next_attempt_at=now,
            updated_at=now,
        )
        .execution_options(synchronize_session=False)
    )


def count_by_state(session: Session) -> dict[tuple[str, str], int]:
    """(provider, state) -> number of deliveries."""
    query = (
        select(ConnectionRow.provider, DeliveryRow.state, func.count())
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .group_by(ConnectionRow.provider, DeliveryRow.state)
    )
    return {(provider, state): number for provider, state, number in session.execute(query)}
