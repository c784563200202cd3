"""The drainer: one per connection, makes a CRM match the newest state of the bookings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from app.bootstrap import Services
from app.domain.booking import Booking
from app.domain.errors import (
    Blocked,
    CrmError,
    Gone,
    MissingScope,
    RateLimited,
    RetryLater,
    UnfitPayload,
)
from app.domain.errors import Unauthorized as UnauthorizedError
from app.domain.events import with_details
from app.domain.records import (
    SHARED,
    DesiredBooking,
    Directory,
    Known,
    Outcome,
    Plan,
    Ref,
)
from app.mapping.check import check_against
from app.mapping.diff import Settled, Wanted, merge, written
from app.mapping.mapping import Mapping
from app.mapping.plan import Planner, Surroundings
from app.services.inquiry import inquire
from app.store import deliveries
from app.store.bookings import add_details, has_booked_since, histories, read_state
from app.store.connections import Problem, count_failures, set_status
from app.store.engine import utcnow
from app.store.ledger import Ledger
from app.store.models import (
    WORKING,
    BookingRow,
    ConnectionRow,
    ConnectionStatus,
    DeliveryRow,
    SyncLog,
)
from crm_adapters.base import Adapter, CallMeter, Report

log = structlog.get_logger(__name__)
DIRECTORY_TTL = 600.0
"""Seconds that owners, pipelines and fields of an account are taken to stay as they are."""
OUTAGE_PAUSE = 15.0
"""Seconds until a CRM that is out of order is asked again."""
HAND_OVER = 300.0
"""Seconds after which a drain lets other connections have the worker; it is woken again."""


class LeaseLost(Exception):
    """Another drainer has taken over; what this one still holds must not be written."""


@dataclass
class _Account:
    """A connection's adapter with what it has read of the account; kept warm between drains."""

    adapter: Adapter
    meter: CallMeter
    directory: Directory
    mapping: Mapping
    read_at: float
    status_since: datetime


@dataclass
class _Work:
    """One delivery in a batch."""

    delivery_id: int
    revision: int
    desired: DesiredBooking | None = None
    problem: CrmError | None = None


@dataclass
class _Batch:
    """What a batch of deliveries is to bring about."""

    works: list[_Work]
    settled: Settled
    ledger: dict[Ref, Known]
    intended: set[Ref]

    @property
    def plan(self) -> Plan:
        """What is to be written."""
        return self.settled.plan


