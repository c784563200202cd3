"""What is known of a batch during the work: deliveries, plans, the diff, the report."""

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
"""Deliveries, each with its booking."""


@dataclass
class PlannedDelivery:
    """One delivery of a batch with what its booking calls for, or why that is unknown."""

    delivery_id: int
    revision: int
    desired: DesiredBooking | None = None
    problem: CrmError | None = None


@dataclass
class BatchState:
    """One batch: its deliveries, and how far the work on them is."""

    rows: Rows = field(default_factory=list)
    planned: list[PlannedDelivery] = field(default_factory=list)
    """The `rows` that are worked on; the other rows may meet these and wait."""
    known: dict[Ref, LedgerEntry] = field(default_factory=dict)
    diff: Diff | None = None
    """The changes to make; None until the CRM has said what it holds."""
    report: Report = field(default_factory=Report)
    stopped_by: Exception | None = None
    """What ended the work on the whole batch: the CRM does not answer, or the process ends."""
    refused_by: CrmError | None = None
    """The CRM's refusal of the batch as a whole, if it did not say which booking is at fault."""
    released: bool = False
    """Whether some of the batch is due again at once."""

    def is_open(self, planned: PlannedDelivery) -> bool:
        """Whether some record of the booking has no result yet."""
        if self.diff is None or planned.desired is None:
            return True
        changed = {change.ref for change in self.diff.plan.changes}
        refs = (record.ref for record in planned.desired.records)
        return any(ref in changed and ref not in self.report.results for ref in refs)

    def problem_of(self, planned: PlannedDelivery) -> CrmError | None:
        """Return the root problem: one of the booking's own records before one that only waited."""
        if planned.problem:
            return planned.problem
        desired, found = planned.desired, self.report.problems
        records = desired.records if desired else ()
        problems = [found[record.ref] for record in records if record.ref in found]
        own = [problem for problem in problems if not isinstance(problem, Blocked)]
        # The company of a found person is no booking's own record, but the booking may wait for it.
        companies = self.diff.companies if self.diff else {}
        own += [found[ref] for ref in companies if problems and ref in found]
        if desired and not self.is_open(planned):
            # A planning problem ends the delivery only after its other records are through.
            own += desired.problems.values()
        return next(iter(own or problems), None)
