"""The numbers that /metrics shows: what waits or failed is counted, not all that ever was."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from app.services.watch import waiting
from app.store.deliveries import count_unfinished
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, EventRow
from app.store.states import EventStatus

OPEN = (EventStatus.STORED, EventStatus.RECEIVED, EventStatus.QUARANTINED)


@dataclass(frozen=True)
class Counts:
    """The numbers of webhooks, deliveries and connections."""

    events: dict[str, int]
    """Status -> number of webhooks, without those that are done."""
    deliveries: dict[tuple[str, int, str], int]
    """Provider, connection and state -> number of deliveries, without those that are done."""
    connections: dict[tuple[str, str], int]
    """Provider and status -> number."""
    oldest_due: dict[tuple[str, int], float]
    """Provider and connection -> seconds for which its oldest booking has been due."""


def count_all(store: Store) -> Counts:
    """Count once."""
    place = (ConnectionRow.provider, ConnectionRow.status)
    with store.read() as session:
        by_status = {
            status.value: session.scalar(select(func.count()).where(EventRow.status == status)) or 0
            for status in OPEN
        }
        deliveries = count_unfinished(session)
        connections = session.execute(select(*place, func.count()).group_by(*place))
        by_place = {(provider, status): number for provider, status, number in connections}
        now = utcnow()
        late = waiting(session, now)
        every = session.execute(select(ConnectionRow.id, ConnectionRow.provider)).all()
    ages = {
        (provider, number): max(0.0, (now - late[number].since).total_seconds())
        if number in late
        else 0.0
        for number, provider in every
    }
    return Counts(by_status, deliveries, by_place, ages)
