"""What has to go where: one delivery per booking and connection, and who may work on it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Interval,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.domain.errors import (
    AccountMoved,
    AccountRefused,
    Blocked,
    CrmError,
    Gone,
    InvalidRecord,
    KilledWorker,
    MissingScope,
    RetryLater,
    ThereAlready,
    Unforeseen,
)
from app.store.bookings import hash_of, insert_ignoring
from app.store.engine import utcnow
from app.store.models import (
    WORKING,
    BookingPerson,
    BookingRow,
    ConnectionRow,
    ConnectionStatus,
    DeliveryRow,
    DeliveryState,
    UtcTime,
)

LEASE = timedelta(seconds=15)
"""How long a drainer may be silent before another one takes its connection over."""
SKEW = timedelta(minutes=10)
"""How much the clocks of two machines may differ: what one finds due at once is so for the other."""
RETRY_CEILINGS = (30, 120, 600, 1800, 7200, 21_600, 28_800)
"""Seconds: the longest wait before each new attempt (full jitter); the last one stands for the rest."""
LEAST_ATTEMPTS = 10
LEAST_TIME = timedelta(hours=96)
"""A delivery that fails for a passing reason is given up only after so many and so long."""
ALONE = 2
"""So many doubts about a delivery mean that it has a batch of its own."""
FEW = 25
"""The most deliveries of a batch whose members were in one that ended without a word on them."""
MOST_STANDSTILLS = 10
"""Drainers that may stand still past their lease with a delivery alone, living, before that counts."""
MOST_KILLS = 2
"""Drainers that may die while they work on a delivery alone; then it is set aside."""
MOST_AT_ONCE = 6
"""Records in a row that turn out to be gone, or to be there, and for each of which a booking is
tried again at once."""
LONGEST_BACKLOG_PAUSE = timedelta(minutes=30)
"""Twice the longest that backlog waits before the day's budget is looked at again."""
OPEN_AFTER = 3
"""Outages in a row after which a CRM is probed with one delivery instead of being worked on."""
OVERLOOKED, RACE = timedelta(hours=1), timedelta(minutes=1)
"""For how long after a connection began to work bookings are looked for that it does not know of,
and how much earlier than it they may have come: no transaction is open for longer."""
REFUSALS = (AccountRefused.code, AccountMoved.code, MissingScope.code)
"""Codes of what an account refuses as a whole."""
WORKABLE = (DeliveryState.DUE, DeliveryState.RETRYING, DeliveryState.WAITING)


PROBE_WITHIN = timedelta(minutes=10)
"""The longest until an account that refused everything is tried again."""
FRESH: dict[str, Any] = {
    "attempts": 0, "worker_crashes": 0, "failing_since": None, "last_outage_at": None,
    "failure_notified": False,
}  # fmt: skip
"""What a delivery that is wanted anew starts with."""


def mark_due(
    session: Session, booking: BookingRow, now: datetime, backlog: bool = False
) -> list[int]:
    """Mark the newest state as due everywhere; give the connections to wake.

    `backlog`: it is old news and comes after what is live.
    """
    connections = session.scalars(
        select(ConnectionRow)
        .where(ConnectionRow.status != ConnectionStatus.DISCONNECTED)
        .order_by(ConnectionRow.id)
    ).all()
    for connection in connections:
        mark_due_for(session, booking, connection, now, backlog)
    return [c.id for c in connections if c.status in WORKING]


def mark_due_for(
    session: Session,
    booking: BookingRow,
    connection: ConnectionRow,
    now: datetime,
    backlog: bool = False,
) -> None:
    """Mark a booking's newest state as due for one connection; a failed delivery gets new tries."""
    active = connection.status in WORKING
    values = {
        "booking_id": booking.id,
        "connection_id": connection.id,
        "wanted_revision": booking.revision,
        "state": (DeliveryState.DUE if active else DeliveryState.PARKED).value,
        "backlog": backlog,
        "next_attempt_at": now - SKEW,
        "due_since": now,
        "updated_at": now,
        **FRESH,
    }
    new = {**values, "synced_revision": 0, "calls": 0}
    session.execute(insert_ignoring(session, DeliveryRow, new, ["booking_id", "connection_id"]))
    values["wanted_revision"] = _newer(literal(booking.revision))
    # A booking that changes again while it waits has been waiting since before.
    values["due_since"] = func.coalesce(DeliveryRow.due_since, literal(now, UtcTime()))
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.booking_id == booking.id, DeliveryRow.connection_id == connection.id)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _newer(revision: ColumnElement[int]) -> ColumnElement[int]:
    """A revision to want, unless a newer one is wanted by now: another process may have been first."""
    wanted = DeliveryRow.wanted_revision
    return case((wanted > revision, wanted), else_=revision)


