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
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.domain.errors import AccountMoved, AccountRefused, MissingScope
from app.store.leases import at_moment, may_be_tried, moment
from app.store.models import BookingRow, ConnectionRow, DeliveryRow
from app.store.states import ConnectionStatus, DeliveryState

ALONE = 2
"""A delivery with this many inconclusive batches gets a batch of its own."""


FEW = 25
"""The most deliveries in a batch whose members were in one inconclusive batch."""


OPEN_AFTER = 3
"""Outages in a row after which a CRM is probed with one delivery instead of full batches."""


WORKABLE = (DeliveryState.DUE, DeliveryState.RETRYING, DeliveryState.WAITING)


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
    rows = [(delivery, booking) for delivery, booking in session.execute(_due(parked), values)]
    if not rows:
        return []
    first = rows[0][0]
    most = {0: limit, 1: min(FEW, max(1, limit // 4))}.get(first.inconclusive_batches, 1)
    kind = (first.backlog, min(first.inconclusive_batches, ALONE))
    return [
        row for row in rows if (row[0].backlog, min(row[0].inconclusive_batches, ALONE)) == kind
    ][:most]


@cache
def _due(parked: bool) -> Select[DeliveryRow, BookingRow]:
    return (
        select(DeliveryRow, BookingRow)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .where(
            DeliveryRow.connection_id == bindparam("of_connection"),
            DeliveryRow.claimed_by.is_(None),
            *([DeliveryRow.state == DeliveryState.PARKED] if parked else _workable()),
        )
        .order_by(
            *(() if parked else (DeliveryRow.backlog, DeliveryRow.inconclusive_batches)),
            DeliveryRow.next_attempt_at,
            DeliveryRow.id,
        )
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


def _workable() -> tuple[ColumnElement[bool], ...]:
    """The conditions on a delivery to be worked on, with places for the moments of `at_moment`."""
    return (
        or_(
            # A due delivery is due, whatever the clock showed when it was marked.
            DeliveryRow.state == DeliveryState.DUE,
            and_(
                DeliveryRow.state.in_(WORKABLE),
                or_(
                    DeliveryRow.next_attempt_at <= moment("at_now"),
                    DeliveryRow.updated_at > moment("at_skewed"),
                ),
            ),
        ),
        or_(
            DeliveryRow.backlog.is_(False),
            ConnectionRow.backlog_after.is_(None),
            ConnectionRow.backlog_after <= moment("at_now"),
            ConnectionRow.backlog_after > moment("at_backlog_limit"),
        ),
    )


def is_live_due(session: Session, connection_id: int, now: datetime) -> bool:
    """Whether a live booking is due that no drainer has claimed."""
    values = {"of_connection": connection_id, **at_moment(now)}
    return session.scalar(_live_due(), values) is not None


@cache
def _live_due() -> Select[int]:
    return (
        select(DeliveryRow.id)
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .where(
            DeliveryRow.connection_id == bindparam("of_connection"),
            DeliveryRow.backlog.is_(False),
            DeliveryRow.claimed_by.is_(None),
            *_workable(),
        )
        .limit(1)
    )


def connections_with_work(session: Session, now: datetime, *only: int) -> list[int]:
    """Connections with due work, and broken ones to probe; `only`: of these connections."""
    values = {"only": list(only), **at_moment(now)}
    return list(session.scalars(_with_work(bool(only)), values))


@cache
def _with_work(some: bool) -> Select[int]:
    due = select(DeliveryRow.id).where(DeliveryRow.connection_id == ConnectionRow.id, *_workable())
    query = select(ConnectionRow.id).where(
        may_be_tried(),
        or_(
            ConnectionRow.status == ConnectionStatus.ERROR,
            due.correlate(ConnectionRow).exists(),
        ),
    )
    if some:
        query = query.where(ConnectionRow.id.in_(bindparam("only", expanding=True)))
    return query.order_by(ConnectionRow.id)


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


def count_by_state(session: Session) -> dict[tuple[str, str], int]:
    """(provider, state) -> number of deliveries."""
    query = (
        select(ConnectionRow.provider, DeliveryRow.state, func.count())
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .group_by(ConnectionRow.provider, DeliveryRow.state)
    )
    return {(provider, state): number for provider, state, number in session.execute(query)}
