"""The states of a connection: each change parks or resumes its work and notifies people."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, bindparam, select
from sqlalchemy.orm import Session

from app.store.delivery_marking import park, unpark
from app.store.models import ConnectionRow, Notice
from app.store.states import WORKING, ConnectionStatus

COLLECT = timedelta(seconds=60)
"""How long a notice of failures waits for more failures: one message instead of hundreds."""


class NoticeKind(StrEnum):
    """The reasons for which people are notified."""

    EXPIRING = "expiring"
    BROKEN = "broken"
    RESTORED = "restored"
    FAILING = "failing"
    PASSING = "passing"
    STALLED = "stalled"
    """The work on the account ends by itself again and again."""
    OVERDUE = "overdue"
    """A booking waits for too long although the connection works."""
    CAUGHT_UP = "caught_up"
    FAILED = "failed"
    """Some bookings were given up; they are looked up when the notice is sent."""


class Problem(StrEnum):
    """What is wrong with a connection, as a stable code."""

    GRANT = "grant"
    """The CRM no longer accepts the grant or the key."""
    SCOPE = "missing_scope"
    SETUP = "setup"
    """The CRM refuses this service itself: client id or secret."""
    REFUSED = "refused"
    """The CRM refuses everything of the account, or an object that the mapping needs."""
    MOVED = "moved"
    """The account now has another address than the one that is called."""
    TOKEN_ENDPOINT = "token_endpoint"  # noqa: S105 - the name of a problem
    """The CRM's token endpoint has not answered for a while."""


PROBED = (Problem.SCOPE, Problem.REFUSED, Problem.MOVED)
"""The problems for which a broken connection is tried again by itself."""
_TOLD = {
    ConnectionStatus.EXPIRING: NoticeKind.EXPIRING,
    ConnectionStatus.EXPIRED: NoticeKind.BROKEN,
    ConnectionStatus.ERROR: NoticeKind.BROKEN,
}


_BY_ID = select(ConnectionRow).where(ConnectionRow.id == bindparam("connection_id"))
_COLUMNS = ConnectionRow.__table__.c
_TOKEN_COLUMNS = (
    "id",
    "provider",
    "status",
    "auth",
    "token_encrypted",
    "expires_at",
    "login_host",
    "account_id",
    "last_error",
    "refresh_retry_at",
    "refresh_failing_since",
)
_TOKENS = select(*(_COLUMNS[name] for name in _TOKEN_COLUMNS)).where(
    _COLUMNS.id == bindparam("connection_id")
)


def connection_of(session: Session, connection_id: int) -> ConnectionRow:
    """Return a connection as it is now."""
    return session.scalars(_BY_ID, {"connection_id": connection_id}).one()


def tokens_of(session: Session, connection_id: int) -> Row[Any]:
    """Return a connection's tokens and the columns that decide on a refresh.

    This runs before every call to the CRM, so it reads values: a third of the whole object's cost.
    """
    return session.execute(_TOKENS, {"connection_id": connection_id}).one()


def set_status(
    session: Session,
    row: ConnectionRow,
    status: ConnectionStatus,
    now: datetime,
    problem: Problem | None = None,
    reason: str | None = None,
    next_step: str | None = None,
) -> None:
    """Move a connection to a status, with the reason and the next step in words.

    The connection's work is parked when it stops working and resumed when it works again. A change
    leaves one notice, except to and from `disconnected`; staying in a status leaves none.
    """
    before = ConnectionStatus(row.status)
    row.problem, row.last_error, row.next_step = problem, reason, next_step
    if status is before:
        return
    row.status, row.status_since = status, now
    if before in WORKING and status not in WORKING:
        park(session, row.id, now)
    if status in WORKING and before not in WORKING:
        row.pause_until = row.probe_at = None
        unpark(session, row.id, now)
    kind = _TOLD.get(status)
    if status is ConnectionStatus.ACTIVE and before is not ConnectionStatus.DISCONNECTED:
        kind = NoticeKind.RESTORED
    if kind and before is not ConnectionStatus.DISCONNECTED:
        tell(session, row, kind, now, reason, next_step)


def count_failures(
    session: Session, row: ConnectionRow, failed: int, passed: int, limit: int, now: datetime
) -> None:
    """Count deliveries that fail one after the other; notify once when the limit is reached.

    `failed` and `passed` are the numbers of one batch, in which the order has no meaning.
    """
    alarmed = row.failed_in_row >= limit
    if passed:
        row.failed_in_row = 0
        if alarmed:
            tell(session, row, NoticeKind.PASSING, now)
        return
    row.failed_in_row += failed
    if row.failed_in_row >= limit and not alarmed:
        reason = f"The last {row.failed_in_row} bookings could not be synced."
        tell(session, row, NoticeKind.FAILING, now, reason)


def tell_failures(session: Session, row: ConnectionRow, now: datetime) -> None:
    """Leave one notice of the deliveries that were given up; it waits a little for more of them."""
    query = select(Notice.id).where(
        Notice.connection_id == row.id, Notice.kind == NoticeKind.FAILED, Notice.tries == 0
    )
    # Locked: a notice that is being sent right now takes in no further failures.
    if session.scalar(query.limit(1).with_for_update()) is None:
        tell(session, row, NoticeKind.FAILED, now + COLLECT)


def tell(
    session: Session,
    row: ConnectionRow,
    kind: NoticeKind,
    now: datetime,
    reason: str | None = None,
    next_step: str | None = None,
) -> None:
    """Leave a notice, to be sent after this transaction, not before `now`."""
    session.add(
        Notice(
            connection_id=row.id,
            kind=kind,
            reason=reason,
            next_step=next_step,
            reached_targets=[],
            tries=0,
            next_try_at=now,
            created_at=now,
        )
    )