def take_lease(session: Session, connection_id: int, now: datetime) -> int | None:
    """Become the one drainer of a connection; give the fencing token, or None if there is one."""
    taken = session.execute(
        update(ConnectionRow)
        .where(
            ConnectionRow.id == connection_id,
            may_be_tried(now),
            # A lease that ends further ahead than one is long was taken before a clock went back.
            or_(
                ConnectionRow.drain_until.is_(None),
                ConnectionRow.drain_until < _clock(session),
                ConnectionRow.drain_until > _clock(session, 2 * LEASE),
            ),
        )
        .values(drain_fence=ConnectionRow.drain_fence + 1, drain_until=_clock(session, LEASE))
        .returning(ConnectionRow.drain_fence)
    )
    fence: int | None = taken.scalar()
    return fence


def may_be_tried(now: datetime) -> ColumnElement[bool]:
    """Connections that work and are not paused, and broken ones that are to be probed."""
    unpaused = or_(
        ConnectionRow.pause_until.is_(None),
        ConnectionRow.pause_until <= now,
        ConnectionRow.paused_at > now + SKEW,
    )
    probed = and_(
        ConnectionRow.status == ConnectionStatus.ERROR,
        or_(ConnectionRow.probe_at <= now, ConnectionRow.probe_at > now + 2 * PROBE_WITHIN),
    )
    return or_(and_(ConnectionRow.status.in_(WORKING), unpaused), probed)


def hold_lease(session: Session, connection_id: int, fence: int) -> bool:
    """Renew a lease and lock it for this transaction; False where another drainer has it."""
    held = session.execute(
        update(ConnectionRow)
        .where(
            ConnectionRow.id == connection_id,
            ConnectionRow.drain_fence == fence,
            # One that was given back stays so, also where a renewal of it was under way.
            ConnectionRow.drain_until.is_not(None),
        )
        .values(drain_until=_clock(session, LEASE))
        .returning(ConnectionRow.id)
    )
    return held.scalar() is not None


def _clock(session: Session, ahead: timedelta = timedelta()) -> ColumnElement[datetime]:
    """The time that leases go by, and so long after: one clock for the workers of all machines.

    Past one machine that is the database's; SQLite has no other clock than its machine.
    """
    if session.get_bind().dialect.name == "postgresql":
        return func.clock_timestamp(type_=DateTime(timezone=True)) + literal(ahead, Interval())
    return literal(utcnow() + ahead, UtcTime())


