"""One batch of deliveries: planned together, written to the CRM, and noted in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Any

import structlog
from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.bootstrap import Services
from app.crm.changes import WriteOutcome
from app.crm.lookup import MatchKey
from app.crm.objects import PEOPLE, FieldValue, ObjectName, Ref
from app.crm.port import Adapter, Report
from app.crm.schema import FieldKind
from app.domain.booking import Booking
from app.domain.errors import (
    AccountRefused,
    Blocked,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RateLimited,
    RetryLater,
    ThereAlready,
    Unauthorized,
    Unforeseen,
    Unreadable,
)
from app.domain.people import normalise_phone
from app.domain.rate_limits import MakeWay, NotOurs
from app.mapping.mapping import Mapping
from app.mapping.plan import PlanContext, Planner, refs_of
from app.services.crm_state import LedgerQueries, read_crm_state
from app.services.sharing import Sharing
from app.services.sources import UnknownSource
from app.store import deliveries, delivery_outcomes, leases
from app.store.bookings import (
    has_booked_since,
    histories,
    in_stories,
    take_part,
    want_details,
)
from app.store.connections import count_failures, tell_failures
from app.store.engine import Store
from app.store.ledger import Intent, Ledger
from app.store.models import BookingRow, ConnectionRow, DeliveryRow, SyncLog
from app.sync.desired import DesiredBooking
from app.sync.diff import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import fingerprints_of, known_after
from app.sync.merge import merge, with_lead_contacts
from app.sync.values import as_list
from crm_adapters.guard import place_of
from workers.accounts import OpenAccount
from workers.lease import Lease, LeaseLost
from workers.turn import Turn

log = structlog.get_logger(__name__)
Rows = list[tuple[DeliveryRow, BookingRow]]
"""Deliveries with the bookings that they are of."""


class Stopping(NotOurs):
    """The process has to end: what is not done yet is left to another worker."""


LISTED_KINDS = (FieldKind.CHOICE, FieldKind.CHOICES, FieldKind.REFERENCE)
"""Fields whose values are taken from the account's lists."""
STOPS_BATCH = (RetryLater, Unauthorized, AccountRefused, Stopping, MakeWay)


@dataclass
class _Work:
    """One delivery in a batch."""

    delivery_id: int
    revision: int
    desired: DesiredBooking | None = None
    problem: CrmError | None = None


