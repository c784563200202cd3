"""Which drainer may work on a connection: leases with a fencing token, by one clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    DateTime,
    Interval,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app.store.engine import utcnow
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import WORKING, ConnectionStatus
from app.store.tables import UtcTime

LEASE = timedelta(seconds=15)
"""How long a drainer may be silent before another one takes over its connection."""


SKEW = timedelta(minutes=10)
"""How far the clocks of two machines may differ: work due at once on one is due on the other."""


PROBE_WITHIN = timedelta(minutes=10)
"""The longest time until an account that refused everything is tried again."""


LONGEST_BACKLOG_PAUSE = timedelta(minutes=30)
"""Twice the longest time that backlog waits before the day's budget is checked again."""


def at_moment(now: datetime) -> dict[str, datetime]:
    """The values of the moments used by conditions on deliveries and connections.

    Statements that run for every booking are built once, with placeholders for these values.
    """
    return {
        "at_now": now,
        "at_skewed": now + SKEW,
        "at_probe_limit": now + 2 * PROBE_WITHIN,
        "at_backlog_limit": now + LONGEST_BACKLOG_PAUSE,
    }


def moment(name: str) -> BindParameter[datetime]:
    """A placeholder for one of the moments of `at_moment`."""
    return bindparam(name, type_=UtcTime())


def take_lease(session: Session, connection_id: int, now: datetime) -> int | None:
    """Become the one drainer of a connection; return the fencing token, or None if there is one."""
    by_database = goes_by_database(session)
    values = {"of_connection": connection_id, **at_moment(now), **_lease_moments(by_database)}
    fence: int | None = session.execute(_taking(by_database), values).scalar()
    return fence


@cache
def _taking(by_database: bool) -> ReturningUpdate[int]:
    return (
        update(ConnectionRow)
        .where(
            ConnectionRow.id == bindparam("of_connection"),
            may_be_tried(),
            # A lease that ends further ahead than any lease lasts is from before a clock change.
            or_(
                ConnectionRow.drain_until.is_(None),
                ConnectionRow.drain_until < _clock(by_database, "lease_now"),
                ConnectionRow.drain_until > _clock(by_database, "lease_limit"),
            ),
        )
        .values(
            drain_fence=ConnectionRow.drain_fence + 1,
            drain_until=_clock(by_database, "lease_until"),
        )
        .returning(ConnectionRow.drain_fence)
        .execution_options(synchronize_session=False)
    )


def may_be_tried() -> ColumnElement[bool]:
    """Connections that work and are not paused, and broken ones to probe.

    The condition has placeholders for the moments of `at_moment`.
    """
    unpaused = or_(
        ConnectionRow.pause_until.is_(None),
        ConnectionRow.pause_until <= moment("at_now"),
        ConnectionRow.paused_at > moment("at_skewed"),
    )
    probed = and_(
        ConnectionRow.status == ConnectionStatus.ERROR,
        or_(
            ConnectionRow.probe_at <= moment("at_now"),
            ConnectionRow.probe_at > moment("at_probe_limit"),
        ),
    )
    return or_(and_(ConnectionRow.status.in_(WORKING), unpaused), probed)


def hold_lease(session: Session, connection_id: int, fence: int) -> bool:
    """Renew a lease and lock it for this transaction; False if another drainer has it."""
    by_database = goes_by_database(session)
    values = {"of_connection": connection_id, "of_fence": fence, **_lease_moments(by_database)}
    return session.execute(_holding(by_database), values).scalar() is not None


def lock_idle(session: Session) -> bool:
    """Keep drainers away from all connections until this transaction ends.

    False if one is at work: then nothing is locked for long, as the caller ends the transaction.
    """
    by_database = goes_by_database(session)
    locked = select(ConnectionRow.id).order_by(ConnectionRow.id).with_for_update()
    session.execute(locked).all()
    held = select(ConnectionRow.id).where(
        ConnectionRow.drain_until >= _clock(by_database, "lease_now"),
        ConnectionRow.drain_until <= _clock(by_database, "lease_limit"),
    )
    values = {**at_moment(utcnow()), **_lease_moments(by_database)}
    return session.execute(held.limit(1), values).first() is None


@cache
def _holding(by_database: bool) -> ReturningUpdate[int]:
    return (
        update(ConnectionRow)
        .where(
            ConnectionRow.id == bindparam("of_connection"),
            ConnectionRow.drain_fence == bindparam("of_fence"),
            # A lease that was given back stays so, even if a renewal was under way.
            ConnectionRow.drain_until.is_not(None),
        )
        .values(drain_until=_clock(by_database, "lease_until"))
        .returning(ConnectionRow.id)
        .execution_options(synchronize_session=False)
    )


def goes_by_database(session: Session) -> bool:
    """Whether leases use the database's clock: one clock for the workers of all machines.

    SQLite only has the clock of its machine.
    """
    return session.get_bind().dialect.name == "postgresql"


def _clock(by_database: bool, name: str) -> ColumnElement[datetime]:
    if not by_database:
        return moment(name)
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    return now + bindparam(name, type_=Interval())


def _lease_moments(by_database: bool) -> dict[str, Any]:
    """When a lease taken now ends, and the latest end of any lease; else the spans until then."""
    spans = {"lease_now": timedelta(), "lease_until": LEASE, "lease_limit": 2 * LEASE}
    if by_database:
        return spans
    now = utcnow()
    return {name: now + span for name, span in spans.items()}


def give_lease(session: Session, connection_id: int, fence: int, release: bool = False) -> None:
    """Let the next drainer in.

    `release`: unclaim the deliveries in hand too. No crash counts against them: none is to blame.
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