def give_lease(session: Session, connection_id: int, fence: int, release: bool = False) -> None:
    """Let the next drainer in.

    `release`: nothing that is still in hand is to blame for the end, so that it counts for nothing.
    """
    if release:
        session.execute(
            update(DeliveryRow)
            .where(DeliveryRow.connection_id == connection_id, DeliveryRow.claimed_by == fence)
            .values(claimed_by=None)
            .execution_options(synchronize_session=False)
        )
    session.execute(
        update(ConnectionRow)
        .where(ConnectionRow.id == connection_id, ConnectionRow.drain_fence == fence)
        .values(drain_until=None)
    )


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
    query = (
        select(DeliveryRow, BookingRow)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.claimed_by.is_(None),
            *([DeliveryRow.state == DeliveryState.PARKED] if parked else _workable(now)),
        )
        .order_by(
            *(() if parked else (DeliveryRow.backlog, DeliveryRow.inconclusive_batches)),
            DeliveryRow.next_attempt_at,
            DeliveryRow.id,
        )
        .limit(limit)
    )
    rows = [(delivery, booking) for delivery, booking in session.execute(query)]
    if not rows:
        return []
    first = rows[0][0]
    most = {0: limit, 1: min(FEW, max(1, limit // 4))}.get(first.inconclusive_batches, 1)
    kind = (first.backlog, min(first.inconclusive_batches, ALONE))
    return [
        row for row in rows if (row[0].backlog, min(row[0].inconclusive_batches, ALONE)) == kind
    ][:most]


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


def _workable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        or_(
            # What is due is due, whatever the clock shows that it was marked by.
            DeliveryRow.state == DeliveryState.DUE,
            and_(
                DeliveryRow.state.in_(WORKABLE),
                or_(DeliveryRow.next_attempt_at <= now, DeliveryRow.updated_at > now + SKEW),
            ),
        ),
        or_(
            DeliveryRow.backlog.is_(False),
            ConnectionRow.backlog_after.is_(None),
            ConnectionRow.backlog_after <= now,
            ConnectionRow.backlog_after > now + LONGEST_BACKLOG_PAUSE,
        ),
    )


def is_live_due(session: Session, connection_id: int, now: datetime) -> bool:
    """Whether a live booking waits that nobody has in hand."""
    query = (
        select(DeliveryRow.id)
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.backlog.is_(False),
            DeliveryRow.claimed_by.is_(None),
            *_workable(now),
        )
    )
    return session.scalar(query.limit(1)) is not None


def connections_with_work(session: Session, now: datetime, *only: int) -> list[int]:
    """Connections that have something due, and broken ones that are to be probed; `only` of these."""
    due = select(DeliveryRow.id).where(
        DeliveryRow.connection_id == ConnectionRow.id, *_workable(now)
    )
    query = select(ConnectionRow.id).where(
        may_be_tried(now),
        or_(
            ConnectionRow.status == ConnectionStatus.ERROR,
            due.correlate(ConnectionRow).exists(),
        ),
    )
    if only:
        query = query.where(ConnectionRow.id.in_(only))
    return list(session.scalars(query.order_by(ConnectionRow.id)))


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


def take_over_orphans(session: Session, connection_id: int, fence: int, now: datetime) -> list[int]:
    """Take over what a drainer before this one left in the middle; give what is set aside.

    A delivery that was alone with a drainer that died, twice, is not tried again by itself.
    """
    # Locked: a webhook may be wanting the next state of one of them right now.
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
            _fail(row, KilledWorker("The worker ended twice while it synced this booking."), now)
            aside.append(row.id)
    return aside


def note_mapping_sections(session: Session, places: Mapping[int, dict[str, Any]]) -> None:
    """Note by which sections of the mapping the records of deliveries are made."""
    rows = [{"id": number, "mapping_section": place} for number, place in sorted(places.items())]
    if rows:
        session.execute(update(DeliveryRow), rows)


def clear_crash(session: Session, delivery_id: int, fence: int, now: datetime) -> None:
    """Take back that a drainer died with a delivery alone: it has lost its lease, but lives.

    The machine was suspended, say. A delivery at which drainers stand still each time is not
    acquitted for ever.
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


@dataclass(frozen=True)
class DeliveryEnd:
    """How a delivery ended beside its state."""

    calls: int
    mapping_version: str
    notes: tuple[str, ...] = ()
    recheck_at: datetime | None = None
    mapping_section: dict[str, Any] = field(default_factory=dict)


def complete(
    session: Session, delivery_id: int, revision: int, ending: DeliveryEnd, now: datetime
) -> None:
    """Note that a revision is in the CRM; what was wanted anew meanwhile stays due."""
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
    row.error_code = row.error_message = row.error_advice = None
    row.error_fields = {}


def complete_skipped(
    session: Session, delivery_id: int, revision: int, why: str, ending: DeliveryEnd, now: datetime
) -> None:
    """Note that the mapping wants nothing of a revision, and why."""
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
    return row


def release_rechecks(session: Session, now: datetime) -> None:
    """Take up again what was to be looked at once more although nothing changed.

    `recheck_at` stays: by it the plan knows that this is the second look.
    """
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.recheck_at <= now, DeliveryRow.state == DeliveryState.SYNCED)
        .values(state=DeliveryState.DUE.value, next_attempt_at=now - SKEW, due_since=now)
        .execution_options(synchronize_session=False)
    )


def recover_missed(session: Session, now: datetime) -> None:
    """Want what was stored in the moment in which a connection was made or came back.

    The webhook's transaction saw the connection as it was before, and the connection's did not see
    the webhook: such a booking would wait, or go nowhere, although everything works.
    """
    working = ConnectionRow.status.in_(WORKING)
    ids = (
        select(ConnectionRow.id)
        .join(DeliveryRow)
        .where(working, DeliveryRow.state == DeliveryState.PARKED)
    )
    for connection_id in session.scalars(ids.distinct()).all():
        unpark(session, connection_id, now)
    young = ConnectionRow.status_since > now - OVERLOOKED
    for connection in session.scalars(select(ConnectionRow).where(working, young)).all():
        since = connection.status_since
        _mark_due_unless_settled(
            session,
            connection,
            now,
            BookingRow.updated_at >= since - RACE,
            or_(BookingRow.start >= since, BookingRow.updated_at >= since),
        )


def has_due(session: Session, connection_id: int) -> bool:
    """Whether anything is to be tried, now or later."""
    query = select(DeliveryRow.id).where(
        DeliveryRow.connection_id == connection_id, DeliveryRow.state == DeliveryState.DUE
    )
    return session.scalars(query.limit(1)).first() is not None


def mark_people_due(
    session: Session, connection_id: int, identities: Iterable[str], now: datetime
) -> None:
    """Look once more at the bookings of some people: what is known of these may be wrong."""
    hashes = [hash_of(identity) for identity in identities]
    theirs = select(BookingPerson.booking_id).where(BookingPerson.person_hash.in_(hashes))
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.SYNCED,
            DeliveryRow.booking_id.in_(theirs),
        )
        .values(
            state=DeliveryState.DUE.value, backlog=True, next_attempt_at=now - SKEW, due_since=now
        )
        .execution_options(synchronize_session=False)
    )


def mark_replanned_due(session: Session, connection_id: int, version: str, now: datetime) -> int:
    """Mark as due what another version of the mapping has planned; give its number.

    What is due already may be in a worker's hands, who planned it by the version before.
    """
    settled = (DeliveryState.SYNCED, DeliveryState.SKIPPED, DeliveryState.FAILED)
    other = or_(DeliveryRow.mapping_version.is_(None), DeliveryRow.mapping_version != version)
    mine = DeliveryRow.connection_id == connection_id
    session.execute(
        update(DeliveryRow)
        .where(mine, DeliveryRow.state.in_(WORKABLE))
        .values(replan_by=version)
        .execution_options(synchronize_session=False)
    )
    changed = session.execute(
        update(DeliveryRow)
        .where(mine, DeliveryRow.state.in_(settled), other)
        .values(
            state=DeliveryState.DUE.value,
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            **FRESH,
        )
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(changed.all())


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


def record_failure(
    session: Session, delivery_id: int, revision: int, error: CrmError, calls: int, now: datetime
) -> bool:
    """Note a failure: tried again later with full jitter, or given up until a newer event.

    True where it was given up.
    """
    row = _record_error(session, delivery_id, error, calls, now)
    row.recheck_at, row.inconclusive_batches = None, 0
    outdated = row.replan_by is not None
    if row.wanted_revision > revision or outdated:
        # A newer state or mapping came meanwhile and is tried at once: it may mend what failed.
        row.state, row.attempts, row.failing_since = DeliveryState.DUE, 0, None
        row.replan_by = None
        return False
    row.attempts += 1
    row.failing_since = row.failing_since or now
    passing = isinstance(error, (RetryLater, Gone, Blocked, ThereAlready))
    tired = row.attempts >= LEAST_ATTEMPTS and now - row.failing_since >= LEAST_TIME
    if not passing or tired:
        _fail(row, error, now)
        return True
    row.state = DeliveryState.RETRYING
    row.next_attempt_at = now + _wait(error, row.attempts)
    return False


def record_outage(
    session: Session, delivery_id: int, revision: int, error: CrmError, calls: int, now: datetime
) -> bool:
    """Note that the CRM was out of order before there was a word on a delivery.

    It waits without using up an attempt, unless it was alone and the CRM has worked since an outage
    struck it last: then it is this booking that the CRM cannot take. True where it was given up.
    """
    row = session.get_one(DeliveryRow, delivery_id)
    alive = session.get_one(ConnectionRow, row.connection_id).alive_at
    alone, before = row.claimed_alone, row.last_outage_at
    if alone and before and alive and alive > before:
        given_up = record_failure(session, delivery_id, revision, error, calls, now)
        row.last_outage_at, row.inconclusive_batches = now, ALONE
        return given_up
    _record_error(session, delivery_id, error, calls, now)
    row.inconclusive_batches += 1
    if alone:
        # The next probe takes another one.
        row.last_outage_at, row.next_attempt_at = now, now
    return False


def record_account_refusal(
    session: Session, delivery_id: int, error: AccountRefused, calls: int, now: datetime
) -> None:
    """Note that an account refused everything for one delivery; the next probe takes another one."""
    _record_error(session, delivery_id, error, calls, now).next_attempt_at = now


def record_unforeseen(
    session: Session, connection_id: int, fence: int, why: str, now: datetime
) -> list[int]:
    """Give back what a drain had in hand that ended by a fault of this service; nobody was killed.

    What was alone with such a fault twice is given up: it is this booking that brings it to light.
    Gives the deliveries that were given up.
    """
    mine = (DeliveryRow.connection_id == connection_id, DeliveryRow.claimed_by == fence)
    rows = session.scalars(select(DeliveryRow).where(*mine).order_by(DeliveryRow.booking_id)).all()
    ended = []
    for row in rows:
        row.claimed_by = None
        row.inconclusive_batches += 1
        if row.claimed_alone and row.inconclusive_batches > 1:
            _fail(row, Unforeseen(f"This service has a fault: {why}."), now)
            ended.append(row.id)
    return ended


def release(session: Session, delivery_id: int, calls: int) -> None:
    """Give a delivery back that was not tried: the allowance ended, or the worker has to stop."""
    row = session.get_one(DeliveryRow, delivery_id)
    row.claimed_by, row.calls = None, row.calls + calls


def isolate(session: Session, delivery_id: int, calls: int) -> None:
    """Give a delivery back to be tried alone: what was refused may be another one's fault."""
    release(session, delivery_id, calls)
    session.get_one(DeliveryRow, delivery_id).inconclusive_batches = ALONE


def lock(session: Session, delivery_ids: Sequence[int]) -> list[DeliveryRow]:
    """Lock deliveries and read them as they are now, in one query instead of one for each.

    The session finds them for as long as the caller keeps the list. They are locked in the order of
    their bookings, as everywhere.
    """
    query = select(DeliveryRow).where(DeliveryRow.id.in_(delivery_ids))
    query = query.order_by(DeliveryRow.booking_id)
    query = query.with_for_update().execution_options(populate_existing=True)
    return list(session.scalars(query))


def _record_error(
    session: Session, delivery_id: int, error: CrmError, calls: int, now: datetime
) -> DeliveryRow:
    row = session.get_one(DeliveryRow, delivery_id)
    row.calls += calls
    row.claimed_by = None
    row.error_code, row.error_message, row.error_advice = error.code, error.message, error.advice
    row.error_fields = dict(error.fields) if isinstance(error, InvalidRecord) else {}
    row.updated_at = now
    return row


def _fail(row: DeliveryRow, error: CrmError, now: datetime) -> None:
    row.state, row.updated_at, row.due_since = DeliveryState.FAILED, now, None
    row.error_code, row.error_message, row.error_advice = error.code, error.message, error.advice


def _wait(error: CrmError, attempts: int) -> timedelta:
    if isinstance(error, (Gone, ThereAlready)) and attempts <= MOST_AT_ONCE:
        # The ledger knows better now: the record is made again, or read, at once. Who deletes a deal
        # may have deleted its meeting too.
        return timedelta()
    after = error.after if isinstance(error, RetryLater) else None
    ceiling = RETRY_CEILINGS[min(attempts, len(RETRY_CEILINGS)) - 1]
    return timedelta(seconds=after or random.uniform(0, ceiling))  # noqa: S311


def retry_failed(
    session: Session,
    now: datetime,
    connection_id: int | None = None,
    delivery_ids: Sequence[int] = (),
) -> list[int]:
    """Give failed deliveries new tries, all of them or some; give the connections to wake."""
    working = exists().where(
        ConnectionRow.id == DeliveryRow.connection_id, ConnectionRow.status.in_(WORKING)
    )
    conditions = [DeliveryRow.state == DeliveryState.FAILED, working]
    if connection_id is not None:
        conditions.append(DeliveryRow.connection_id == connection_id)
    if delivery_ids:
        conditions.append(DeliveryRow.id.in_(delivery_ids))
    taken = session.execute(
        update(DeliveryRow)
        .where(*conditions)
        .values(
            state=DeliveryState.DUE.value,
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            inconclusive_batches=0,
            **FRESH,
        )
        .returning(DeliveryRow.connection_id)
        .execution_options(synchronize_session=False)
    )
    return [row.connection_id for row in taken]


def park(session: Session, connection_id: int, now: datetime) -> None:
    """Set the work of a broken connection aside: nothing is tried, nothing is lost."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.connection_id == connection_id, DeliveryRow.state.in_(WORKABLE))
        .values(state=DeliveryState.PARKED.value, updated_at=now)
    )


def unpark(session: Session, connection_id: int, now: datetime) -> None:
    """Take parked work up again, in the newest state of each booking."""
    newest = select(BookingRow.revision).where(BookingRow.id == DeliveryRow.booking_id)
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .values(
            state=DeliveryState.DUE.value,
            wanted_revision=_newer(newest.scalar_subquery()),
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
        )
        .execution_options(synchronize_session=False)
    )


def discard_parked(session: Session, connection_id: int, now: datetime) -> int:
    """Let go of parked work; a newer event of a booking takes it up again. Give its number."""
    gone = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state == DeliveryState.PARKED,
        )
        .values(state=DeliveryState.DISCARDED.value, updated_at=now)
        .returning(DeliveryRow.id)
    )
    return len(gone.all())


def count_parked(session: Session, connection_id: int) -> int:
    """How many bookings wait for a connection to work again."""
    query = select(func.count()).where(
        DeliveryRow.connection_id == connection_id, DeliveryRow.state == DeliveryState.PARKED
    )
    return session.scalar(query) or 0


def mark_missed_due(
    session: Session, connection: ConnectionRow, now: datetime, since: datetime | None
) -> int:
    """Mark as due what a connection has not in its newest state: bookings that have not begun, and
    those that changed after `since` (when it was disconnected). Give their number.
    """
    wanted = BookingRow.start >= now
    if since is not None:
        wanted = or_(wanted, BookingRow.updated_at >= since)
    return _mark_due_unless_settled(session, connection, now, wanted)


def _mark_due_unless_settled(
    session: Session, connection: ConnectionRow, now: datetime, *wanted: ColumnElement[bool]
) -> int:
    settled = exists().where(
        DeliveryRow.booking_id == BookingRow.id,
        DeliveryRow.connection_id == connection.id,
        DeliveryRow.wanted_revision == BookingRow.revision,
    )
    query = select(BookingRow).where(*wanted, ~settled).order_by(BookingRow.id)
    rows = session.scalars(query).all()
    for row in rows:
        mark_due_for(session, row, connection, now, backlog=True)
    return len(rows)


def mark_all_due(session: Session, connection_id: int, now: datetime) -> None:
    """Mark everything that was ever wanted as due once more: the records are gone or elsewhere."""
    newest = select(BookingRow.revision).where(BookingRow.id == DeliveryRow.booking_id)
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.connection_id == connection_id,
            DeliveryRow.state != DeliveryState.DISCARDED,
        )
        .values(
            state=DeliveryState.DUE.value,
            wanted_revision=_newer(newest.scalar_subquery()),
            synced_revision=0,
            backlog=True,
            next_attempt_at=now - SKEW,
            due_since=now,
            updated_at=now,
            **FRESH,
        )
        .execution_options(synchronize_session=False)
    )


def count_by_state(session: Session) -> dict[tuple[str, str], int]:
    """(provider, state) -> number of deliveries."""
    query = (
        select(ConnectionRow.provider, DeliveryRow.state, func.count())
        .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
        .group_by(ConnectionRow.provider, DeliveryRow.state)
    )
    return {(provider, state): number for provider, state, number in session.execute(query)}
