"""Completes the reason of a refusal with what the worker knows: record, value, field, options."""

from __future__ import annotations

from dataclasses import replace

from app.crm.objects import FieldValue, ObjectName, Ref
from app.crm.schema import CrmField, Directory
from app.domain.errors import CrmError
from app.domain.refusals import Refusal, RefusalReason
from workers.batch_state import BatchState, PlannedDelivery

_OF_A_VALUE = (
    RefusalReason.OPTION, RefusalReason.TYPE, RefusalReason.LENGTH, RefusalReason.STAGE,
    RefusalReason.TAKEN, RefusalReason.OWNER,
)  # fmt: skip


def complete(
    problem: CrmError, work: PlannedDelivery, state: BatchState, directory: Directory
) -> CrmError:
    """Return a booking's problem with all that is known of the refused value."""
    ref = _record_of(problem, work, state)
    if problem.refusal is None or ref is None:
        return problem
    refusal = replace(problem.refusal, object=ref.object.value)
    field = _field(directory, ref.object, refusal.field)
    if field is not None:
        refusal = _described(refusal, field)
    if refusal.reason in _OF_A_VALUE and not refusal.value:
        refusal = replace(refusal, value=_text(_sent(refusal.field, ref, work, state)))
    return problem.because(refusal)


def _record_of(problem: CrmError, work: PlannedDelivery, state: BatchState) -> Ref | None:
    """The record that the CRM refused."""
    records = work.desired.records if work.desired else ()
    companies = state.diff.companies if state.diff else {}
    refs = [*(record.ref for record in records), *companies]
    return next((ref for ref in refs if state.report.problems.get(ref) is problem), None)


def _field(directory: Directory, name: ObjectName, field: str) -> CrmField | None:
    """What is known of a field, by the name in mapping files or by the CRM's own key."""
    found = directory.field(name, field)
    if found or not field:
        return found
    each = directory.schema.get(name, {}).values()
    return next((known for known in each if known.key == field), None)


def _described(refusal: Refusal, field: CrmField) -> Refusal:
    # People write the label or the value into a mapping file: the label is what the CRM shows.
    options = tuple(option.label or option.value for option in field.options)
    wants = refusal.reason is RefusalReason.OPTION and options
    return replace(
        refusal,
        field=field.name,
        label=field.label,
        options=options if wants else refusal.options,
        limit=refusal.limit or field.length,
    )


def _sent(field: str, ref: Ref, work: PlannedDelivery, state: BatchState) -> FieldValue:
    """The value that was sent: another booking of the batch may have given a shared record its own."""
    merged = state.diff.wanted.get(ref) if state.diff else None
    if merged is not None and field in merged.record.fields:
        return merged.record.fields[field]
    records = work.desired.records if work.desired else ()
    return next((record.fields.get(field) for record in records if record.ref == ref), None)


def _text(value: FieldValue) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
