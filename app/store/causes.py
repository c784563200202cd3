"""Stores why deliveries are not synced, finds all that share a cause, and tries them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, ScalarSelect, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from app.domain.errors import AccountRefused, CrmError, InvalidRecord, RetryLater, Unauthorized
from app.domain.refusals import cause_key
from app.store.cause_models import CauseRow, RetryRow
from app.store.leases import SKEW
from app.store.models import BookingRow, ConnectionRow, DeliveryRow
from app.store.states import WORKING, DeliveryState
from app.store.upsert import insert_into

CONNECTION = "connection"
"""The code of a cause that is the connection itself: it does not work."""
COUNTED = (
    DeliveryState.FAILED, DeliveryState.RETRYING, DeliveryState.PARKED, DeliveryState.DUE,
)  # fmt: skip
"""The states of deliveries that have a cause."""
RETRIED = (DeliveryState.FAILED, DeliveryState.RETRYING)
MOST_COUNTED = 1000
"""No more deliveries than this are counted of a cause and state: a page shows `1,000+`."""
CHUNK = 500
SAMPLED = 200
"""Deliveries from which the number of calls is estimated."""


@dataclass(frozen=True)
class KnownCause:
    """A cause with its connection, its deliveries by state, and the newest of them."""

    row: CauseRow
    connection: ConnectionRow
    counts: dict[str, int]
    newest: int | None
    """Id of the delivery that it struck last."""


def connection_cause(connection_id: int) -> str:
    """Return the key of the cause that a connection does not work."""
    return cause_key("", connection_id, CONNECTION)


def note(session: Session, row: DeliveryRow, error: CrmError, now: datetime) -> None:
    """Note the cause for which a delivery was not synced, and when it was seen."""
    connection = session.get_one(ConnectionRow, row.connection_id)
    if isinstance(error, (AccountRefused, Unauthorized)):
        key = note_connection(session, connection.id, now)
    else:
        key = _note_error(session, connection, error, now)
    _replace(session, row, key, now)


def clear(session: Session, row: DeliveryRow, now: datetime) -> None:
    """Note that a delivery has no cause any more; without others the cause is mended."""
    _replace(session, row, None, now)


def note_connection(session: Session, connection_id: int, now: datetime) -> str:
    """Note that a connection does not work, and return the key of that cause."""
    values = {"error_code": CONNECTION, "reason": "", "object": "", "field": "",
              "sentence": None, "advice": None}  # fmt: skip
    return _upsert(session, connection_cause(connection_id), connection_id, values, now)


def settle(session: Session, key: str, now: datetime) -> None:
    """Note a cause as mended if no delivery has it any more."""
    session.flush()
    left = exists().where(DeliveryRow.cause_key == key)
    session.execute(
        update(CauseRow)
        .where(CauseRow.key == key, CauseRow.mended_at.is_(None), ~left)
        .values(mended_at=now)
        .execution_options(synchronize_session=False)
    )


def _note_error(session: Session, connection: ConnectionRow, error: CrmError, now: datetime) -> str:
    refusal = error.refusal
    field = next(iter(error.fields), "") if isinstance(error, InvalidRecord) else ""
    sentence = error.outage if isinstance(error, RetryLater) else None
    values = {
        "error_code": error.code,
        "reason": refusal.reason.value if refusal else "",
        "object": refusal.object if refusal else "",
        "field": (refusal.field if refusal else field)[:200],
        "sentence": refusal.general if refusal else sentence,
        "advice": refusal.mend(f"{connection.provider}.yaml") if refusal else error.advice,
    }
    parts = (values["error_code"], values["reason"], values["object"], values["field"])
    key = cause_key(connection.provider, connection.id, *map(str, parts))
    return _upsert(session, key, connection.id, values, now)


def _upsert(
    session: Session,
    key: str,
    connection_id: int,
    values: dict[str, str | None],
    now: datetime,
) -> str:
    insert = insert_into(session, CauseRow)
    again = {
        "last_seen": now,
        "sentence": insert.excluded.sentence,
        "advice": insert.excluded.advice,
        "came_back_at": case(
            (CauseRow.mended_at.is_not(None), insert.excluded.last_seen),
            else_=CauseRow.came_back_at,
        ),
        "mended_at": None,
    }
    session.execute(
        insert.on_conflict_do_update(index_elements=["key"], set_=again),
        [{"key": key, "connection_id": connection_id, **values, "first_seen": now,
          "last_seen": now}],
    )  # fmt: skip
    return key


def _replace(session: Session, row: DeliveryRow, key: str | None, now: datetime) -> None:
    before, row.cause_key = row.cause_key, key
    if before and before != key:
        settle(session, before, now)


# Reading


def known(session: Session, keys: Sequence[str] = (), limit: int = 50) -> list[KnownCause]:
    """Return causes, those seen last first: the given ones, or those that deliveries have.

    One query, whose cost for each cause does not grow with the number of its deliveries.
    """
    newest = (
        select(DeliveryRow.id)
        .where(DeliveryRow.cause_key == CauseRow.key)
        .order_by(DeliveryRow.updated_at.desc(), DeliveryRow.id.desc())
        .limit(1)
        .correlate(CauseRow)
        .scalar_subquery()
    )
    query = (
        select(CauseRow, ConnectionRow, newest, *(_count(state) for state in COUNTED))
        .join(ConnectionRow, ConnectionRow.id == CauseRow.connection_id)
        .order_by(CauseRow.last_seen.desc(), CauseRow.key)
        .limit(limit)
    )
    chosen: ColumnElement[bool] = exists().where(DeliveryRow.cause_key == CauseRow.key)
    query = query.where(CauseRow.key.in_(keys) if keys else chosen)
    return [
        KnownCause(row, connection, dict(zip(COUNTED, counts, strict=True)), last)
        for row, connection, last, *counts in session.execute(query)
    ]


def mended(session: Session, limit: int = 50) -> list[KnownCause]:
    """Return the causes that no delivery has any more, those mended last first."""
    left = exists().where(DeliveryRow.cause_key == CauseRow.key)
    query = (
        select(CauseRow.key)
        .where(~left)
        .order_by(func.coalesce(CauseRow.mended_at, CauseRow.last_seen).desc(), CauseRow.key)
        .limit(limit)
    )
    keys = session.scalars(query).all()
    return known(session, keys, limit) if keys else []


def samples(session: Session, ids: Sequence[int]) -> dict[int, tuple[DeliveryRow, str]]:
    """Return deliveries by id, each with its booking's key."""
    query = (
        select(DeliveryRow, BookingRow.key)
        .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
        .where(DeliveryRow.id.in_(ids))
    )
    return {row.id: (row, key) for row, key in session.execute(query)}


