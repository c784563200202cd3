"""Keeps a deal, case or meeting current after the mapping has stopped making one of its booking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.crm.objects import ObjectName, Ref
from app.domain.errors import InvalidRecord
from app.mapping.departed import departed_refs
from app.mapping.field_values import UnfitValue
from app.mapping.mapping import Mapping
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.records import mark_not_ours
from app.mapping.schema import RecordRules, Rules
from app.mapping.sections import make_by_section, only_section, section_by_mark, under_rules
from app.sync.desired import DesiredRecord

ONLY_UPDATES: dict[str, Any] = {
    "create": False,
    "match": (),
    "record_id": None,
    "per": "booking",
    "on_reschedule": "move",
}
"""Values of a section's keys that create nothing and search for nothing."""


def keep_current(
    inputs: PlanInputs,
    report: PlanReport,
    name: ObjectName,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
) -> list[DesiredRecord]:
    """Update the booking's record of this object by the section that created it.

    If the file no longer has that section, or a value does not fit, return no record and a note:
    the record in the CRM is then left unchanged.
    """
    remembered = inputs.context.mapping_section.get(name)
    rules, section = _made_by(inputs.mapping, name, remembered)
    if rules is None or section is None:
        words = (
            f"The mapping lacks the section that created the {name}: the {name} is left unchanged."
        )
        report.notes.append(words)
        return []
    tried = PlanReport()
    key = remembered[2] if remembered else ""
    records, problem = _updated(
        under_rules(inputs, rules, tried), tried, section, links, overflow, key
    )
    if problem:
        report.notes.append(f"The {name} is left unchanged: {problem.message}")
        return []
    report.notes += tried.notes
    if _may_find_others(section):
        records = [mark_not_ours(record, inputs.directory) for record in records]
    dropped = departed_refs(inputs.booking)
    return [replace(record, links_to_drop=dropped) for record in records]


def _made_by(
    mapping: Mapping, name: ObjectName, remembered: Sequence[Any] | None
) -> tuple[Rules | None, RecordRules | None]:
    """Return the section that created a record, and its rules; None for parts that the file lost."""
    if not remembered:
        return only_section(mapping.every(), name)
    rules = mapping.rules_at(remembered[0])
    return rules, section_by_mark(rules.sections(name), remembered[1]) if rules else None


def _updated(
    inputs: PlanInputs,
    report: PlanReport,
    section: RecordRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
    current_key: str,
) -> tuple[list[DesiredRecord], InvalidRecord | None]:
    """Return the records as the section makes them now, or the reason why it cannot."""
    keys = type(section).model_fields
    update = {key: value for key, value in ONLY_UPDATES.items() if key in keys}
    section = section.model_copy(update=update)
    try:
        records = make_by_section(inputs, report, section, links, overflow, current_key)
    except UnfitValue as error:
        return [], error
    return records, next(iter(report.problems.values()), None)


def _may_find_others(section: RecordRules) -> bool:
    """Whether a section searches for records, so that its record may belong to others."""
    asks = section.record_id is not None or bool(getattr(section, "match", ()))
    return asks or getattr(section, "per", "") == "open_deal_of_contact"
