"""Why bookings are not synced, by cause; ignores a cause, and tries all of its bookings again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.rate_limits import RateLimit
from app.services.broken import why_parked
from app.services.mappings import MappingFiles
from app.services.rate_limits import room
from app.store import audit, causes
from app.store.cause_models import CauseRow, RetryRow
from app.store.causes import KnownCause
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow
from app.store.states import WORKING, DeliveryState
from config.providers import Providers

MOST_SAMPLES = 20
AT_ONCE = 20
"""Chunks that one call marks; the sweep goes on with the rest."""


class CauseState(StrEnum):
    """Where a cause stands."""

    OPEN = "open"
    CAME_BACK = "came_back"
    """Open again after it had been mended."""
    IGNORED = "ignored"
    """A person ignores it until the mapping file changes."""
    MENDED = "mended"
    """No booking has it any more."""


@dataclass(frozen=True)
class SampleView:
    """A booking with a cause, in its own words."""

    delivery_id: int
    booking: str
    state: str
    error: str | None
    at: datetime


@dataclass(frozen=True)
class RetryPlan:
    """What a retry of all bookings of a cause would do."""

    cause: str
    bookings: int
    calls: int
    """About how many calls to the CRM."""
    minutes: float
    """About how long it takes at the CRM's limit."""
    problem: str
    """Why nothing can be tried again now; empty if it can."""


@dataclass(frozen=True)
class RetryView:
    """How far a retry is."""

    id: int
    cause: str
    planned: int
    started_at: datetime
    started_by: str
    stopped_at: datetime | None
    waiting: int
    """Bookings yet to be tried, or being tried."""
    retrying: int
    failed: int
    """Bookings that failed again, or that a stop left as they were."""
    synced: int
    other: int
    """Bookings that wait for their connection by now, or that the mapping leaves out."""
    running: bool


@dataclass(frozen=True)
class CauseView:
    """A cause of bookings that are not synced."""

    key: str
    provider: str
    crm: str
    connection_id: int
    account: str
    state: CauseState
    error_code: str
    reason: str
    object: str
    field: str
    sentence: str
    advice: str
    counts: dict[str, int]
    """State -> deliveries; `MOST_COUNTED` + 1 stands for more."""
    bookings: int
    more: bool
    """Whether there are more than were counted."""
    first_seen: datetime
    last_seen: datetime
    mended_at: datetime | None
    came_back_at: datetime | None
    samples: tuple[SampleView, ...]
    """The bookings that it struck last: one in a list, more in the view of one cause."""
    retry: RetryView | None
    """Its last retry; None in a list."""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class NoCause(LookupError):
    """There is no such cause or retry; the message says so."""


