"""Notes how deliveries ended: synced, failed, hit by an outage, left by a dead worker."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    select,
)
from sqlalchemy.orm import Session

from app.domain.errors import (
    AccountRefused,
    Blocked,
    CrmError,
    Gone,
    InvalidRecord,
    KilledWorker,
    RetryLater,
    ThereAlready,
    Unforeseen,
)
from app.store import causes
from app.store.deliveries import ALONE, WORKABLE
from app.store.delivery_marking import FRESH
from app.store.leases import SKEW
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import DeliveryState

RETRY_CEILINGS = (30, 120, 600, 1800, 7200, 21_600, 28_800)
"""Seconds: the longest wait before each new attempt (full jitter); then the last one stays."""


LEAST_ATTEMPTS = 10


LEAST_TIME = timedelta(hours=96)
"""A delivery with a temporary failure is given up only after this many attempts and this long."""


MOST_STANDSTILLS = 10
"""How often living drainers may lose their lease with a delivery alone before that counts."""


MOST_KILLS = 2
"""Drainers that may die while they work on a delivery alone; then it is set aside."""


MOST_AT_ONCE = 6
"""Records in a row that turn out to be gone, or to exist already, for each of which the booking
is tried again at once."""


def take_over_orphans(session: Session, connection_id: int, fence: int, now: datetime) -> list[int]:
    """Take over the deliveries that an earlier drainer left unfinished; return those set aside.

    A delivery with which a drainer died twice, while it was alone in its batch, is not tried again
    by itself.
    """
    # Locked: a webhook may be marking a newer state of one of them right now.
    left = session.scalars(
        select(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.claimed_by.is_not(None),
            DeliveryRow.claimed_by != fence,
        )
        .order_by(DeliveryRow.booking_id)
        .with_for_update()
    ).all()
    aside = []
    for row in left:
        row.inconclusive_batches += 1
        row.worker_crashes += row.claimed_alone
        row.claimed_by = None
        if row.worker_crashes >= MOST_KILLS and row.state in WORKABLE:
            killed = KilledWorker("The worker ended twice while it synced this booking.")
            _fail(session, row, killed, now)
            aside.append(row.id)
    return aside


def clear_crash(session: Session, delivery_id: int, fence: int, now: datetime) -> None:
    """Take back the crash counted for a delivery: its drainer lost the lease, but lives.

    The machine may have been suspended, for example. If drainers stand still at a delivery each
    time, the crash counts in the end.
    """
    row = session.get_one(DeliveryRow, delivery_id, with_for_update=True)
    if row.claimed_by == fence:
        row.claimed_by = None
        return
    if row.inconclusive_batches > MOST_STANDSTILLS:
        return
    row.worker_crashes = max(0, row.worker_crashes - 1)
    if row.state == DeliveryState.FAILED and row.error_code == KilledWorker.code:
        row.state, row.next_attempt_at, row.updated_at = DeliveryState.DUE, now - SKEW, now
        row.due_since = now
        row.error_code = row.error_message = row.error_advice = None
        causes.clear(session, row, now)


@dataclass(frozen=True)
class DeliveryEnd:
    """The details of how a delivery ended, apart from its state."""

    calls: int
    mapping_version: str
    notes: tuple[str, ...] = ()
    recheck_at: datetime | None = None
    mapping_section: dict[str, Any] = field(default_factory=dict)


def complete(
    session: Session, delivery_id: int, revision: int, ending: DeliveryEnd, now: datetime
) -> None:
    """Note that a revision is in the CRM; if a newer one is wanted by now, it stays due."""
    row = _ended(session, delivery_id, ending, now)
    row.synced_revision, row.recheck_at = revision, ending.recheck_at
    row.due_since = None
    if ending.mapping_section:
        row.mapping_section = ending.mapping_section
    outdated = row.replan_by not in (None, ending.mapping_version)
    row.replan_by = None
    current = row.wanted_revision <= revision and not outdated
    row.state = DeliveryState.SYNCED if current else DeliveryState.DUE
    row.due_since = None if current else now
    for name, value in FRESH.items():
        setattr(row, name, value)
    row.error_code = row.error_message = row.error_advice = row.error_raw = None
    row.error_fields = {}


def complete_skipped(
    session: Session, delivery_id: int, revision: int, why: str, ending: DeliveryEnd, now: datetime
) -> None:
    """Note that the mapping skips a revision, and why."""
    complete(session, delivery_id, revision, ending, now)
    row = session.get_one(DeliveryRow, delivery_id)
    if row.state == DeliveryState.SYNCED:
        row.state, row.error_message = DeliveryState.SKIPPED, why


def postpone(
    session: Session,
    delivery_id: int,
    revision: int,
    until: datetime,
    ending: DeliveryEnd,
    now: datetime,
) -> None:
    """Leave a delivery for later; a newer revision that came meanwhile is looked at at once."""
    row = _ended(session, delivery_id, ending, now)
    if row.wanted_revision <= revision:
        row.state, row.next_attempt_at, row.due_since = DeliveryState.WAITING, until, None


def _ended(session: Session, delivery_id: int, ending: DeliveryEnd, now: datetime) -> DeliveryRow:
    row = session.get_one(DeliveryRow, delivery_id)
    row.calls += ending.calls
    row.mapping_version, row.notes = ending.mapping_version, list(ending.notes)
    row.updated_at = now
    row.claimed_by, row.inconclusive_batches = None, 0
    causes.clear(session, row, now)
    return row


def record_failure(
    session: Session, delivery_id: int, revision: int, error: CrmError, calls: int, now: datetime
) -> bool:
    """Note a failure: tried again later with full jitter, or given up until a newer event.

    Return True if the delivery was given up.
    """
    row = _record_error(session, delivery_id, error, calls, now)
    row.recheck_at, row.inconclusive_batches = None, 0
    outdated = row.replan_by is not None
    if row.wanted_revision > revision or outdated:
        # A newer state or mapping came meanwhile and is tried at once: it may repair the failure.
        row.state, row.attempts, row.failing_since = DeliveryState.DUE, 0, None
        row.replan_by, row.due_since = None, row.due_since or now
        return False
    row.attempts += 1
    row.failing_since = row.failing_since or now
    passing = isinstance(error, (RetryLater, Gone, Blocked, ThereAlready))
    tired = row.attempts >= LEAST_ATTEMPTS and now - row.failing_since >= LEAST_TIME
    if not passing or tired:
        _fail(session, row, error, now)
        return True
    row.state = DeliveryState.RETRYING
    wait = _wait(error, row.attempts)
    row.next_attempt_at = now + wait
    if wait:
        # What is tried again at once most likely passes: it is no cause to look into.
        causes.note(session, row, error, now)
    return False


def record_outage(
    session: Session, delivery_id: int, revision: int, error: CrmError, calls: int, now: datetime
) -> bool:
    """Note that the CRM was out of order before it answered for a delivery.

    No attempt is used up, unless the delivery was alone and the CRM has worked since an outage
    last hit it: then the CRM cannot take this booking. Return True if the delivery was given up.
    """
    row = session.get_one(DeliveryRow, delivery_id)
    alive = session.get_one(ConnectionRow, row.connection_id).alive_at
    alone, before = row.claimed_alone, row.last_outage_at
    if alone and before and alive and alive > before:
        given_up = record_failure(session, delivery_id, revision, error, calls, now)
        row.last_outage_at, row.inconclusive_batches = now, ALONE
        return given_up
    _record_error(session, delivery_id, error, calls, now)
    causes.note(session, row, error, now)
    row.inconclusive_batches += 1
    if alone:
        # The next probe takes another delivery.
        row.last_outage_at, row.next_attempt_at = now, now
    return False


def record_account_refusal(
    session: Session, delivery_id: int, error: AccountRefused, calls: int, now: datetime
) -> None:
    """Note that an account refused everything for one delivery; the next probe takes another."""
    row = _record_error(session, delivery_id, error, calls, now)
    row.next_attempt_at = now
    causes.note(session, row, error, now)


def record_unforeseen(
    session: Session, connection_id: int, fence: int, why: str, now: datetime
) -> list[int]:
    """Release the deliveries of a drain that a fault of this service ended, without a crash count.

    A delivery that was alone with such a fault twice is given up: the booking brings the fault to
    light. Return the deliveries that were given up.
    """
    mine = (DeliveryRow.connection_id == connection_id, DeliveryRow.claimed_by == fence)
    rows = session.scalars(select(DeliveryRow).where(*mine).order_by(DeliveryRow.booking_id)).all()
    ended = []
    for row in rows:
        row.claimed_by = None
        row.inconclusive_batches += 1
        if row.claimed_alone and row.inconclusive_batches > 1:
            _fail(session, row, Unforeseen(f"This service has a bug: {why}."), now)
            ended.append(row.id)
    return ended


def release(session: Session, delivery_id: int, calls: int) -> None:
    """Release a delivery that was not tried: the allowance is used up, or the worker stops."""
    row = session.get_one(DeliveryRow, delivery_id)
    row.claimed_by, row.calls = None, row.calls + calls


def isolate(session: Session, delivery_id: int, calls: int) -> None:
    """Release a delivery to be tried alone: another one of its batch may be at fault."""
    release(session, delivery_id, calls)
    session.get_one(DeliveryRow, delivery_id).inconclusive_batches = ALONE


def _record_error(
    session: Session, delivery_id: int, error: CrmError, calls: int, now: datetime
) -> DeliveryRow:
    row = session.get_one(DeliveryRow, delivery_id)
    row.calls += calls
    row.claimed_by = None
    _tell(session, row, error)
    row.error_fields = dict(error.fields) if isinstance(error, InvalidRecord) else {}
    row.updated_at = now
    return row


def _tell(session: Session, row: DeliveryRow, error: CrmError) -> None:
    """Write down an error: its sentence, what to do, and the CRM's own answer."""
    row.error_code, row.error_message, row.error_advice = error.code, error.message, error.advice
    row.error_raw = error.refusal.raw if error.refusal else None
    if error.refusal:
        provider = session.get_one(ConnectionRow, row.connection_id).provider
        row.error_advice = error.refusal.mend(f"{provider}.yaml")


def _fail(session: Session, row: DeliveryRow, error: CrmError, now: datetime) -> None:
    row.state, row.updated_at, row.due_since = DeliveryState.FAILED, now, None
    _tell(session, row, error)
    causes.note(session, row, error, now)


def _wait(error: CrmError, attempts: int) -> timedelta:
    if isinstance(error, (Gone, ThereAlready)) and attempts <= MOST_AT_ONCE:
        # The ledger knows better now: the record is made again, or read, at once. A person who
        # deletes a deal may have deleted its meeting too.
        return timedelta()
    after = error.after if isinstance(error, RetryLater) else None
    ceiling = RETRY_CEILINGS[min(attempts, len(RETRY_CEILINGS)) - 1]
    return timedelta(seconds=after or random.uniform(0, ceiling))  # nosec B311  # noqa: S311 - spreads retries, no secret
