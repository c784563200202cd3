"""Builds one desired record; if one record cannot be planned, the others still can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.crm.lookup import LookupKey, Match, MatchKey
from app.crm.objects import PEOPLE, Ref
from app.crm.schema import Directory
from app.domain.errors import InvalidRecord
from app.mapping.field_values import LeftOut, RecordFields, UnfitValue, evaluate_fields
from app.mapping.match_keys import match_keys
from app.mapping.owners import set_owner
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.schema import RecordRules
from app.sync.desired import DesiredRecord, WriteRule
from app.sync.merge import placeholder


def attempt(
    inputs: PlanInputs, report: PlanReport, ref: Ref, make: Callable[[], DesiredRecord]
) -> list[DesiredRecord]:
    """Make a record and return it in a list; an empty list if it cannot be planned.

    If the record exists already, it is left unchanged, and others are still linked to it. Raises
    UnfitValue, which makes the booking fail.
    """
    try:
        return [make()]
    except LeftOut as error:
        report.notes.append(str(error))
        return []
    except UnfitValue:
        raise
    except InvalidRecord as error:
        report.problems[ref] = error
        return [placeholder(ref)] if ref in inputs.context.existing else []


def assemble(
    inputs: PlanInputs,
    ref: Ref,
    fields: RecordFields,
    links: tuple[Ref, ...],
    section: RecordRules,
    keys: tuple[LookupKey, ...],
    asked: bool,
) -> DesiredRecord:
    """Build a record from its fields, links and keys; `asked`: the mapping sets the lookup keys.

    Raises InvalidRecord if the CRM has no such object.
    """
    if ref.object not in inputs.shape.objects:
        words = f"{inputs.mapping.crm} has no {ref.object} here"
        raise InvalidRecord(words, {ref.object.value: words})
    asked = asked or section.record_id is not None
    return DesiredRecord(
        ref,
        fields.values,
        fields.rules,
        links,
        Match(keys, section.several, section.create, asked, section.when_deleted),
        fields.atomic,
        fields.person_summary,
        person=ref.key if ref.object in PEOPLE else "",
    )


def record_of_booking(
    inputs: PlanInputs,
    report: PlanReport,
    ref: Ref,
    section: RecordRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
) -> DesiredRecord:
    """Return a deal, case or meeting for the booking, with our key if the CRM has a field for it."""
    fields = evaluate_fields(inputs, report, ref.object, section.fields, None, overflow)
    set_owner(inputs, fields, ref.object)
    marker = inputs.directory.booking_fields.get(ref.object)
    if marker:
        fields.set(marker, ref.key)
    keys = match_keys(inputs, section, getattr(section, "match", ()))
    own = LookupKey(MatchKey.BOOKING, ref.key)
    return assemble(inputs, ref, fields, links, section, (*keys, own), bool(keys))


def mark_not_ours(record: DesiredRecord, directory: Directory) -> DesiredRecord:
    """Mark a deal or case that may belong to others: it gets our key only on create."""
    marker = directory.booking_fields.get(record.ref.object)
    rules = {**record.rules, **({marker: WriteRule.ON_CREATE} if marker else {})}
    return replace(record, not_ours=True, rules=rules)
