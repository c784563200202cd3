"""Ends each delivery of a batch: synced, failed, to be tried again, or given back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime

from sqlalchemy.orm import Session

from app.crm.objects import FieldValue, ObjectName
from app.crm.schema import FieldKind
from app.domain.errors import (
    AccountRefused,
    Conflict,
    CrmError,
    InvalidRecord,
    RateLimited,
    RetryLater,
)
from app.domain.rate_limits import NotOurs
from app.store import deliveries, delivery_outcomes, totals
from app.store.connections import count_failures, tell_failures
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import TIMED, DeliveryState
from app.store.totals import TotalKind
from app.sync.desired import DesiredBooking
from workers.accounts import OpenAccount
from workers.batch_state import BatchState, PlannedDelivery
from workers.refused import complete

LISTED_KINDS = (FieldKind.CHOICE, FieldKind.CHOICES, FieldKind.REFERENCE)
"""Fields whose values are taken from the account's lists."""


ENDED = (*TIMED, DeliveryState.SYNCED, DeliveryState.SKIPPED, DeliveryState.FAILED)
"""The states in which an attempt may end; in another one, the delivery is tried again at once."""


class DeliveryEnds:
    """Ends the deliveries of one batch, in the transaction that writes its ledger."""

    def __init__(
        self,
        state: BatchState,
        account: OpenAccount,
        tell_after: int,
        now: Callable[[], datetime],
    ) -> None:
        """`tell_after`: the number of failures in a row after which people are notified."""
        self._state, self._account = state, account
        self._tell_after, self._now = tell_after, now

    def end(self, session: Session, row: ConnectionRow, calls: int) -> totals.Counts:
        """End each delivery; the batch's calls are counted for its deliveries in equal shares.

        Return how many attempts ended in what, for the totals of the connection.
        """
        works = {work.delivery_id: work for work in self._state.planned}
        locked = deliveries.lock(session, [delivery.id for delivery, _ in self._state.rows])
        share, rest = divmod(calls, len(self._state.rows))
        given_up = passed = 0
        for number, (delivery, booking) in enumerate(self._state.rows):
            mine = share + (number < rest)
            work = works.get(delivery.id)
            if work is None and self._state.diff:
                self._state.released = True
                delivery_outcomes.release(session, delivery.id, mine)
                continue
            work = work or PlannedDelivery(delivery.id, booking.revision)
            problem = self._state.problem_of(work)
            if problem and isinstance(self._state.stopped_by, NotOurs):
                # The work stopped before it was known which booking is at fault.
                self._state.released = True
                delivery_outcomes.release(session, work.delivery_id, mine)
                continue
            refused = (
                problem is None and self._state.refused_by is not None and self._state.is_open(work)
            )
            if problem and self._looks_again(work, problem):
                self._state.released = True
                delivery_outcomes.isolate(session, work.delivery_id, mine)
                continue
            if (refused and len(self._state.rows) > 1) or (problem and self._may_pass_alone(work)):
                self._state.released = True
                delivery_outcomes.isolate(session, work.delivery_id, mine)
                continue
            problem = self._state.refused_by if refused else problem
            if problem is None and self._state.is_open(work):
                given_up += self._end_open(session, work, mine)
            elif problem:
                problem = complete(problem, work, self._state, self._account.directory)
                given_up += delivery_outcomes.record_failure(
                    session, work.delivery_id, work.revision, problem, mine, self._now()
                )
            else:
                passed += self._end_well(session, work, mine)
        limit = self._tell_after
        count_failures(session, row, given_up, passed, limit, self._now())
        if given_up:
            tell_failures(session, row, self._now())
        return self._counted(locked)

    def _counted(self, ended: list[DeliveryRow]) -> totals.Counts:
        """Count the attempts that ended, and how long live bookings took to be in the CRM."""
        found, now = defaultdict[tuple[TotalKind, str], float](float), self._now()
        before = {delivery.id: delivery for delivery, _ in self._state.rows}
        for row in ended:
            if row.state not in ENDED:
                continue
            found[TotalKind.ATTEMPTS, row.state] += 1
            claimed = before[row.id]
            if row.state == DeliveryState.SYNCED and claimed.due_since and not claimed.backlog:
                seconds = max(0.0, (now - claimed.due_since).total_seconds())
                found[TotalKind.SYNC_TIMES, totals.bound_of(seconds)] += 1
                found[TotalKind.SYNC_SECONDS, ""] += seconds
        return found

    def _end_open(self, session: Session, work: PlannedDelivery, calls: int) -> bool:
        """End a delivery that got no answer; True if it was given up."""
        now, stopped_by = self._now(), self._state.stopped_by
        if stopped_by is None:
            lost = RetryLater("The adapter left a record without an answer.")
            return delivery_outcomes.record_failure(
                session, work.delivery_id, work.revision, lost, calls, now
            )
        if isinstance(stopped_by, RetryLater) and not isinstance(stopped_by, RateLimited):
            return delivery_outcomes.record_outage(
                session, work.delivery_id, work.revision, stopped_by, calls, now
            )
        if isinstance(stopped_by, AccountRefused) and len(self._state.rows) == 1:
            delivery_outcomes.record_account_refusal(
                session, work.delivery_id, stopped_by, calls, now
            )
        else:
            self._state.released = True
            delivery_outcomes.release(session, work.delivery_id, calls)
        return False

    def _end_well(self, session: Session, work: PlannedDelivery, calls: int) -> bool:
        """End a delivery that went through (True), or that the mapping skips or delays (False)."""
        wanted, now = work.desired, self._now()
        assert wanted is not None  # nosec B101  # noqa: S101 - what was not planned is open
        ending = delivery_outcomes.DeliveryEnd(
            calls,
            self._account.mapping.version,
            self._notes(wanted),
            wanted.recheck_at,
            mapping_sections(wanted),
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

    def _may_pass_alone(self, work: PlannedDelivery) -> bool:
        """Whether a record was refused for what another booking of the batch wants of it."""
        if len(self._state.planned) == 1 or self._state.diff is None or work.desired is None:
            return False
        for record in work.desired.records:
            problem, merged = (
                self._state.report.problems.get(record.ref),
                self._state.diff.wanted.get(record.ref),
            )
            if merged is None or not isinstance(problem, (InvalidRecord, Conflict)):
                continue
            fields = merged.record.fields
            named = set(problem.fields) & set(fields) if isinstance(problem, InvalidRecord) else ()
            if any(record.fields.get(name) != fields.get(name) for name in named or fields):
                return True
        return False

    def _looks_again(self, work: PlannedDelivery, problem: CrmError) -> bool:
        """Whether to try a booking again because the CRM's own lists seem to be out of date.

        The first time the lists are read anew. The second time the refused value is left out.
        """
        if not isinstance(problem, InvalidRecord) or not problem.listed:
            return False
        account, key = self._account, (work.delivery_id, work.revision)
        look, new = account.second_looks.get(key, 0), account.is_new(self._now())
        # A value that planning refused was never sent: there is nothing to leave out.
        desired = work.desired
        planned = desired is None or problem in desired.problems.values()
        refused = [] if planned or desired is None else list(self._refused_values(desired))
        if look == 0 and not new and (planned or refused):
            account.stale = True
            account.second_looks[key] = 1
            return True
        # A field that the CRM needs cannot be left out: the CRM's own words on the value are shown.
        refused = [entry for entry in refused if not self._is_needed(*entry[:2])]
        if look > 1 or not refused:
            if planned:
                # Whoever syncs it again has perhaps mended the list meanwhile.
                account.second_looks.pop(key, None)
            return False
        account.second_looks[key] = 2
        self._leave_out(key, refused)
        return True

    def _leave_out(
        self, key: tuple[int, int], refused: list[tuple[ObjectName, str, FieldValue]]
    ) -> None:
        """Leave refused values out: an owner for every booking, another value for this one only."""
        account = self._account
        owners = account.adapter.shape.owner_fields
        for name, field_name, value in refused:
            if field_name == owners.get(name):
                account.refused_owners.add(str(value))
            else:
                account.left_out.setdefault(key, set()).add((name, field_name))

    def _is_needed(self, name: ObjectName, field_name: str) -> bool:
        """Whether a record cannot be made without this field; an owner field has a fallback."""
        field = self._account.directory.field(name, field_name)
        shape = self._account.adapter.shape
        if (field_name,) in shape.needs.get(name, ()):
            return True
        is_owner = field_name == shape.owner_fields.get(name)
        return field is not None and field.required and not is_owner

    def _refused_values(
        self, desired: DesiredBooking
    ) -> Iterator[tuple[ObjectName, str, FieldValue]]:
        """The values from the account's lists that the CRM refused: object, field, value.

        Another booking of the batch may have given a shared person or company another value. That
        value was sent, so this booking's own value was not refused.
        """
        shape, directory = self._account.adapter.shape, self._account.directory
        merged = self._state.diff.wanted if self._state.diff else {}
        for record in desired.records:
            problem = self._state.report.problems.get(record.ref)
            if not isinstance(problem, InvalidRecord) or record.ref not in merged:
                continue
            sent = merged[record.ref].record.fields
            listed = {shape.owner_fields.get(record.ref.object)}
            if record.ref.object is ObjectName.DEAL:
                listed |= {shape.stage_field, shape.pipeline_field}
            for field_name, value in record.fields.items():
                known = directory.field(record.ref.object, field_name)
                is_listed = field_name in listed or (known and known.kind in LISTED_KINDS)
                is_listed = is_listed or f"{record.ref.object}.{field_name}" in shape.listed
                is_refused = field_name in problem.fields and sent.get(field_name) == value
                if is_listed and is_refused and value is not None:
                    yield record.ref.object, field_name, value

    def _notes(self, wanted: DesiredBooking) -> tuple[str, ...]:
        """What a person should know about a booking that went through."""
        told = self._state.diff.notes if self._state.diff else {}
        notes = [note for record in wanted.records for note in told.get(record.ref, ())]
        notes += [
            n for record in wanted.records for n in self._state.report.notes.get(record.ref, ())
        ]
        return tuple(dict.fromkeys([*wanted.notes, *notes]))


def mapping_sections(wanted: DesiredBooking) -> dict[str, list[object]]:
    """The mapping sections that the records were made by, in the form that is stored."""
    return {name: list(place) for name, place in wanted.mapping_section.items()}
