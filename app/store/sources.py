"""The state of a source: meetergo's last answer, the reader's lease, and notices to people."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.connections import NoticeKind
from app.store.models import EventRow, Notice, SourceState
from app.store.states import EventStatus, SourceStatus
from app.store.upsert import insert_unless_there

LEASE = timedelta(seconds=120)
"""How long one process reads a source's appointments alone; longer than any one call takes."""
TELL_AFTER = timedelta(minutes=5)
"""People are notified of a silent meetergo after this time, of a refused key at once."""


def state_of(session: Session, name: str, now: datetime) -> SourceState:
    """Return the state row of a source, locked; a new source counts as working."""
    row = session.get(SourceState, name, with_for_update=True)
    if row is None:
        fresh = {
            "name": name, "status": SourceStatus.WORKS.value, "since": now, "failures": 0,
            "trouble_notified": False, "reader_fence": 0,
        }  # fmt: skip
        session.execute(insert_unless_there(session, SourceState, ["name"]), fresh)
        row = session.get_one(SourceState, name, with_for_update=True)
    return row


def take_reader(session: Session, name: str, now: datetime) -> int | None:
    """Become the reader of a source's appointments; None if another process is."""
    row = state_of(session, name, now)
    held = row.reader_until is not None and now < row.reader_until <= now + LEASE
    if held:
        return None
    row.reader_fence += 1
    row.reader_until = now + LEASE
    return row.reader_fence


def keep_reader(session: Session, name: str, fence: int, now: datetime) -> bool:
    """Stay the reader; False if another process has taken over."""
    row = state_of(session, name, now)
    if row.reader_fence != fence:
        return False
    row.reader_until = now + LEASE
    return True


def end_reader(session: Session, name: str, fence: int, now: datetime) -> None:
    """Let the next process read."""
    row = state_of(session, name, now)
    if row.reader_fence == fence:
        row.reader_until = None


def set_source_status(
    session: Session,
    row: SourceState,
    status: SourceStatus,
    now: datetime,
    problem: str | None = None,
    next_step: str | None = None,
) -> None:
    """Note the state of a source; people are notified of trouble once, and once when it is over."""
    if status is not SourceStatus(row.status):
        row.status, row.since = status, now
    row.problem, row.next_step = problem, next_step
    if status is SourceStatus.WORKS:
        row.failures, row.pause_until = 0, None
        if row.trouble_notified:
            tell_source(session, row.name, NoticeKind.RESTORED, now)
        row.trouble_notified = False
        return
    patient = status is SourceStatus.UNREACHABLE
    if not row.trouble_notified and (not patient or now - row.since >= TELL_AFTER):
        row.trouble_notified = True
        tell_source(session, row.name, NoticeKind.BROKEN, now, problem, next_step)


def tell_source(
    session: Session,
    name: str,
    kind: NoticeKind,
    now: datetime,
    reason: str | None = None,
    next_step: str | None = None,
) -> None:
    """Leave a notice about a source, to be sent after this transaction."""
    session.add(
        Notice(
            source=name,
            kind=kind,
            reason=reason,
            next_step=next_step,
            reached_targets=[],
            tries=0,
            next_try_at=now,
            created_at=now,
        )
    )


def count_waiting(session: Session) -> dict[str, tuple[int, datetime]]:
    """Source -> how many webhooks wait for meetergo's answer, and since when the oldest waits."""
    query = (
        select(EventRow.source, func.count(), func.min(EventRow.received_at))
        .where(EventRow.status == EventStatus.RECEIVED)
        .group_by(EventRow.source)
    )
    return {source: (number, oldest) for source, number, oldest in session.execute(query)}
