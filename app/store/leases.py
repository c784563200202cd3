"""Who may work on a connection: leases with a fencing token, by one clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Interval,
    and_,
    func,
    literal,
    or_,
    update,
)
from sqlalchemy.orm import Session

from app.store.engine import utcnow
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import WORKING, ConnectionStatus
from app.store.tables import UtcTime

LEASE = timedelta(seconds=15)
"""How long a drainer may be silent before another one takes its connection over."""


SKEW = timedelta(minutes=10)
"""How much the clocks of two machines may differ: what one finds due at once is so for the other."""


PROBE_WITHIN = timedelta(minutes=10)
"""The longest until an account that refused everything is tried again."""


def take_lease(session: Session, connection_id: int, now: datetime) -> int | None:
    """Become the one drainer of a connection; give the fencing token, or None if there is one."""
    taken = session.execute(
        update(ConnectionRow)
        .where(
            ConnectionRow.id == connection_id,
            may_be_tried(now),
            # A lease that ends further ahead than one is long was taken before a clock went back.
            or_(
                ConnectionRow.drain_until.is_(None),
                ConnectionRow.drain_until < _clock(session),
                ConnectionRow.drain_until > _clock(session, 2 * LEASE),
            ),
        )
        .values(drain_fence=ConnectionRow.drain_fence + 1, drain_until=_clock(session, LEASE))
        .returning(ConnectionRow.drain_fence)
    )
    fence: int | None = taken.scalar()
    return fence


def may_be_tried(now: datetime) -> ColumnElement[bool]:
    """Connections that work and are not paused, and broken ones that are to be probed."""
    unpaused = or_(
        ConnectionRow.pause_until.is_(None),
        ConnectionRow.pause_until <= now,
        ConnectionRow.paused_at > now + SKEW,
    )
    probed = and_(
        ConnectionRow.status == ConnectionStatus.ERROR,
        or_(ConnectionRow.probe_at <= now, ConnectionRow.probe_at > now + 2 * PROBE_WITHIN),
    )
    return or_(and_(ConnectionRow.status.in_(WORKING), unpaused), probed)


def hold_lease(session: Session, connection_id: int, fence: int) -> bool:
    """Renew a lease and lock it for this transaction; False where another drainer has it."""
    held = session.execute(
        update(ConnectionRow)
        .where(
            ConnectionRow.id == connection_id,
            ConnectionRow.drain_fence == fence,
            # One that was given back stays so, also where a renewal of it was under way.
            ConnectionRow.drain_until.is_not(None),
        )
        .values(drain_until=_clock(session, LEASE))
        .returning(ConnectionRow.id)
    )
    return held.scalar() is not None


def _clock(session: Session, ahead: timedelta = timedelta()) -> ColumnElement[datetime]:
    """The time that leases go by, and so long after: one clock for the workers of all machines.

    Past one machine that is the database's; SQLite has no other clock than its machine.
    """
    if session.get_bind().dialect.name == "postgresql":
        return func.clock_timestamp(type_=DateTime(timezone=True)) + literal(ahead, Interval())
    return literal(utcnow() + ahead, UtcTime())


def give_lease(session: Session, connection_id: int, fence: int, release: bool = False) -> None:
    """Let the next drainer in.

    `release`: nothing that is still in hand is to blame for the end, so that it counts for nothing.
    """
    if release:
        session.execute(
            update(DeliveryRow)
            .where(DeliveryRow.connection_id == connection_id, DeliveryRow.claimed_by == fence)
            .values(claimed_by=None)
            .execution_options(synchronize_session=False)
        )
    session.execute(
        update(ConnectionRow)
        .where(ConnectionRow.id == connection_id, ConnectionRow.drain_fence == fence)
        .values(drain_until=None)
    )
