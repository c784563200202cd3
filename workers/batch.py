"""One batch of deliveries: planned together, written to the CRM, and noted in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.bootstrap import Services
from app.crm.changes import WriteOutcome
from app.crm.objects import Ref
from app.domain.booking import Booking
from app.domain.errors import AccountRefused, CrmError, RetryLater, Unauthorized, Unreadable
from app.domain.rate_limits import MakeWay, NotOurs
from app.mapping.mapping import Mapping as FieldMapping
from app.outbound.tracing import span
from app.services.planning import ConnectionPlanner, DeliveryFacts
from app.services.sources import UnknownSource
from app.store import deliveries, delivery_outcomes, leases, totals
from app.store.bookings import want_details
from app.store.connections import connection_of
from app.store.engine import Store
from app.store.ledger import Ledger
from app.store.models import BookingRow, ConnectionRow, DeliveryRow, SyncLog
from app.store.stories import in_stories
from app.store.totals import TotalKind
from app.sync.diff_state import Diff
from workers.accounts import OpenAccount
from workers.batch_state import BatchState, PlannedDelivery, Rows
from workers.delivery_ends import DeliveryEnds, mapping_sections
from workers.lease import Lease, LeaseLost
from workers.ledger_notes import note_intents, note_results
from workers.marks import Marks, marks_of
from workers.turn import Turn

log = structlog.get_logger(__name__)


class Stopping(NotOurs):
    """The process has to end: the unfinished work is left to another worker."""


STOPS_BATCH = (RetryLater, Unauthorized, AccountRefused, Stopping, MakeWay)


class Batch:
    """Deliveries of one connection that are worked on together.

    The CRM is called outside of any transaction.
    """

    def __init__(
        self,
        services: Services,
        account: OpenAccount,
        lease: Lease,
        now: Callable[[], datetime],
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_save` runs between the CRM's answer and the ledger: tests interrupt there."""
        self._services, self._store, self._cipher = services, services.store, services.cipher
        self._account, self._lease, self._now = account, lease, now
        self._before_save = before_save
        self._id = lease.connection_id
        self.state = BatchState()
        self._intended: set[Ref] = set()
        self._answered = 0
        self._marks = Marks()
        """The marks of this batch's records: where other bookings may meet them."""

    def prepare(
        self, rows: Rows, in_writing: Batch | None = None, turn: Turn | None = None
    ) -> None:
        """Claim deliveries, and ask the CRM what the plan needs to know.

        `turn` ends the batch early if others wait. Deliveries that touch records of `in_writing`,
        the batch that is being written meanwhile, are left for later. Raises LeaseLost; every other
        error is handled when the batch is written.
        """
        self.state.rows = rows
        meter = self._account.meter
        if in_writing is None:
            # Calls made between two batches are counted for no delivery.
            meter.since()
        self._answered = meter.answered
        self._set_pace([self, *([in_writing] if in_writing else [])], turn)
        ids = [delivery.id for delivery, _ in rows]
        self._lease.alone = None
        with self._write() as session:
            deliveries.claim(session, ids, self._lease.fence)
        self._lease.alone = ids[0] if len(ids) == 1 else None
        try:
            with span("batch: plan", connection_id=self._id, delivery_ids=ids):
                self._plan(in_writing)
        except STOPS_BATCH as error:
            self.state.stopped_by = error
        except CrmError as error:
            self.state.refused_by = error

    @property
    def done(self) -> bool:
        """Whether the whole batch was worked on, and none of it is due again at once."""
        return not self.state.released

    @property
    def stopped(self) -> bool:
        """Whether the work on the batch was stopped, for example by a CRM that does not answer."""
        return self.state.stopped_by is not None

    def release(self) -> None:
        """Give the deliveries back unchanged: writing them now would be of no use."""
        with self._write() as session:
            for delivery, _ in self.state.rows:
                delivery_outcomes.release(session, delivery.id, 0)

    def apply(self) -> None:
        """Write the deliveries to the CRM. Raises what ends the drain, after noting what was done.

        RetryLater, Unauthorized and AccountRefused mean that the CRM as a whole takes nothing now.
        Stopping means that the process ends. After LeaseLost nothing is noted. Deliveries that make
        way for others are left for later.
        """
        state = self.state
        ids = [delivery.id for delivery, _ in state.rows]
        try:
            with span("batch: write", connection_id=self._id, delivery_ids=ids):
                self._send()
        except STOPS_BATCH as error:
            state.stopped_by = error
        except CrmError as error:
            state.refused_by = error
        self._before_save()
        cut = isinstance(state.stopped_by, MakeWay)
        with self._write() as session:
            self._save(session)
        self._lease.alone = None
        self._log_ends()
        if state.stopped_by and not cut:
            raise state.stopped_by

    def _log_ends(self) -> None:
        ended = {planned.delivery_id: planned for planned in self.state.planned}
        for delivery, row in self.state.rows:
            problem = self.state.problem_of(ended[delivery.id]) if delivery.id in ended else None
            code = problem.code if isinstance(problem, CrmError) else None
            log.debug("delivery_ended", delivery_id=delivery.id, booking=row.key, code=code)

    def _set_pace(self, in_hand: list[Batch], turn: Turn | None) -> None:
        """Tell the rate limiter for which deliveries calls are made now, and when to make way."""
        adapter = self._account.adapter
        limiter = adapter.access.gate
        every = [delivery for batch in in_hand for delivery, _ in batch.state.rows]
        # While a live batch is being written, the batch prepared beside it uses its share too.
        limiter.backlog = all(delivery.backlog for delivery in every)
        if turn:
            size = max(len(batch.state.rows) for batch in in_hand)
            limiter.make_way = turn.begin(size, adapter.batch_size, limiter.backlog)

    def _send(self) -> None:
        state = self.state
        if state.diff is None:
            return
        state.report.problems.update(state.diff.problems)
        if state.diff.plan.changes:
            self.note_intents(state.diff)
            self._account.adapter.apply(state.diff.plan, state.report)

    def note_intents(self, diff: Diff) -> None:
        """Note what is about to be written, before it is sent to the CRM."""
        with self._write() as session:
            # Records that were begun are kept current, whatever the booking becomes.
            deliveries.note_mapping_sections(session, self._new_sections())
            ledger = Ledger(session, self._cipher, self._id)
            self._intended = note_intents(ledger, diff, self.state.known, self._now())

    def _save(self, session: Session) -> None:
        """Write the ledger and the log, and end the deliveries, in one transaction."""
        state, meter, now = self.state, self._account.meter, self._now()
        if state.diff is not None:
            ledger = Ledger(session, self._cipher, self._id)
            adapter = self._account.adapter
            note_results(
                ledger, state.diff, state.known, state.report, adapter, self._intended, now
            )
            self._log_changes(session)
        row = connection_of(session, self._id)
        # A CRM that answers nonsense is out of order, even if it answered other calls before.
        if meter.answered > self._answered and not isinstance(state.stopped_by, Unreadable):
            row.alive_at, row.outages = now, 0
        cut = isinstance(state.stopped_by, MakeWay)
        if not state.stopped_by or (cut and state.report.results):
            _recovered(row)
            row.progress_at, row.stalls = now, 0
        day = meter.limits.get("day")
        row.calls_left = day[0] if day else None
        tell_after = self._services.settings.notify_after_failures
        ends = DeliveryEnds(state, self._account, tell_after, self._now)
        attempts = ends.end(session, row, meter.since())
        calls = {(TotalKind.CALLS, name): found for name, found in meter.take_results().items()}
        batches = {(TotalKind.BATCHES, ""): 1}
        totals.add(session, self._id, {**attempts, **calls, **batches})

    def _write(self) -> AbstractContextManager[Session]:
        return write_as_holder(self._store, self._lease)

    def _plan(self, in_writing: Batch | None) -> None:
        """Plan the bookings together; leave out those that may meet the batch being written."""
        account, state = self._account, self.state
        planner = ConnectionPlanner(
            self._store,
            self._cipher,
            self._id,
            account.adapter,
            account.mapping,
            account.directory,
            self._now,
            frozenset(account.refused_owners),
        )
        with self._store.read() as session:
            bookings = in_stories(session, self._cipher, [row for _, row in state.rows])
        existing = planner.existing(bookings.values())
        self._want_answers(account.mapping, [(row, bookings[row.id]) for _, row in state.rows])
        groups: set[str] = set()
        for delivery, row in state.rows:
            booking = bookings[row.id]
            planned = PlannedDelivery(delivery.id, row.revision)
            found = planner.plan(booking, existing, self._facts(delivery, row, booking))
            if isinstance(found, CrmError):
                planned.problem = found
            else:
                planned.desired = found
            marks, group = Marks(), ""
            if planned.desired:
                marks = marks_of(planned.desired, account.adapter, booking.former_attendees)
                group = planned.desired.group
            # Two bookings that may share one deal go one after the other: the second one has to
            # find what the first one is about to make.
            if (group and group in groups) or self._marks.meets(marks):
                continue
            if in_writing and in_writing._marks.meets(marks, same_record=True):
                continue
            if in_writing and planned.desired and planner.may_have_begun(planned.desired):
                continue
            groups.add(group)
            self._marks.add(marks)
            state.planned.append(planned)
        desired = [planned.desired for planned in state.planned if planned.desired]
        state.known, diff = planner.settle(desired)
        diff.plan = replace(diff.plan, assign=account.mapping.assignment_rules)
        state.diff = diff

    def _facts(self, delivery: DeliveryRow, row: BookingRow, booking: Booking) -> DeliveryFacts:
        """What the delivery adds to the plan; it also takes its place in the rotation of owners."""
        now, mapping = self._now(), self._account.mapping
        host = next((host.email for host in booking.hosts if host.email), None)
        position = delivery.round_robin_position or 0
        if mapping.rules_for(booking.meeting_type.slug, host).owner.rule == "round_robin":
            with self._write() as session:
                mine = session.get_one(DeliveryRow, delivery.id)
                position = deliveries.rotation_position(session, mine, booking.record_key)
        recheck = delivery.recheck_at
        return DeliveryFacts(
            position,
            delivery.mapping_section or {},
            recheck if recheck and recheck <= now else None,
            frozenset(self._account.left_out.get((delivery.id, row.revision), ())),
            self._was_before_restore(booking),
        )

    def _was_before_restore(self, booking: Booking) -> bool:
        """Whether the booking may have been written after the backup that was restored."""
        restored_at, made_at = self._services.settings.restored_at, booking.created_at
        return restored_at is not None and (made_at is None or made_at <= restored_at)

    def _want_answers(
        self, mapping: FieldMapping, states: list[tuple[BookingRow, Booking]]
    ) -> None:
        """Have meetergo asked for answers that the mapping needs and a booking lacks.

        The booking is written without these answers now, and again once they have come.
        """
        if not mapping.needs_answers:
            return
        lacking = [
            row.id
            for row, booking in states
            if row.details_at is None
            and row.details_due_at is None
            and not booking.form
            and not booking.cancelled
            and not any(person.answers for person in booking.attendees)
            and self._has_key(booking.source)
        ]
        if not lacking:
            return
        with self._write() as session:
            news = want_details(session, lacking, self._now())
        if news:
            self._services.waker.confirm()

    def _has_key(self, source: str) -> bool:
        try:
            return bool(self._services.sources.rules(source).api_key)
        except UnknownSource:
            return False

    def _new_sections(self) -> dict[int, dict[str, list[object]]]:
        """Delivery -> the mapping sections of its records, if they have changed."""
        before = {delivery.id: delivery.mapping_section for delivery, _ in self.state.rows}
        sections = {
            planned.delivery_id: mapping_sections(planned.desired)
            for planned in self.state.planned
            if planned.desired
        }
        return {n: found for n, found in sections.items() if found and found != before[n]}

    def _log_changes(self, session: Session) -> None:
        report, entries = self.state.report, list[dict[str, Any]]()
        for planned in self.state.planned:
            for record in planned.desired.records if planned.desired else ():
                result = report.results.get(record.ref)
                if result and result.outcome is not WriteOutcome.UNCHANGED:
                    entry = {
                        "delivery_id": planned.delivery_id,
                        "object": record.ref.object.value,
                        "record_id": result.record_id,
                        "outcome": result.outcome.value,
                        "at": self._now(),
                    }
                    entries.append(entry)
        if entries:
            session.execute(insert(SyncLog), entries)


def write_as_holder(store: Store, lease: Lease) -> AbstractContextManager[Session]:
    """Open a transaction that only the holder of the lease may make. Raises LeaseLost."""

    @contextmanager
    def begin() -> Iterator[Session]:
        with store.write() as session:
            if not leases.hold_lease(session, lease.connection_id, lease.fence):
                raise LeaseLost
            yield session

    return begin()


def _recovered(row: ConnectionRow) -> None:
    """Forget an outage that is over, so that the dashboard no longer shows it."""
    row.outages = 0
    if row.pause_until is not None:
        row.pause_until = None
        if row.problem is None:
            row.last_error = None
