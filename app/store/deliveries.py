"""Finds the deliveries to work on: one per booking and connection."""

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
"""So many doubts about a delivery mean that it has a batch of its own."""


FEW = 25
"""The most deliveries of a batch whose members were in one that ended without a word on them."""


OPEN_AFTER = 3
"""Outages in a row after which a CRM is probed with one delivery instead of being worked on."""


WORKABLE = (DeliveryState.DUE, DeliveryState.RETRYING, DeliveryState.WAITING)


REFUSALS = (AccountRefused.code, AccountMoved.code, MissingScope.code)
"""Codes of what an account refuses as a whole."""


def due(
    session: Session, connection_id: int, now: datetime, limit: int, parked: bool = False
) -> list[tuple[DeliveryRow, BookingRow]]:
    """The deliveries to work on together now: live before backlog, then in order of their time.

    `parked`: those that wait for the connection to work again, to try it with one of them: the one
    that was tried longest ago, or never.

    What was in a batch that ended without a word on it comes after its equals, in a small batch,
    at last alone: what strikes the CRM or the worker down is found that way, and holds nobody up.
    What is in a drainer's hands already is left out.
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
    """Of those that wait, the one for which an account refused everything last, when it was alone."""
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
    """What may be worked on, with places for the moments of `at_moment`."""
    return (
        or_(
            # What is due is due, whatever the clock shows that it was marked by.
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
    """Whether a live booking waits that nobody has in hand."""
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
    """Connections that have something due, and broken ones that are to be probed; `only` of these."""
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
    """Mark a batch as being worked on, so that it can be told what a dead drainer left."""
    if len(delivery_ids) > 1:
        # An update alone would lock them in whatever order they lie in.
        _locked = lock(session, delivery_ids)
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(delivery_ids))
        .values(claimed_by=fence, claimed_alone=len(delivery_ids) == 1)
        .execution_options(synchronize_session=False)
    )


def note_mapping_sections(session: Session, places: Mapping[int, dict[str, Any]]) -> None:
    """Note by which sections of the mapping the records of deliveries are made."""
    rows = [{"id": number, "mapping_section": place} for number, place in sorted(places.items())]
    if rows:
        session.execute(update(DeliveryRow), rows)


def has_due(session: Session, connection_id: int) -> bool:
    """Whether anything is to be tried, now or later."""
    query = select(DeliveryRow.id).where(
        DeliveryRow.connection_id == connection_id, DeliveryRow.state == DeliveryState.DUE
    )
    return session.scalars(query.limit(1)).first() is not None


def rotation_position(session: Session, delivery: DeliveryRow, story: str = "") -> int:
    """A booking's place in the rotation of owners: the next one, and from then on always that.

    `story`: key of the booking that it continues, whose place it keeps.
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

    The session finds them for as long as the caller keeps the list. They are locked in the order of
    their bookings, as everywhere.
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
