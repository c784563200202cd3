"""Finds the deliveries to work on: there is one for each booking and connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.domain.errors import AccountMoved, AccountRefused, MissingScope
from app.store.leases import at_moment, may_be_tried, moment
from app.store.models import BookingRow, ConnectionRow, DeliveryRow
from app.store.states import TIMED, WORKING, ConnectionStatus, DeliveryState

ALONE = 2
"""A delivery with this many inconclusive batches gets a batch of its own."""


FEW = 25
"""The most deliveries in a batch whose members were in one inconclusive batch."""


OPEN_AFTER = 3
"""Outages in a row after which a CRM is probed with one delivery instead of full batches."""


WORKABLE = (DeliveryState.DUE, DeliveryState.RETRYING, DeliveryState.WAITING)


UNFINISHED = (*WORKABLE, DeliveryState.PARKED, DeliveryState.FAILED)
"""The states of a delivery whose booking is not in the CRM as it should be."""


IS_DUE = DeliveryRow.state == literal_column("'due'")
"""The condition of the partial indexes on due deliveries: a placeholder would hide them from the
database. A due delivery is due, whatever the clock showed when it was marked."""


REFUSALS = (AccountRefused.code, AccountMoved.code, MissingScope.code)
"""Error codes of an account that refuses everything."""


def due(
    session: Session, connection_id: int, now: datetime, limit: int, parked: bool = False
) -> list[tuple[DeliveryRow, BookingRow]]:
    """The deliveries to work on together now: live before backlog, then the oldest first.

    `parked`: take those that wait for the connection to work again; the one that was never tried,
    or was tried longest ago, comes first.

    A delivery whose batch ended without a result for it comes after its equals, in a small batch
    and at last alone: so the one that makes the CRM or the worker fail is found and delays no
    others. Deliveries that a drainer has claimed are left out.
    """
    values = {"of_connection": connection_id, "most": limit, **at_moment(now)}
    query = _parked() if parked else _due(_backlog_may_go(session, values))
    rows = [(delivery, booking) for delivery, booking in session.execute(query, values)]
    if not rows:
        return []
    first = rows[0][0]
    most = {0: limit, 1: min(FEW, max(1, limit // 4))}.get(first.inconclusive_batches, 1)
    kind = (first.backlog, min(first.inconclusive_batches, ALONE))
    return [
        row for row in rows if (row[0].backlog, min(row[0].inconclusive_batches, ALONE)) == kind
    ][:most]


@cache
def _due(backlog: bool) -> Select[DeliveryRow, BookingRow]:
    """The first due deliveries; `backlog`: of all, otherwise of the live ones."""
    places = (DeliveryRow.backlog, DeliveryRow.inconclusive_batches, DeliveryRow.next_attempt_at)
    # Each part reads as many rows as it gives, however many wait: see the indexes of the table.
    parts = [
        select(DeliveryRow.id)
        .where(
            DeliveryRow.connection_id == bindparam("of_connection"),
            DeliveryRow.claimed_by.is_(None),
            condition,
            *(() if backlog else (DeliveryRow.backlog.is_(False),)),
        )
        .order_by(*places, DeliveryRow.id)
        .limit(bindparam("most"))
        for condition in (IS_DUE, _comes_due())
    ]
    first = union_all(*(select(part.subquery().c.id) for part in parts))
    return (
        select(DeliveryRow, BookingRow)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .where(DeliveryRow.id.in_(first))
        .order_by(*places, DeliveryRow.id)
        .limit(bindparam("most"))
    )


@cache
def _parked() -> Select[DeliveryRow, BookingRow]:
    return (
        select(DeliveryRow, BookingRow)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .where(
            DeliveryRow.connection_id == bindparam("of_connection"),
            DeliveryRow.claimed_by.is_(None),
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .order_by(DeliveryRow.next_attempt_at, DeliveryRow.id)
        .limit(bindparam("most"))
    )


def refused_last(session: Session, connection_id: int) -> list[tuple[DeliveryRow, BookingRow]]:
    """The last parked delivery that was alone when the account refused everything."""
    query = (
        select(DeliveryRow, BookingRow)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.claimed_by.is_(None),
            DeliveryRow.state == DeliveryState.PARKED,
            DeliveryRow.error_code.in_(REFUSALS),
        )
        .order_by(DeliveryRow.next_attempt_at.desc(), DeliveryRow.id.desc())
        .limit(1)
    )
    return [(delivery, booking) for delivery, booking in session.execute(query)]


def _comes_due() -> ColumnElement[bool]:
    """The condition on a delivery that waited for a time which has come."""
    late = DeliveryRow.next_attempt_at <= moment("at_now")
    return and_(DeliveryRow.state.in_(TIMED), late)


def _may_take_backlog() -> ColumnElement[bool]:
    """The condition on a connection that may work on backlog now."""
    return or_(
        ConnectionRow.backlog_after.is_(None),
        ConnectionRow.backlog_after <= moment("at_now"),
        ConnectionRow.backlog_after > moment("at_backlog_limit"),
    )


def _backlog_may_go(session: Session, values: Mapping[str, Any]) -> bool:
    mine = ConnectionRow.id == bindparam("of_connection")
    query = select(ConnectionRow.id).where(mine, _may_take_backlog())
    return session.scalar(query, dict(values)) is not None


def is_live_due(session: Session, connection_id: int, now: datetime) -> bool:
    """Whether a live booking is due that no drainer has claimed."""
    values = {"of_connection": connection_id, **at_moment(now)}
    return session.scalar(_live_due(), values) is not None


@cache
def _live_due() -> Select[int]:
    mine = (
        DeliveryRow.connection_id == bindparam("of_connection"),
        DeliveryRow.backlog.is_(False),
        DeliveryRow.claimed_by.is_(None),
    )
    return select(literal(1)).where(or_(*_any_due(*mine)))


def _any_due(*mine: ColumnElement[bool]) -> list[ColumnElement[bool]]:
    """The conditions that such a delivery is due: each looks at the first one of an index only.

    With EXISTS, or without an order, PostgreSQL may read all that waits, since it expects to meet a
    due one soon.
    """
    late = DeliveryRow.next_attempt_at
    queue = (DeliveryRow.backlog, DeliveryRow.inconclusive_batches, late, DeliveryRow.id)
    parts = [select(DeliveryRow.id).where(*mine, IS_DUE).order_by(*queue)]
    for state in TIMED:
        timed = (DeliveryRow.state == state, late <= moment("at_now"))
        parts.append(select(DeliveryRow.id).where(*mine, *timed).order_by(late))
    firsts = [part.limit(1).correlate(ConnectionRow).scalar_subquery() for part in parts]
    return [first.is_not(None) for first in firsts]


def connections_with_work(session: Session, now: datetime, *only: int) -> list[int]:
    """Connections with due work, and broken ones to probe; `only`: of these connections."""
    values = {"only": list(only), **at_moment(now)}
    return list(session.scalars(_with_work(bool(only)), values))


@cache
def _with_work(some: bool) -> Select[int]:
    mine, live = DeliveryRow.connection_id == ConnectionRow.id, DeliveryRow.backlog.is_(False)
    query = select(ConnectionRow.id).where(
        may_be_tried(),
        or_(
            ConnectionRow.status == ConnectionStatus.ERROR,
            *_any_due(mine, live),
            and_(_may_take_backlog(), or_(*_any_due(mine))),
        ),
    )
    if some:
        query = query.where(ConnectionRow.id.in_(bindparam("only", expanding=True)))
    return query.order_by(ConnectionRow.id)


def oldest_due(
    session: Session, now: datetime, late: datetime, *only: int
) -> list[tuple[ConnectionRow, datetime | None, datetime | None]]:
    """Working connections, each with since when its oldest live delivery, and backlog, has been due.

    Backlog counts if it became due before `late`. `only`: of these connections.
    """
    values = {"at_now": now, "at_late": late, "only": list(only)}
    found = session.execute(_oldest_due(bool(only)), values)
    return [(row, _first(times[:3]), _first(times[3:])) for row, *times in found]


def _first(times: Sequence[datetime | None]) -> datetime | None:
    return min((moment for moment in times if moment is not None), default=None)


@cache
def _oldest_due(some: bool) -> Select[Any]:
    marked, late = DeliveryRow.due_since, DeliveryRow.next_attempt_at
    entities: list[Any] = [ConnectionRow]
    for backlog, until in ((False, "at_now"), (True, "at_late")):
        mine = (DeliveryRow.connection_id == ConnectionRow.id, DeliveryRow.backlog.is_(backlog))
        parts = [select(marked).where(*mine, IS_DUE, marked <= moment(until)).order_by(marked)]
        for state in TIMED:
            timed = (DeliveryRow.state == state, late <= moment(until))
            parts.append(select(late).where(*mine, *timed).order_by(late))
        entities += [part.limit(1).correlate(ConnectionRow).scalar_subquery() for part in parts]
    query = select(*entities).where(ConnectionRow.status.in_(WORKING))
    if some:
        query = query.where(ConnectionRow.id.in_(bindparam("only", expanding=True)))
    return query.order_by(ConnectionRow.id)


def count_due(session: Session, connection_id: int, now: datetime, backlog: bool = False) -> int:
    """How many live (or backlog) deliveries of a connection are due."""
    values = {"of_connection": connection_id, "of_backlog": backlog, "at_now": now}
    marked = _due_part(IS_DUE, DeliveryRow.due_since)
    timed = _due_part(_comes_due(), DeliveryRow.next_attempt_at)
    queries = [select(func.count()).where(*part) for part in (marked, timed)]
    return sum(session.scalar(query, values) or 0 for query in queries)


def _due_part(
    condition: ColumnElement[bool], since: InstrumentedAttribute[Any]
) -> tuple[ColumnElement[bool], ...]:
    mine = DeliveryRow.connection_id == bindparam("of_connection")
    kind = DeliveryRow.backlog == bindparam("of_backlog")
    return mine, kind, condition, since <= moment("at_now")


def claim(session: Session, delivery_ids: Sequence[int], fence: int) -> None:
    """Mark a batch as being worked on, so that the deliveries of a dead drainer can be found."""
    if len(delivery_ids) > 1:
        # An UPDATE alone would lock the rows in whatever order the table has them.
        _locked = lock(session, delivery_ids)
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(delivery_ids))
        .values(claimed_by=fence, claimed_alone=len(delivery_ids) == 1)
        .execution_options(synchronize_session=False)
    )


def note_mapping_sections(session: Session, places: Mapping[int, dict[str, Any]]) -> None:
    """Note by which sections of the mapping each delivery's records are made."""
    rows = [{"id": number, "mapping_section": place} for number, place in sorted(places.items())]
    if rows:
        session.execute(update(DeliveryRow), rows)


