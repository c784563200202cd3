"""What the first page tells: how each account and each source is doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.services.findings import Finding, Health
from app.services.sources import Sources
from app.services.surroundings import check_last_webhook
from app.services.watch import waiting
from app.store import totals
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, DeliveryRow, EventRow
from app.store.states import DeliveryState
from app.store.totals import TotalKind

MOST = 1000
"""No more bookings of a state are counted."""
DAYS = 14
MOST_A_DAY = 5000
"""No more webhooks of one day are counted."""
TOLD = (DeliveryState.FAILED, DeliveryState.PARKED, DeliveryState.RETRYING, DeliveryState.DUE)


@dataclass(frozen=True)
class AccountSummary:
    """One CRM account."""

    row: ConnectionRow
    counts: dict[str, int]
    """State -> bookings in it, up to `MOST` + 1."""
    oldest_waiting: datetime | None
    median: str
    """Seconds within which half of the live bookings were synced, as text; empty: none were yet."""
    slow: str
    """The same for 95 of 100."""


@dataclass(frozen=True)
class Day:
    """The webhooks of one day, in UTC."""

    day: datetime
    webhooks: int


class Summary:
    """Reads what the first page tells."""

    def __init__(self, store: Store, sources: Sources) -> None:
        self._store, self._sources = store, sources

    def accounts(self) -> list[AccountSummary]:
        """Every connection, oldest first."""
        now = utcnow()
        with self._store.read() as session:
            rows = list(session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)))
            late = waiting(session, now)
            times: dict[int, dict[str, float]] = {}
            for total in totals.read(session):
                if total.kind is TotalKind.SYNC_TIMES:
                    times.setdefault(total.connection_id, {})[total.label] = total.value
            return [
                AccountSummary(
                    row,
                    {state.value: _count(session, row.id, state) for state in TOLD},
                    late[row.id].since if row.id in late else None,
                    within(times.get(row.id, {}), 0.5),
                    within(times.get(row.id, {}), 0.95),
                )
                for row in rows
            ]

    def days(self) -> list[Day]:
        """The webhooks of the last days, today last."""
        today = utcnow().replace(hour=0, minute=0, second=0, microsecond=0)
        found = []
        with self._store.read() as session:
            for back in range(DAYS - 1, -1, -1):
                begins = today - timedelta(days=back)
                mine = EventRow.received_at >= begins
                theirs = EventRow.received_at < begins + timedelta(days=1)
                some = select(EventRow.id).where(mine, theirs).limit(MOST_A_DAY).subquery()
                number = session.scalar(select(func.count()).select_from(some)) or 0
                found.append(Day(begins, number))
        return found

    def silences(self) -> list[Finding]:
        """The sources from which no webhook has come for unusually long."""
        now = utcnow()
        found = [check_last_webhook(self._store, name, now) for name in self._sources.names()]
        return [each for each in found if each.verdict is Health.NOTE and "longest" in each.detail]

    def quarantined(self) -> int:
        """How many webhooks are set aside, up to `MOST` + 1."""
        query = select(EventRow.id).where(EventRow.status == "quarantined").limit(MOST + 1)
        with self._store.read() as session:
            return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def _count(session: Session, connection_id: int, state: DeliveryState) -> int:
    mine = (DeliveryRow.connection_id == connection_id, DeliveryRow.state == state)
    some = select(DeliveryRow.id).where(*mine).limit(MOST + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def within(counts: dict[str, float], part: float) -> str:
    """The bound of a histogram within which this part of the values is, as text; empty for none."""
    labels: Sequence[str] = [*(f"{bound:g}" for bound in totals.BOUNDS), totals.LONGER]
    whole, so_far = sum(counts.values()), 0.0
    for label in labels:
        so_far += counts.get(label, 0.0)
        if whole and so_far >= part * whole:
            return f"over {totals.BOUNDS[-1]:g}" if label == totals.LONGER else label
    return ""
