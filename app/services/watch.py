"""Watches for work that waits although its connection works, and reports it whatever the reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.connections import NoticeKind, tell
from app.store.deliveries import count_due, oldest_due
from app.store.engine import Store
from app.store.models import ConnectionRow
from app.store.states import WORKING

log = structlog.get_logger(__name__)
TOO_LONG = timedelta(minutes=5)
"""A delivery that is due for longer than this on a working connection is a fault of its own."""


@dataclass(frozen=True)
class Waiting:
    """The due work of a working connection."""

    connection_id: int
    since: datetime
    """When the oldest delivery became due (UTC)."""
    backlog: bool
    """Whether backlog is among it."""
    reason: str
    """Why the work waits, as far as that is known."""

    def overdue(self, now: datetime) -> bool:
        """Whether the work has waited for too long."""
        return now - self.since > TOO_LONG


def waiting(session: Session, now: datetime, *only: int) -> dict[int, Waiting]:
    """Connection -> its due work; backlog counts only if the connection makes no progress at all.

    `only`: of these connections.
    """
    found = {}
    for row, live, backlog in oldest_due(session, now, now - TOO_LONG, *only):
        idle = row.progress_at is None or row.progress_at < now - TOO_LONG
        times = [since for since in (live, backlog if idle else None) if since is not None]
        if times:
            late = idle and backlog is not None
            found[row.id] = Waiting(row.id, min(times), late, why(row, now))
    return found


def number_waiting(session: Session, found: Waiting, now: datetime) -> int:
    """How many deliveries of a connection are due."""
    until = now - TOO_LONG if found.backlog else now
    live = count_due(session, found.connection_id, now)
    backlog = found.backlog and count_due(session, found.connection_id, until, backlog=True)
    return live + backlog


def why(row: ConnectionRow, now: datetime) -> str:
    """Return in one sentence why a connection's work waits."""
    if row.stalls:
        return row.last_error or "The work on this account keeps stopping."
    if row.pause_until and row.pause_until > now:
        until = f"{row.pause_until:%H:%M:%S} UTC"
        return (
            f"The account is not called until {until}: {row.last_error or 'it asked for a pause'}"
        )
    if row.backlog_after and row.backlog_after > now:
        until = f"{row.backlog_after:%H:%M} UTC"
        return f"The rest of the day's calls is reserved for other apps until {until}."
    if row.outages and row.last_error:
        return f"The service keeps trying: {row.last_error}"
    if row.drain_until and row.drain_until > now:
        return "A worker is syncing these bookings."
    return "No worker has started on them. Check that workers run, and read their logs."


def watch(store: Store, now: datetime) -> list[Waiting]:
    """Leave one notice if work waits for too long, and one when it has been caught up."""
    with store.read() as session:
        found = waiting(session, now)
        told = session.scalars(
            select(ConnectionRow.id).where(ConnectionRow.overdue_since.is_not(None))
        ).all()
    late = {number: item for number, item in found.items() if item.overdue(now)}
    changed = set(late) ^ set(told)
    if changed:
        with store.write() as session:
            for connection_id in sorted(changed):
                row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
                _change(session, row, late.get(connection_id), now)
    return list(late.values())


def _change(session: Session, row: ConnectionRow, late: Waiting | None, now: datetime) -> None:
    if late is None:
        row.overdue_since = None
        if row.status in WORKING:
            tell(session, row, NoticeKind.CAUGHT_UP, now)
        return
    if row.overdue_since is not None:
        return
    row.overdue_since = late.since
    number = number_waiting(session, late, now)
    log.error("overdue", connection_id=row.id, number=number, reason=late.reason)
    words = f"{number} bookings are due, the oldest since {late.since:%Y-%m-%d %H:%M} UTC."
    step = "Nothing is lost. If this goes on, run `bridge doctor`."
    tell(session, row, NoticeKind.OVERDUE, now, f"{words} {late.reason}", step)
