"""Makes a booking's deal, case or meetings by one section of its mapping, and identifies sections."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from app.crm.objects import ObjectName, Ref
from app.mapping.deals import case_record, deal_record
from app.mapping.meetings import meeting_records
from app.mapping.owners import owner_of
from app.mapping.people import main_attendee
from app.mapping.plan_context import NOBODY, PlanInputs, PlanReport
from app.mapping.records import attempt
from app.mapping.schema import DealRules, MeetingRules, RecordRules, Rules
from app.sync.desired import DesiredRecord


def under_rules(inputs: PlanInputs, rules: Rules, report: PlanReport) -> PlanInputs:
    """Return the inputs under other rules, with the owner and the main attendee of these rules."""
    people = inputs.booking.attendees
    inputs = replace(inputs, rules=rules, main_attendee=people[0] if people else NOBODY)
    return replace(inputs, owner_id=owner_of(inputs, report), main_attendee=main_attendee(inputs))


def make_by_section(
    inputs: PlanInputs,
    report: PlanReport,
    section: RecordRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
    current_key: str = "",
) -> list[DesiredRecord]:
    """Return the booking's deal, case or meetings by the section.

    `current_key`: our key for the existing meeting that is still to come.
    """
    if isinstance(section, MeetingRules):
        return meeting_records(inputs, report, section, links, overflow, current_key)
    make: Callable[[], DesiredRecord]
    if isinstance(section, DealRules):
        name = ObjectName.DEAL
        make = partial(deal_record, inputs, report, section, links, overflow)
    else:
        name = ObjectName.CASE
        make = partial(case_record, inputs, report, section, links, overflow)
    return attempt(inputs, report, Ref(name, inputs.booking.record_key), make)


def makes_records(section: RecordRules) -> bool:
    """Whether a section creates records: a deal with `per: none` does not."""
    return not isinstance(section, DealRules) or section.per != "none"


def mark_of(section: RecordRules) -> str:
    """Return a mark that identifies a section, even after its fields change or others precede it."""
    marked = section.model_dump_json(include={"when", "per", "pipeline"})
    return hashlib.sha256(marked.encode()).hexdigest()[:16]


def section_by_mark(sections: Sequence[RecordRules], mark: str) -> RecordRules | None:
    """Return the section with that mark; a single section always counts, unless it creates nothing."""
    if len(sections) == 1:
        return sections[0] if makes_records(sections[0]) else None
    return next((section for section in sections if mark_of(section) == mark), None)


def only_section(
    every: Iterable[Rules], name: ObjectName
) -> tuple[Rules | None, RecordRules | None]:
    """Return the only section of a file for an object, with its first rules; None for several."""
    found: list[tuple[Rules, RecordRules]] = []
    for rules in every:
        for section in rules.sections(name):
            if makes_records(section) and all(section != other for _, other in found):
                found.append((rules, section))
    return found[0] if len(found) == 1 else (None, None)
