"""The numbers that /metrics shows: what waits or failed is counted, not all that ever was."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import func, select

from app.services.watch import waiting
from app.store import totals
from app.store.deliveries import count_unfinished
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, EventRow
from app.store.states import EventStatus
from app.store.totals import KnownTotal

OPEN = (EventStatus.STORED, EventStatus.RECEIVED, EventStatus.QUARANTINED)


@dataclass(frozen=True)
class ConnectionCounts:
    """The numbers of one connection."""

    provider: str
    connection_id: int
    status: str
    unfinished: dict[str, int]
    """State -> number of deliveries, without those that are done."""
    oldest_due: float
    """Seconds for which its oldest booking has been due; 0 if none is."""
    calls_left: int | None
    """Calls that are left of the account's day; None: the CRM does not tell."""


@dataclass(frozen=True)
class Counts:
    """The numbers of webhooks and connections."""

    events: dict[str, int]
    """Status -> number of webhooks, without those that are done."""
    connections: list[ConnectionCounts]
    totals: list[KnownTotal]


def count_all(store: Store) -> Counts:
    """Count once."""
    now = utcnow()
    with store.read() as session:
        events = {
            status.value: session.scalar(select(func.count()).where(EventRow.status == status)) or 0
            for status in OPEN
        }
        late = waiting(session, now)
        unfinished: dict[int, dict[str, int]] = defaultdict(dict)
        for (connection_id, state), number in count_unfinished(session).items():
            unfinished[connection_id][state] = number
        rows = session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)).all()
        found = totals.read(session)
    connections = [
        ConnectionCounts(
            row.provider,
            row.id,
            row.status,
            unfinished[row.id],
            max(0.0, (now - late[row.id].since).total_seconds()) if row.id in late else 0.0,
            row.calls_left,
        )
        for row in rows
    ]
    return Counts(events, connections, found)
