"""What is known of one batch while it is worked on: deliveries, plans, the diff, the report."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.crm.objects import Ref
from app.crm.port import Report
from app.domain.errors import Blocked, CrmError
from app.store.models import BookingRow, DeliveryRow
from app.sync.desired import DesiredBooking
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry

Rows = list[tuple[DeliveryRow, BookingRow]]
"""Deliveries with the bookings that they are of."""


@dataclass
class PlannedDelivery:
    """One delivery of a batch with what its booking calls for, or why that cannot be said."""

    delivery_id: int
    revision: int
    desired: DesiredBooking | None = None
    problem: CrmError | None = None


@dataclass
class BatchState:
    """One batch: what it is made of, and how far it is."""

    rows: Rows = field(default_factory=list)
    planned: list[PlannedDelivery] = field(default_factory=list)
    """Those of `rows` that are worked on; the others may meet these and wait."""
    known: dict[Ref, LedgerEntry] = field(default_factory=dict)
    diff: Diff | None = None
    """What is to be done; None until the CRM has said what it holds."""
    report: Report = field(default_factory=Report)
    stopped_by: Exception | None = None
    """What ended the work on all of it: the CRM does not answer, or the work is to end."""
    refused_by: CrmError | None = None
    """What the CRM said of the batch as a whole, where it did not say whose fault it is."""
    released: bool = False
    """Some of it is due again at once."""

    def is_open(self, planned: PlannedDelivery) -> bool:
        """Whether there is no word on some record that the booking calls for."""
        if self.diff is None or planned.desired is None:
            return True
        changed = {change.ref for change in self.diff.plan.changes}
        refs = (record.ref for record in planned.desired.records)
        return any(ref in changed and ref not in self.report.results for ref in refs)

    def problem_of(self, planned: PlannedDelivery) -> CrmError | None:
        """The root of what went wrong: a record of the booking's own before one that waited."""
        if planned.problem:
            return planned.problem
        desired, found = planned.desired, self.report.problems
        records = desired.records if desired else ()
        problems = [found[record.ref] for record in records if record.ref in found]
        own = [problem for problem in problems if not isinstance(problem, Blocked)]
        # A company that people belong to is nobody's own record: what waits for it waits for this.
        companies = self.diff.companies if self.diff else {}
        own += [found[ref] for ref in companies if problems and ref in found]
        if desired and not self.is_open(planned):
            # What could not be planned ends nothing before the other records are through.
            own += desired.problems.values()
        return next(iter(own or problems), None)