class Causes:
    """Reads causes, and does what a person orders about one."""

    def __init__(
        self,
        store: Store,
        providers: Providers,
        mappings: MappingFiles,
        allowances: Callable[[str], Sequence[RateLimit]],
        wake: Callable[[Sequence[int]], object],
        keep_free: float,
    ) -> None:
        """`allowances`: the limits of a provider's API; `keep_free`: the share left to other apps."""
        self._store, self._providers, self._mappings = store, providers, mappings
        self._allowances, self._wake, self._keep_free = allowances, wake, keep_free

    def listed(self, state: CauseState | None = None, limit: int = 50) -> list[CauseView]:
        """The causes of bookings that are not synced now, those seen last first.

        `state`: only causes in it; with `mended`, those that no booking has any more.
        """
        with self._store.read() as session:
            if state is CauseState.MENDED:
                found = causes.mended(session, limit)
            else:
                found = causes.known(session, limit=limit)
            newest = [cause.newest for cause in found if cause.newest is not None]
            texts = causes.samples(session, newest)
            views = []
            for cause in found:
                own = [_sample(*texts[cause.newest])] if cause.newest in texts else []
                views.append(self._view(cause, own, None))
        return [view for view in views if state is None or view.state is state]

    def one(self, key: str) -> CauseView:
        """A cause with the bookings that it struck last, and its last retry. Raises NoCause."""
        with self._store.read() as session:
            found = causes.known(session, [key])
            if not found:
                raise NoCause(f"There is no cause {key!r}.")
            ids = causes.newest_of(session, key, MOST_SAMPLES)
            texts = causes.samples(session, ids)
            retry = causes.last_retry(session, key)
            shown = self._retry(retry, causes.progress(session, retry.id)) if retry else None
            return self._view(found[0], [_sample(*texts[i]) for i in ids if i in texts], shown)

    def ignore(self, key: str, actor: str) -> None:
        """Ignore a cause until the mapping file changes. Raises NoCause."""
        self._set_ignored(key, actor, "ignore_cause", True)

    def unignore(self, key: str, actor: str) -> None:
        """Ignore a cause no longer. Raises NoCause."""
        self._set_ignored(key, actor, "unignore_cause", False)

    def plan(self, key: str) -> RetryPlan:
        """What a retry of all bookings of a cause would do. Raises NoCause."""
        with self._store.read() as session:
            row = session.get(CauseRow, key)
            if row is None:
                raise NoCause(f"There is no cause {key!r}.")
            connection = session.get_one(ConnectionRow, row.connection_id)
            number = causes.number_to_retry(session, key)
            calls = round(number * causes.calls_each(session, key)) if number else 0
        minutes = calls / self._calls_a_minute(connection.provider)
        return RetryPlan(key, number, calls, minutes, _problem(connection, number))

    def retry(self, key: str, actor: str) -> RetryView:
        """Try all bookings of a cause again, as backlog. Raises NoCause; ValueError if none can be."""
        plan, now = self.plan(key), utcnow()
        if plan.problem:
            raise ValueError(plan.problem)
        with self._store.write() as session:
            connection_id = session.get_one(CauseRow, key).connection_id
            retry = RetryRow(
                cause_key=key, connection_id=connection_id, planned=plan.bookings,
                started_by=actor, started_at=now,
            )  # fmt: skip
            session.add(retry)
            audit.note(session, actor, "retry_cause", key, now)
            session.flush()
            number = retry.id
        self._mark(number)
        return self.progress(number)

    def progress(self, retry_id: int) -> RetryView:
        """How far a retry is. Raises NoCause."""
        with self._store.read() as session:
            retry = session.get(RetryRow, retry_id)
            if retry is None:
                raise NoCause(f"There is no retry {retry_id}.")
            return self._retry(retry, causes.progress(session, retry_id))

    def stop(self, retry_id: int, actor: str) -> RetryView:
        """Stop a retry: what no worker has begun stays failed. Raises NoCause."""
        now = utcnow()
        with self._store.write() as session:
            retry = session.get(RetryRow, retry_id, with_for_update=True)
            if retry is None:
                raise NoCause(f"There is no retry {retry_id}.")
            retry.stopped_at = retry.stopped_at or now
            session.flush()
            causes.take_back(session, retry_id, now)
            audit.note(session, actor, "stop_retry", str(retry_id), now)
        return self.progress(retry_id)

    def go_on(self) -> None:
        """Mark what large retries have not marked yet."""
        with self._store.read() as session:
            unfinished = causes.unfinished(session)
        for retry_id in unfinished:
            self._mark(retry_id)

    def _mark(self, retry_id: int) -> None:
        """Mark a retry's bookings as due, chunk by chunk, each in a transaction of its own."""
        for _ in range(AT_ONCE):
            now = utcnow()
            with self._store.write() as session:
                retry = session.get_one(RetryRow, retry_id, with_for_update=True)
                if retry.stopped_at or retry.marked_at:
                    return
                connection_id = retry.connection_id
                done = causes.mark_chunk(session, retry, now) < causes.CHUNK
                if done:
                    retry.marked_at = now
            self._wake([connection_id])
            if done:
                return

    def _set_ignored(self, key: str, actor: str, act: str, ignored: bool) -> None:
        with self._store.write() as session:
            row = session.get(CauseRow, key)
            if row is None:
                raise NoCause(f"There is no cause {key!r}.")
            connection = session.get_one(ConnectionRow, row.connection_id)
            row.ignored_for = self._mappings[connection.provider].version if ignored else None
            audit.note(session, actor, act, key, utcnow())

    def _view(
        self, cause: KnownCause, samples: Sequence[SampleView], retry: RetryView | None
    ) -> CauseView:
        row, connection = cause.row, cause.connection
        provider = self._providers.get(connection.provider)
        sentence, advice = row.sentence, row.advice
        if row.error_code == causes.CONNECTION:
            sentence, advice = why_parked(connection)
        told = next((sample.error for sample in samples if sample.error), None)
        return CauseView(
            key=row.key, provider=connection.provider,
            crm=provider.title if provider else connection.provider,
            connection_id=connection.id, account=connection.account, state=self._state(cause),
            error_code=row.error_code, reason=row.reason, object=row.object, field=row.field,
            sentence=sentence or told or f"The bookings failed with {row.error_code}.",
            advice=advice or "Read the sentence of one booking, mend it, then sync again.",
            counts={state: number for state, number in cause.counts.items() if number},
            bookings=sum(cause.counts.values()),
            more=any(number > causes.MOST_COUNTED for number in cause.counts.values()),
            first_seen=row.first_seen, last_seen=row.last_seen, mended_at=row.mended_at,
            came_back_at=row.came_back_at, samples=tuple(samples), retry=retry,
        )  # fmt: skip

    def _state(self, cause: KnownCause) -> CauseState:
        row = cause.row
        if cause.newest is None:
            return CauseState.MENDED
        if row.ignored_for and row.ignored_for == self._version(cause.connection):
            return CauseState.IGNORED
        return CauseState.CAME_BACK if row.came_back_at else CauseState.OPEN

    def _version(self, connection: ConnectionRow) -> str:
        """The version of the mapping file of a connection; empty if the CRM is not set up here."""
        known = connection.provider in self._providers
        return self._mappings[connection.provider].version if known else ""

    def _retry(self, row: RetryRow, states: dict[str, int]) -> RetryView:
        told = {state: states.get(state, 0) for state in DeliveryState}
        unmarked = 0
        if row.marked_at is None and row.stopped_at is None:
            unmarked = max(0, row.planned - sum(states.values()))
        waiting = told.pop(DeliveryState.DUE) + unmarked
        failed, synced = told.pop(DeliveryState.FAILED), told.pop(DeliveryState.SYNCED)
        retrying = told.pop(DeliveryState.RETRYING)
        return RetryView(
            id=row.id, cause=row.cause_key, planned=row.planned, started_at=row.started_at,
            started_by=row.started_by, stopped_at=row.stopped_at, waiting=waiting,
            retrying=retrying, failed=failed, synced=synced, other=sum(told.values()),
            running=waiting > 0 and row.stopped_at is None,
        )  # fmt: skip

    def _calls_a_minute(self, provider: str) -> float:
        """The calls that backlog may make: of several limits, the one for all calls comes first."""
        limit = self._allowances(provider)[0]
        return room(limit.calls, self._keep_free, backlog=True) * 60 / limit.seconds


def _sample(row: Any, key: str) -> SampleView:
    return SampleView(row.id, key, row.state, row.error_message, row.updated_at)


def _problem(connection: ConnectionRow, number: int) -> str:
    if connection.status not in WORKING:
        return "The connection does not work: connect it again, and its bookings are synced."
    return "" if number else "No booking of this cause is failed or retrying."