class Drainer:
    """Works through what is due, connection by connection."""

    def __init__(
        self,
        services: Services,
        now: Callable[[], datetime] = utcnow,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_save` is called between the CRM's answer and the ledger: tests break in there."""
        self._services = services
        self._store = services.store
        self._now = now
        self._before_save = before_save
        self._accounts: dict[int, _Account] = {}
        self._refused: dict[int, str] = {}
        """Connection -> version of a mapping that its CRM's schema speaks against."""

    def drain(self, connection_id: int) -> None:
        """Bring everything that is due into one CRM; return at once where another is at it."""
        deadline = time.monotonic() + HAND_OVER
        while time.monotonic() < deadline:
            with self._store.write() as session:
                fence = deliveries.take_lease(session, connection_id, self._now())
            if fence is None:
                return
            try:
                self._work(connection_id, fence, deadline)
            except LeaseLost:
                log.warning("lease_lost", connection_id=connection_id)
                return
            finally:
                with self._store.write() as session:
                    deliveries.give_lease(session, connection_id, fence)
            # A wake-up that came while the lease was held found it taken: look once more.
            with self._store.read() as session:
                if connection_id not in deliveries.connections_with_work(session, self._now()):
                    return
        self._services.waker.wake([connection_id])

    def _work(self, connection_id: int, fence: int, deadline: float) -> None:
        account: _Account | None = None
        while time.monotonic() < deadline:
            with self._store.read() as session:
                limit = account.adapter.batch_size if account else 1
                batch = deliveries.due(session, connection_id, self._now(), limit)
            if not batch:
                return
            try:
                warm = account is not None
                account = self._account(connection_id)
                if not warm:
                    continue
                self._sync(connection_id, fence, account, batch)
            except RetryLater as error:
                self._pause(connection_id, fence, error)
                return
            except (UnauthorizedError, MissingScope) as error:
                self._break(connection_id, fence, error)
                return

    def _account(self, connection_id: int) -> _Account:
        """The warm adapter of a connection; read anew after a while, a reconnect or a new mapping."""
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        latest = self._services.mappings[row.provider]
        known = self._accounts.get(connection_id)
        fresh = known and known.status_since == row.status_since
        young = known and time.monotonic() - known.read_at < DIRECTORY_TTL
        if (
            known
            and fresh
            and young
            and latest.version
            in (
                known.mapping.version,
                self._refused.get(connection_id),
            )
        ):
            return known
        adapter = self._services.adapter(connection_id)
        directory = adapter.directory()
        mapping = self._chosen(connection_id, known, latest, adapter, directory)
        now = time.monotonic()
        account = _Account(adapter, adapter.access.meter, directory, mapping, now, row.status_since)
        self._accounts[connection_id] = account
        return account

    def _chosen(
        self,
        connection_id: int,
        known: _Account | None,
        latest: Mapping,
        adapter: Adapter,
        directory: Directory,
    ) -> Mapping:
        """The mapping to go by: the newest, unless the CRM's own schema says that it cannot work."""
        if known is None or latest.version == known.mapping.version:
            self._say(connection_id, None)
            return latest
        mistakes = check_against(latest, adapter.shape, directory)
        if not mistakes:
            self._refused.pop(connection_id, None)
            self._say(connection_id, None)
            log.info("mapping_taken", connection_id=connection_id, version=latest.version)
            return latest
        words = "; ".join(f"{mistake.key}: {mistake.message}" for mistake in mistakes)
        self._refused[connection_id] = latest.version
        self._say(connection_id, words)
        log.error("mapping_refused", connection_id=connection_id, problem=words,
                  version_in_use=known.mapping.version)  # fmt: skip
        return known.mapping

    def _say(self, connection_id: int, problem: str | None) -> None:
        """Show on the connection's page that a changed mapping file is not in use."""
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id)
            if row.mapping_problem != problem:
                row.mapping_problem = problem

    def _sync(
        self,
        connection_id: int,
        fence: int,
        account: _Account,
        rows: list[tuple[DeliveryRow, BookingRow]],
    ) -> None:
        """One batch: plan, note what is about to be made, write, save. The CRM is called outside
        of any transaction."""
        before = account.meter.calls
        batch = self._plan(connection_id, fence, account, rows)
        report = Report(problems=dict(batch.settled.problems))
        outage: CrmError | None = None
        try:
            if batch.plan.changes:
                account.adapter.apply(batch.plan, report)
        except (RetryLater, UnauthorizedError, MissingScope) as error:
            outage = error
        self._before_save()
        calls = account.meter.calls - before
        with self._store.write() as session:
            self._hold(session, connection_id, fence)
            self._save(session, connection_id, account, batch, report)
            row = session.get_one(ConnectionRow, connection_id)
            self._end(session, row, account.mapping, batch, report, outage, calls)
            if not outage:
                _recovered(row)
        if outage:
            raise outage

    def _plan(
        self,
        connection_id: int,
        fence: int,
        account: _Account,
        rows: list[tuple[DeliveryRow, BookingRow]],
    ) -> _Batch:
        mapping = account.mapping
        planner = Planner(mapping, account.adapter.shape, account.directory)
        works: list[_Work] = []
        groups: set[str] = set()
        for delivery, row in rows:
            booking, around = self._surroundings(connection_id, fence, mapping, delivery, row)
            work = _Work(delivery.id, row.revision)
            try:
                work.desired = planner.plan(booking, around)
            except CrmError as error:
                work.problem = error
            # Two bookings that may fall on one deal go one after the other.
            group = work.desired.group if work.desired else ""
            if group and group in groups:
                continue
            groups.add(group)
            works.append(work)
        wanted = merge(work.desired for work in works if work.desired)
        with self._store.read() as session:
            known = Ledger(session, self._services.cipher, connection_id).read(wanted)
        settled = inquire(account.adapter, wanted, known, account.directory)
        settled.plan = replace(settled.plan, assign=mapping.assignment_rules)
        changes = settled.plan.changes
        new = [c.ref for c in changes if c.record_id is None and c.ref not in known]
        with self._store.write() as session:
            self._hold(session, connection_id, fence)
            Ledger(session, self._services.cipher, connection_id).intend(new, self._now())
        return _Batch(works, settled, known, set(new))

    def _surroundings(
        self,
        connection_id: int,
        fence: int,
        mapping: Mapping,
        delivery: DeliveryRow,
        row: BookingRow,
    ) -> tuple[Booking, Surroundings]:
        """A booking and what its plan depends on beside it, as far as the mapping asks for it."""
        booking = self._details(connection_id, fence, mapping, row)
        cipher, now = self._services.cipher, self._now()
        people = [person.identity for person in booking.attendees if person.identity]
        rules = mapping.rules_for(
            booking.meeting_type.slug, next((h.email for h in booking.hosts if h.email), None)
        )
        turn, told, booked = 0, {}, False
        with self._store.read() as session:
            if mapping.tells_of_people:
                told = histories(session, cipher, people, now)
            if booking.form and people:
                booked = has_booked_since(session, cipher, people[0], booking.start)
        if rules.owner.rule == "round_robin":
            with self._store.write() as session:
                self._hold(session, connection_id, fence)
                turn = deliveries.take_turn(session, session.get_one(DeliveryRow, delivery.id))
        return booking, Surroundings(now, told, turn, booked)

    def _details(
        self, connection_id: int, fence: int, mapping: Mapping, row: BookingRow
    ) -> Booking:
        """The booking; with meetergo's own word on it where a mapping asks for missing answers."""
        booking = read_state(row, self._services.cipher)
        lacking = not any(person.answers for person in booking.attendees)
        source = booking.source
        if not (
            mapping.needs_answers
            and lacking
            and row.details_at is None
            and not booking.form
            and self._services.intake.source(source).api_key
        ):
            return booking
        try:
            fuller = with_details(booking, self._services.read_appointment(source, booking.id))
        except (CrmError, UnfitPayload) as error:
            # The booking is worth more than its answers; a later event asks again.
            log.warning("details_lacking", booking_id=row.id, reason=str(error))
            return booking
        with self._store.write() as session:
            self._hold(session, connection_id, fence)
            kept = session.get_one(BookingRow, row.id)
            if kept.revision == row.revision:
                add_details(session, self._services.cipher, kept, fuller, self._now())
        return fuller

    def _save(
        self,
        session: Session,
        connection_id: int,
        account: _Account,
        batch: _Batch,
        report: Report,
    ) -> None:
        """Write the ledger and the sync log in the transaction that ends the deliveries."""
        ledger = Ledger(session, self._services.cipher, connection_id)
        changed = {change.ref for change in batch.plan.changes}
        records = {}
        for ref in batch.settled.renewed & set(report.results):
            ledger.unlink(ref)
        for ref, item in batch.settled.wanted.items():
            result = report.results.get(ref)
            known = None if ref in batch.settled.renewed else batch.ledger.get(ref)
            if result and result.outcome is Outcome.DELETED:
                ledger.forget(ref)
                continue
            if result is None and (ref in changed or known is None):
                continue
            record_id = result.record_id if result else (known.record_id if known else None)
            url = account.adapter.url_for(ref.object, record_id) if record_id else ""
            records[ref] = _after(item, known, record_id, url)
        ledger.save(records, self._now())
        # What was never sent is not in doubt: the next try need not look for it.
        ledger.withdraw(batch.intended - report.begun - set(report.results))
        for ref, problem in report.problems.items():
            if isinstance(problem, Gone):
                ledger.lose(ref)
        for work in batch.works:
            for record in work.desired.records if work.desired else ():
                result = report.results.get(record.ref)
                if result and result.outcome is not Outcome.UNCHANGED:
                    session.add(
                        SyncLog(
                            delivery_id=work.delivery_id,
                            object=record.ref.object.value,
                            record_id=result.record_id,
                            outcome=result.outcome.value,
                            at=self._now(),
                        )
                    )

    def _end(
        self,
        session: Session,
        row: ConnectionRow,
        mapping: Mapping,
        batch: _Batch,
        report: Report,
        outage: CrmError | None,
        calls: int,
    ) -> None:
        """Say of each delivery how it ended; calls are shared evenly."""
        failed = passed = 0
        changed = {change.ref for change in batch.plan.changes}
        share, rest = divmod(calls, len(batch.works))
        now = self._now()
        for number, work in enumerate(batch.works):
            ending = deliveries.Ending(
                share + (number < rest),
                mapping.version,
                _notes(work, batch.settled),
                work.desired.again_at if work.desired else None,
            )
            mine, wanted = ending.calls, work.desired
            problem = work.problem or _problem(work, report)
            refs = [r.ref for r in work.desired.records] if work.desired else []
            open_ = [ref for ref in refs if ref in changed and ref not in report.results]
            if problem:
                failed += deliveries.end_badly(
                    session, work.delivery_id, work.revision, problem, mine, now
                )
            elif wanted and wanted.skipped:
                why = wanted.skipped
                deliveries.end_skipped(session, work.delivery_id, work.revision, why, ending, now)
            elif wanted and wanted.wait_until:
                until = wanted.wait_until
                deliveries.put_off(session, work.delivery_id, work.revision, until, ending, now)
            elif not open_:
                deliveries.end_well(session, work.delivery_id, work.revision, ending, now)
                passed += 1
            elif outage and not isinstance(outage, (RateLimited, UnauthorizedError, MissingScope)):
                deliveries.end_badly(session, work.delivery_id, work.revision, outage, mine, now)
            elif outage is None:
                lost = RetryLater("The adapter left a record without an answer.")
                deliveries.end_badly(session, work.delivery_id, work.revision, lost, mine, now)
        limit = self._services.settings.notify_after_failures
        count_failures(session, row, failed, passed, limit, now)

    def _hold(self, session: Session, connection_id: int, fence: int) -> None:
        if not deliveries.hold_lease(session, connection_id, fence, self._now()):
            raise LeaseLost

    def _pause(self, connection_id: int, fence: int, error: RetryLater) -> None:
        """Leave a CRM alone for as long as it asked, or a moment."""
        wait = timedelta(seconds=error.after or OUTAGE_PAUSE)
        with self._store.write() as session:
            self._hold(session, connection_id, fence)
            row = session.get_one(ConnectionRow, connection_id)
            row.pause_until = self._now() + wait
            if row.problem is None:
                row.last_error = error.message
        log.warning("crm_paused", connection_id=connection_id, seconds=wait.total_seconds())

    def _break(self, connection_id: int, fence: int, error: CrmError) -> None:
        """Park the work of a connection that may not do what it should."""
        with self._store.write() as session:
            self._hold(session, connection_id, fence)
            row = session.get_one(ConnectionRow, connection_id)
            if row.status not in WORKING:
                return  # the token service has said already what is wrong
            if isinstance(error, UnauthorizedError):
                status, problem = ConnectionStatus.EXPIRED, Problem.GRANT
                by_key = row.auth == "key"
                step = "Enter a new key." if by_key else "Connect it again on the connections page."
            else:
                status, problem = ConnectionStatus.ERROR, Problem.SCOPE
                step = f"{error.advice} Or press 'Check and resume' once the CRM allows it."
            set_status(session, row, status, self._now(), problem, error.message, step)
        log.warning("connection_broken", connection_id=connection_id, code=error.code)


def _recovered(row: ConnectionRow) -> None:
    """Forget an outage that is over, so that nobody reads of it on the dashboard."""
    if row.pause_until is not None:
        row.pause_until = None
        if row.problem is None:
            row.last_error = None


def _problem(work: _Work, report: Report) -> CrmError | None:
    """The root of what went wrong with a booking: a record of its own before one that waited."""
    records = work.desired.records if work.desired else ()
    problems = [report.problems[r.ref] for r in records if r.ref in report.problems]
    return next(
        (p for p in problems if not isinstance(p, Blocked)), problems[0] if problems else None
    )


def _notes(work: _Work, settled: Settled) -> tuple[str, ...]:
    """What a person should know of a booking that went through."""
    own = work.desired.notes if work.desired else ()
    refs = [record.ref for record in work.desired.records] if work.desired else []
    return tuple(dict.fromkeys([*own, *(n for ref in refs for n in settled.notes.get(ref, ()))]))


def _after(item: Wanted, known: Known | None, record_id: str | None, url: str) -> Known:
    """The ledger's line after a record was brought about."""
    record = item.record
    stale = known is not None and known.version is not None and known.version > item.version
    shared = record.ref.object in SHARED or record.borrowed
    links = tuple(dict.fromkeys((known.links if known and shared else ()) + record.links))
    if known is not None and stale:
        fresh = {name: value for name, value in record.fields.items() if name in record.timeless}
        hashes = written(replace(record, fields=fresh), known)
        return Known(record_id, hashes, links, known.version, url)
    return Known(record_id, written(record, known), links, item.version, url)