def has_due(session: Session, connection_id: int) -> bool:
    """Whether a delivery of the connection is due."""
    query = select(DeliveryRow.id).where(
        DeliveryRow.connection_id == connection_id, DeliveryRow.state == DeliveryState.DUE
    )
    return session.scalars(query.limit(1)).first() is not None


def rotation_position(session: Session, delivery: DeliveryRow, story: str = "") -> int:
    """A booking's place in the rotation of owners: given once, then kept.

    `story`: the key of the booking that this one continues; its place is kept.
    """
    if delivery.round_robin_position is None and story:
        query = (
            select(DeliveryRow.round_robin_position)
            .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
            .where(BookingRow.key == story, DeliveryRow.connection_id == delivery.connection_id)
        )
        delivery.round_robin_position = session.scalar(query)
    if delivery.round_robin_position is None:
        query = select(func.max(DeliveryRow.round_robin_position)).where(
            DeliveryRow.connection_id == delivery.connection_id
        )
        last = session.scalar(query)
        delivery.round_robin_position = 0 if last is None else last + 1
        session.flush()
    return delivery.round_robin_position


def lock(session: Session, delivery_ids: Sequence[int]) -> list[DeliveryRow]:
    """Lock deliveries and read them as they are now, in one query instead of one for each.

    The session finds them for as long as the caller keeps the list. The rows are locked in the
    order of their bookings, as everywhere.
    """
    query = select(DeliveryRow).where(DeliveryRow.id.in_(delivery_ids))
    query = query.order_by(DeliveryRow.booking_id)
    query = query.with_for_update().execution_options(populate_existing=True)
    return list(session.scalars(query))


def count_unfinished(session: Session) -> dict[tuple[int, str], int]:
    """(connection, state) -> number of deliveries, in all states but the final ones.

    Those that are done are not counted: they are all that there ever were.
    """
    mine = (DeliveryRow.connection_id == ConnectionRow.id, DeliveryRow.state == bindparam("state"))
    number = select(func.count()).where(*mine).correlate(ConnectionRow).scalar_subquery()
    query = select(ConnectionRow.id, number)
    return {
        (connection_id, state.value): found
        for state in UNFINISHED
        for connection_id, found in session.execute(query, {"state": state.value})
    }