class Batch:
    """Deliveries of one connection that are worked on together. The CRM is called outside of any
    transaction."""

    def __init__(
        self,
        services: Services,
        account: OpenAccount,
        lease: Lease,
        now: Callable[[], datetime],
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_save` is called between the CRM's answer and the ledger: tests break in there."""
        self._services, self._store, self._cipher = services, services.store, services.cipher
        self._account, self._lease, self._now = account, lease, now
        self._before_save = before_save
        self._id = lease.connection_id
        self._rows: Rows = []
        self._works: list[_Work] = []
        self._ledger: dict[Ref, LedgerEntry] = {}
        self._intended: set[Ref] = set()
        self._settled: Diff | None = None
        """What is to be done; None until the CRM has said what it holds."""
        self._report = Report()
        self._stopped_by: Exception | None = None
        self._refused_by: CrmError | None = None
        """What the CRM said of the batch as a whole, where it did not say whose fault it is."""
        self._answered = 0
        self._given_back = False
        """Something of it is due again at once."""
        self._marks = Marks()
        """Where others may meet what is worked on here."""

    def ask(self, rows: Rows, beside: Batch | None = None, turn: Turn | None = None) -> None:
        """Take deliveries in hand, and ask the CRM what has to be known of them.

        `turn` cuts it short where others wait. What touches the records of `beside`, which is being
        written meanwhile, is left for later.
        Raises LeaseLost; what else goes wrong is dealt with when the batch is written.
        """
        self._rows = rows
        meter = self._account.meter
        if beside is None:
            # Nobody is billed for the calls between two batches.
            meter.since()
        self._answered = meter.answered
        gate, in_hand = self._account.adapter.access.gate, [self, *([beside] if beside else [])]
        gate.backlog = all(delivery.backlog for batch in in_hand for delivery, _ in batch._rows)
        if turn:
            size = max(len(batch._rows) for batch in in_hand)
            gate.make_way = turn.begin(size, self._account.adapter.batch_size, gate.backlog)
        ids = [delivery.id for delivery, _ in rows]
        self._lease.alone = None
        with self._write() as session:
            deliveries.claim(session, ids, self._lease.fence)
        self._lease.alone = ids[0] if len(ids) == 1 else None
        try:
            self._settled = self._plan(beside)
        except STOPS_BATCH as error:
            self._stopped_by = error
        except CrmError as error:
            self._refused_by = error

    @property
    def done(self) -> bool:
        """Whether all of it was worked on, and nothing of it is due again at once."""
        return not self._given_back

    @property
    def stopped(self) -> bool:
        """Whether the CRM did not answer what was asked."""
        return self._stopped_by is not None

    def leave(self) -> None:
        """Put the deliveries back as they were: there is no use in writing them now."""
        with self._write() as session:
            for delivery, _ in self._rows:
                delivery_outcomes.release(session, delivery.id, 0)

    def write(self) -> None:
        """Bring the deliveries into the CRM. Raises what ends the drain, after noting what was done.

        That is RetryLater, Unauthorized or AccountRefused where the CRM as a whole does not take
        anything now, Stopping, and LeaseLost, after which nothing is noted. What has to make way for
        others is left for later.
        """
        settled, meter = self._settled, self._account.meter
        try:
            if settled:
                self._report.problems.update(settled.problems)
            if settled and settled.plan.changes:
                self._note_intents(settled)
                self._account.adapter.apply(settled.plan, self._report)
        except STOPS_BATCH as error:
            self._stopped_by = error
        except CrmError as error:
            self._refused_by = error
        self._before_save()
        with self._write() as session:
            self._save(session)
            row = session.get_one(ConnectionRow, self._id)
            # Who answers nonsense is out of order, whatever else was answered before.
            if meter.answered > self._answered and not isinstance(self._stopped_by, Unreadable):
                row.alive_at, row.outages = self._now(), 0
            cut = isinstance(self._stopped_by, MakeWay)
            if not self._stopped_by or (cut and self._report.results):
                _recovered(row)
                row.progress_at, row.stalls = self._now(), 0
            self._end(session, row, meter.since())
        self._lease.alone = None
        if self._stopped_by and not cut:
            raise self._stopped_by

    def _write(self) -> AbstractContextManager[Session]:
        return write_as_holder(self._store, self._lease)

    def _plan(self, beside: Batch | None) -> Diff:
        """Plan the bookings together; those that may meet what is written meanwhile are left out."""
        account, mapping = self._account, self._account.mapping
        planner = Planner(mapping, account.adapter.shape, account.directory)
        groups: set[str] = set()
        with self._store.read() as session:
            told = in_stories(session, self._cipher, [row for _, row in self._rows])
            refs = [ref for booking in told.values() for ref in refs_of(booking)]
            there = frozenset(Ledger(session, self._cipher, self._id).there(refs))
        states = [(delivery, row, told[row.id]) for delivery, row in self._rows]
        self._want_answers(mapping, [(row, booking) for _, row, booking in states])
        for delivery, row, booking in states:
            around = self._surroundings(mapping, delivery, booking, row.revision)
            around = replace(around, existing=there, mapping_section=delivery.mapping_section or {})
            work = _Work(delivery.id, row.revision)
            try:
                work.desired = planner.plan(booking, around)
            except CrmError as error:
                work.problem = error
            except Exception as error:
                # Pure logic on a stranger's data: what nobody foresaw is this booking's affair alone.
                work.problem = Unforeseen(f"{type(error).__name__} at {place_of(error)}")
                log.error("plan_failed", delivery_id=delivery.id, reason=work.problem.message)
            # Two bookings that may fall on one deal go one after the other.
            group = work.desired.group if work.desired else ""
            if group and group in groups:
                continue
            marks = Marks()
            if work.desired:
                marks = marks_of(work.desired, account.adapter, booking.left)
            # What one of them is about to make, the other one has to find.
            if self._marks.meets(marks):
                continue
            if beside and (beside._marks.meets(marks, itself=True) or self._is_begun(work)):
                continue
            groups.add(group)
            self._marks.add(marks)
            self._works.append(work)
        wanted = merge(work.desired for work in self._works if work.desired)
        with self._store.read() as session:
            ledger = Ledger(session, self._cipher, self._id)
            self._ledger = ledger.read(with_lead_contacts(wanted), self._now())
        others = Sharing(
            self._store, self._cipher, self._id, mapping, planner,
            account.adapter.shape.stage_field, self._now,
        )  # fmt: skip
        settled = read_crm_state(
            account.adapter,
            wanted,
            self._ledger,
            account.directory,
            more=LedgerQueries(self._claimed, self._shared, others, self._look_up),
        )
        settled.plan = replace(settled.plan, assign=mapping.assignment_rules)
        return settled

    def _want_answers(self, mapping: Mapping, states: list[tuple[BookingRow, Booking]]) -> None:
        """Have meetergo asked for answers that a mapping wants and a booking lacks.

        The booking is written without them, and once more when they have come.
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

    def _note_intents(self, settled: Diff) -> None:
        """Note what is about to be made and changed, before the CRM hears of it."""
        plan, wanted = settled.plan, settled.wanted
        intents = {
            change.ref: Intent(
                change.links_after,
                fingerprints_of(change.fields),
                {name: wanted[change.ref].version_of(name) for name in change.fields},
            )
            for change in plan.changes
            if not change.delete
        }
        erased = [change.ref for change in plan.changes if change.delete]
        new = {change.ref for change in plan.changes if change.record_id is None}
        # What was only come upon, and is not taken, stands for nothing of ours.
        left = {ref for ref in new & set(self._ledger) if self._ledger[ref].unfilled}
        with self._write() as session:
            # What is begun is kept current, whatever the booking becomes.
            deliveries.note_mapping_sections(session, self._new_places())
            ledger = Ledger(session, self._cipher, self._id)
            for ref in left:
                ledger.forget(ref)
            ledger.intend(intents, self._now())
            ledger.intend_to_erase(erased)
        self._intended = (new - set(self._ledger)) | left

    def _new_places(self) -> dict[int, dict[str, list[object]]]:
        """Delivery -> the sections that its records go by, where that is news."""
        told = {delivery.id: delivery.mapping_section for delivery, _ in self._rows}
        places = {w.delivery_id: told_places(w.desired) for w in self._works if w.desired}
        return {n: place for n, place in places.items() if place and place != told[n]}

    def _is_begun(self, work: _Work) -> bool:
        """Whether a record was begun before: it is looked for among other people's records too."""
        records = work.desired.records if work.desired else ()
        refs = [record.ref for record in records if not record.fill_only]
        with self._store.read() as session:
            known = Ledger(session, self._cipher, self._id).read(refs)
        return any(ref in known and not known[ref].live for ref in refs)

    def _claimed(self, ref: Ref, record_id: str) -> bool:
        with self._store.read() as session:
            return Ledger(session, self._cipher, self._id).claimed(ref, record_id)

    def _look_up(self, ref: Ref) -> LedgerEntry | None:
        with self._store.read() as session:
            return Ledger(session, self._cipher, self._id).read([ref]).get(ref)

    def _shared(self, ref: Ref, record_id: str) -> bool:
        with self._store.read() as session:
            others = Ledger(session, self._cipher, self._id).holders(ref, record_id)
            return take_part(session, [other.key for other in others])

    def _surroundings(
        self, mapping: Mapping, delivery: DeliveryRow, booking: Booking, revision: int
    ) -> PlanContext:
        """What a booking's plan depends on beside it, as far as the mapping asks for it."""
        now = self._now()
        people = [person.identity for person in booking.attendees if person.identity]
        rules = mapping.rules_for(
            booking.meeting_type.slug, next((h.email for h in booking.hosts if h.email), None)
        )
        turn, told, booked = delivery.round_robin_position or 0, {}, False
        if mapping.tells_of_people or (booking.form and people):
            with self._store.read() as session:
                if mapping.tells_of_people:
                    told = histories(session, self._cipher, [*people, *booking.left], now)
                if booking.form and people:
                    booked = has_booked_since(session, self._cipher, people[0], booking.start)
        if rules.owner.rule == "round_robin":
            with self._write() as session:
                turn = deliveries.rotation_position(
                    session, session.get_one(DeliveryRow, delivery.id), booking.record_key
                )
        return PlanContext(
            now,
            told,
            turn,
            booked,
            refused_owners=frozenset(self._account.refused_owners),
            recheck_of=_passed(delivery.recheck_at, now),
            left_out=frozenset(self._account.left_out.get((delivery.id, revision), ())),
        )

    def _save(self, session: Session) -> None:
        """Write the ledger and the sync log in the transaction that ends the deliveries."""
        settled, report, adapter = self._settled, self._report, self._account.adapter
        if settled is None:
            return
        ledger = Ledger(session, self._cipher, self._id)
        changed = {change.ref for change in settled.plan.changes}
        records = {}
        changes = {change.ref: change for change in settled.plan.changes}
        ids = settled.plan.known_ids() | {r: done.record_id for r, done in report.results.items()}
        for ref in settled.renewed & set(report.results):
            ledger.unlink(ref)
        for ref in settled.gone:
            ledger.lose(ref)
        for ref, item in settled.wanted.items():
            result = report.results.get(ref)
            known = None if ref in settled.renewed else self._ledger.get(ref)
            change = changes.get(ref)
            if change and change.converted:
                # The same under another id: what the ledger knows of it holds.
                known = replace(self._ledger[ref], record_id=change.record_id, lost=False)
            if result and result.outcome is WriteOutcome.CREATED:
                known = None
            if result and result.outcome is WriteOutcome.DELETED:
                ledger.forget(ref)
                continue
            untold = ref in changed or ref in settled.problems
            if result is None and (untold or known is None):
                continue
            record_id = result.record_id if result else (known.record_id if known else None)
            url = adapter.url_for(ref.object, record_id) if record_id else ""
            # What could not be made is linked to later.
            links = tuple(r for r in item.record.links if r not in report.problems or r in ids)
            made = replace(item, record=replace(item.record, links=links))
            after = known_after(made, known, record_id, url, change if result else None)
            # What was sent stands in doubt in the ledger until it is said that it went through.
            if result or known is None or after != replace(known, age=None):
                records[ref] = after
        ledger.save(records | self._unfilled(settled), self._now())
        # What was never sent is not in doubt: the next try need not look for it.
        ledger.withdraw(self._intended - report.begun - set(report.results))
        for ref, problem in report.problems.items():
            if isinstance(problem, Gone):
                ledger.lose(ref)
        self._log_changes(session)

    def _unfilled(self, settled: Diff) -> dict[Ref, LedgerEntry]:
        """Records of others that were come upon: nothing of them is known but that they are there."""
        there = dict(settled.companies)
        for ref, problem in self._report.problems.items():
            if isinstance(problem, ThereAlready):
                # It is read, and filled, next time.
                there[ref] = problem.record_id
        url_for = self._account.adapter.url_for
        return {ref: LedgerEntry(i, url=url_for(ref.object, i)) for ref, i in there.items()}

    def _log_changes(self, session: Session) -> None:
        report, entries = self._report, list[dict[str, Any]]()
        for work in self._works:
            for record in work.desired.records if work.desired else ():
                result = report.results.get(record.ref)
                if result and result.outcome is not WriteOutcome.UNCHANGED:
                    entry = {
                        "delivery_id": work.delivery_id,
                        "object": record.ref.object.value,
                        "record_id": result.record_id,
                        "outcome": result.outcome.value,
                        "at": self._now(),
                    }
                    entries.append(entry)
        if entries:
            session.execute(insert(SyncLog), entries)

    def _end(
        self,
        session: Session,
        row: ConnectionRow,
        calls: int,
    ) -> None:
        """Say of each delivery how it ended; calls are shared evenly."""
        works = {work.delivery_id: work for work in self._works}
        _locked = deliveries.lock(session, [delivery.id for delivery, _ in self._rows])
        share, rest = divmod(calls, len(self._rows))
        given_up = passed = 0
        for number, (delivery, booking) in enumerate(self._rows):
            mine = share + (number < rest)
            work = works.get(delivery.id)
            if work is None and self._settled:
                self._given_back = True
                delivery_outcomes.release(session, delivery.id, mine)
                continue
            work = work or _Work(delivery.id, booking.revision)
            problem = self._problem(work)
            if problem and isinstance(self._stopped_by, NotOurs):
                # Whose fault it is was not looked into any more.
                self._given_back = True
                delivery_outcomes.release(session, work.delivery_id, mine)
                continue
            refused = problem is None and self._refused_by is not None and self._is_open(work)
            if problem and self._looks_again(work, problem):
                self._given_back = True
                delivery_outcomes.isolate(session, work.delivery_id, mine)
                continue
            if (refused and len(self._rows) > 1) or (problem and self._may_pass_alone(work)):
                self._given_back = True
                delivery_outcomes.isolate(session, work.delivery_id, mine)
                continue
            problem = self._refused_by if refused else problem
            if problem is None and self._is_open(work):
                given_up += self._end_open(session, work, mine)
            elif problem:
                given_up += delivery_outcomes.record_failure(
                    session, work.delivery_id, work.revision, problem, mine, self._now()
                )
            else:
                passed += self._end_well(session, work, mine)
        limit = self._services.settings.notify_after_failures
        count_failures(session, row, given_up, passed, limit, self._now())
        if given_up:
            tell_failures(session, row, self._now())

    def _end_open(self, session: Session, work: _Work, calls: int) -> bool:
        """End a delivery on which there is no word; True where it was given up."""
        now, stopped_by = self._now(), self._stopped_by
        if stopped_by is None:
            lost = RetryLater("The adapter left a record without an answer.")
            return delivery_outcomes.record_failure(
                session, work.delivery_id, work.revision, lost, calls, now
            )
        if isinstance(stopped_by, RetryLater) and not isinstance(stopped_by, RateLimited):
            return delivery_outcomes.record_outage(
                session, work.delivery_id, work.revision, stopped_by, calls, now
            )
        if isinstance(stopped_by, AccountRefused) and len(self._rows) == 1:
            delivery_outcomes.record_account_refusal(
                session, work.delivery_id, stopped_by, calls, now
            )
        else:
            self._given_back = True
            delivery_outcomes.release(session, work.delivery_id, calls)
        return False

    def _end_well(self, session: Session, work: _Work, calls: int) -> bool:
        """End a delivery that went through, or of which nothing is wanted; True for the first."""
        wanted, now = work.desired, self._now()
        assert wanted is not None  # noqa: S101 - what was not planned is open
        ending = delivery_outcomes.DeliveryEnd(
            calls,
            self._account.mapping.version,
            self._notes(wanted),
            wanted.recheck_at,
            told_places(wanted),
        )
        numbers = (work.delivery_id, work.revision)
        if wanted.skipped:
            delivery_outcomes.complete_skipped(session, *numbers, wanted.skipped, ending, now)
        elif wanted.wait_until:
            delivery_outcomes.postpone(session, *numbers, wanted.wait_until, ending, now)
        else:
            delivery_outcomes.complete(session, *numbers, ending, now)
            return True
        return False

    def _is_open(self, work: _Work) -> bool:
        """Whether there is no word on some record that the booking calls for."""
        if self._settled is None or work.desired is None:
            return True
        changed = {change.ref for change in self._settled.plan.changes}
        refs = (record.ref for record in work.desired.records)
        return any(ref in changed and ref not in self._report.results for ref in refs)

    def _problem(self, work: _Work) -> CrmError | None:
        """The root of what went wrong: a record of the booking's own before one that waited."""
        if work.problem:
            return work.problem
        records, told = work.desired.records if work.desired else (), self._report.problems
        problems = [told[record.ref] for record in records if record.ref in told]
        own = [problem for problem in problems if not isinstance(problem, Blocked)]
        # A company that people belong to is nobody's own record: what waits for it waits for this.
        companies = self._settled.companies if self._settled else {}
        own += [told[ref] for ref in companies if problems and ref in told]
        if not self._is_open(work):
            # What could not be planned ends nothing before the other records are through.
            own += work.desired.problems.values() if work.desired else ()
        return next(iter(own or problems), None)

    def _may_pass_alone(self, work: _Work) -> bool:
        """Whether a record was refused for what another booking of the batch wants of it."""
        if len(self._works) == 1 or self._settled is None or work.desired is None:
            return False
        for record in work.desired.records:
            problem, merged = (
                self._report.problems.get(record.ref),
                self._settled.wanted.get(record.ref),
            )
            if merged is None or not isinstance(problem, (InvalidRecord, Conflict)):
                continue
            fields = merged.record.fields
            named = set(problem.fields) & set(fields) if isinstance(problem, InvalidRecord) else ()
            if any(record.fields.get(name) != fields.get(name) for name in named or fields):
                return True
        return False

    def _looks_again(self, work: _Work, problem: CrmError) -> bool:
        """Whether a booking is tried once more since the CRM's own lists, it seems, are old news.

        At first with the lists read anew, then without the value that is refused all the same.
        """
        if not isinstance(problem, InvalidRecord) or not problem.listed or work.desired is None:
            return False
        account, key = self._account, (work.delivery_id, work.revision)
        look, new = account.second_looks.get(key, 0), account.is_new(self._now())
        # What planning refused was sent nowhere: there is nothing to leave out.
        planned = problem in work.desired.problems.values()
        refused = [] if planned else list(self._refused_values(work.desired))
        if look == 0 and not new and (planned or refused):
            account.stale = True
            account.second_looks[key] = 1
            return True
        # What the CRM needs cannot be left out: then its own words on the value are shown.
        refused = [entry for entry in refused if not self._is_needed(*entry[:2])]
        if look > 1 or not refused:
            return False
        account.second_looks[key] = 2
        self._leave_out(key, refused)
        return True

    def _leave_out(
        self, key: tuple[int, int], refused: list[tuple[ObjectName, str, FieldValue]]
    ) -> None:
        """Do without values that are refused: of owners for everybody, of others for one booking."""
        account = self._account
        owners = account.adapter.shape.owner_fields
        for name, field_name, value in refused:
            if field_name == owners.get(name):
                account.refused_owners.add(str(value))
            else:
                account.left_out.setdefault(key, set()).add((name, field_name))

    def _is_needed(self, name: ObjectName, field_name: str) -> bool:
        """Whether a record cannot be made without a field; owners have a stand-in."""
        field = self._account.directory.field(name, field_name)
        shape = self._account.adapter.shape
        if (field_name,) in shape.needs.get(name, ()):
            return True
        is_owner = field_name == shape.owner_fields.get(name)
        return field is not None and field.required and not is_owner

    def _refused_values(
        self, desired: DesiredBooking
    ) -> Iterator[tuple[ObjectName, str, FieldValue]]:
        """The values from the account's lists that were refused: object, field, value."""
        shape, directory = self._account.adapter.shape, self._account.directory
        for record in desired.records:
            problem = self._report.problems.get(record.ref)
            if not isinstance(problem, InvalidRecord):
                continue
            listed = {shape.owner_fields.get(record.ref.object)}
            if record.ref.object is ObjectName.DEAL:
                listed |= {shape.stage_field, shape.pipeline_field}
            for field_name, value in record.fields.items():
                known = directory.field(record.ref.object, field_name)
                is_listed = field_name in listed or (known and known.kind in LISTED_KINDS)
                is_listed = is_listed or f"{record.ref.object}.{field_name}" in shape.listed
                if is_listed and field_name in problem.fields and value is not None:
                    yield record.ref.object, field_name, value

    def _notes(self, wanted: DesiredBooking) -> tuple[str, ...]:
        """What a person should know of a booking that went through."""
        told = self._settled.notes if self._settled else {}
        notes = [note for record in wanted.records for note in told.get(record.ref, ())]
        notes += [n for record in wanted.records for n in self._report.notes.get(record.ref, ())]
        return tuple(dict.fromkeys([*wanted.notes, *notes]))


def write_as_holder(store: Store, lease: Lease) -> AbstractContextManager[Session]:
    """A transaction that only who holds the lease may make. Raises LeaseLost."""

    @contextmanager
    def begin() -> Iterator[Session]:
        with store.write() as session:
            if not leases.hold_lease(session, lease.connection_id, lease.fence):
                raise LeaseLost
            yield session

    return begin()


def told_places(wanted: DesiredBooking) -> dict[str, list[object]]:
    """By which sections the records were made, as it is stored."""
    return {name: list(place) for name, place in wanted.mapping_section.items()}


def _recovered(row: ConnectionRow) -> None:
    """Forget an outage that is over, so that nobody reads of it on the dashboard."""
    row.outages = 0
    if row.pause_until is not None:
        row.pause_until = None
        if row.problem is None:
            row.last_error = None


@dataclass
class Marks:
    """Where bookings may meet: in a record that both call for, or that one makes and the other finds."""

    looks: dict[Hashable, str] = field(default_factory=dict)
    """What records are looked for by -> our key for them."""
    shows: dict[Hashable, str] = field(default_factory=dict)
    """What they can be found by, once they are there -> our key for them."""

    def add(self, other: Marks) -> None:
        """Take in those of another booking."""
        self.looks |= other.looks
        self.shows |= other.shows

    def meets(self, other: Marks, itself: bool = False) -> bool:
        """Whether one finds what the other makes; `itself`: or calls for the same record."""
        pairs = ((self.looks, other.shows), (self.shows, other.looks))
        return any(
            itself or mine[mark] != theirs[mark]
            for mine, theirs in pairs
            for mark in mine.keys() & theirs.keys()
        )


def marks_of(desired: DesiredBooking, adapter: Adapter, left: Iterable[str] = ()) -> Marks:
    """Where a booking may meet another one; also in those who left it, whom another one may make."""
    marks = Marks()
    marks.looks |= {(PEOPLE, identity.casefold()): identity for identity in left}
    for record in desired.records:
        name, own = record.ref
        looks = [own]
        for key in record.match.keys:
            by_id = key.kind is MatchKey.RECORD_ID
            looks.append(adapter.record_id_in(name, key.value) if by_id else key.value)
        if name is ObjectName.COMPANY:
            # Some CRMs know no domain and look for a company by its name.
            needed = chain.from_iterable(adapter.shape.needs.get(name, ()))
            looks += [str(record.fields.get(need) or "") for need in needed]
        phones = []
        if name in PEOPLE:
            # Whoever books with a phone number alone is found by it.
            entries = [entry for value in record.fields.values() for entry in as_list(value)]
            phones = [e for e in entries if e.startswith("+") and normalise_phone(e) == e]
        kind = PEOPLE if name in PEOPLE else name
        marks.looks |= {(kind, value.casefold()): own for value in looks if value}
        marks.shows |= {(kind, value.casefold()): own for value in [*looks, *phones] if value}
    return marks


def _passed(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment and moment <= now else None