def newest_of(session: Session, key: str, limit: int) -> list[int]:
    """Return the ids of the deliveries that a cause struck last."""
    query = select(DeliveryRow.id).where(DeliveryRow.cause_key == key)
    query = query.order_by(DeliveryRow.updated_at.desc(), DeliveryRow.id.desc())
    return list(session.scalars(query.limit(limit)))


def _count(state: DeliveryState) -> ScalarSelect[int]:
    some = (
        select(DeliveryRow.id)
        .where(DeliveryRow.cause_key == CauseRow.key, DeliveryRow.state == state)
        .limit(MOST_COUNTED + 1)
        .correlate(CauseRow)
        .subquery()
    )
    return select(func.count()).select_from(some).correlate(CauseRow).scalar_subquery()


# Trying again


def number_to_retry(session: Session, key: str) -> int:
    """Return how many deliveries of a cause can be tried again."""
    query = select(func.count()).where(DeliveryRow.cause_key == key, DeliveryRow.state.in_(RETRIED))
    return session.scalar(query) or 0


def calls_each(session: Session, key: str) -> float:
    """Return about how many calls one more try of a delivery takes, from those that were made."""
    ids = newest_of(session, key, SAMPLED)
    tries = case((DeliveryRow.attempts > 1, DeliveryRow.attempts), else_=1)
    query = select(func.avg(DeliveryRow.calls * 1.0 / tries)).where(DeliveryRow.id.in_(ids))
    return max(1.0, float(session.scalar(query) or 0))


def mark_chunk(session: Session, retry: RetryRow, now: datetime) -> int:
    """Mark some more deliveries of a retry as due backlog; return how many there were."""
    working = exists().where(
        ConnectionRow.id == retry.connection_id, ConnectionRow.status.in_(WORKING)
    )
    chosen = session.scalars(
        select(DeliveryRow.id)
        .where(
            DeliveryRow.cause_key == retry.cause_key,
            DeliveryRow.state.in_(RETRIED),
            or_(DeliveryRow.retry_id.is_(None), DeliveryRow.retry_id != retry.id),
            DeliveryRow.updated_at <= retry.started_at,
            working,
        )
        .order_by(DeliveryRow.id)
        .limit(CHUNK)
        .with_for_update(of=DeliveryRow)
    ).all()
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(chosen))
        .values(
            state=DeliveryState.DUE.value, backlog=True, next_attempt_at=now - SKEW,
            due_since=now, updated_at=now, inconclusive_batches=0, retry_id=retry.id,
            attempts=0, worker_crashes=0, failing_since=None, last_outage_at=None,
            failure_notified=False,
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return len(chosen)


def take_back(session: Session, retry_id: int, now: datetime) -> int:
    """Leave the deliveries of a retry that no worker has begun as failed; return how many."""
    gone = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.retry_id == retry_id,
            DeliveryRow.state == DeliveryState.DUE,
            DeliveryRow.cause_key.is_not(None),
            # A booking that has changed since is wanted for its own sake.
            DeliveryRow.backlog,
            DeliveryRow.claimed_by.is_(None),
        )
        .values(state=DeliveryState.FAILED.value, due_since=None, updated_at=now)
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())


def progress(session: Session, retry_id: int) -> dict[str, int]:
    """Return the deliveries of a retry by state."""
    query = select(DeliveryRow.state, func.count()).where(DeliveryRow.retry_id == retry_id)
    return {state: number for state, number in session.execute(query.group_by(DeliveryRow.state))}


def last_retry(session: Session, key: str) -> RetryRow | None:
    """Return the last retry of a cause."""
    query = select(RetryRow).where(RetryRow.cause_key == key).order_by(RetryRow.id.desc())
    return session.scalars(query.limit(1)).first()


def unfinished(session: Session) -> list[int]:
    """Return the retries whose deliveries are not all marked yet."""
    query = select(RetryRow.id).where(RetryRow.marked_at.is_(None), RetryRow.stopped_at.is_(None))
    return list(session.scalars(query.order_by(RetryRow.id)))
