"""Plans a booking's deal or case; finds the pipelines and stages that a mapping names."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from app.crm.lookup import LookupKey, MatchKey
from app.crm.objects import FieldValue, ObjectName, Ref
from app.crm.schema import Pipeline, Stage
from app.domain.booking import Booking
from app.domain.errors import InvalidRecord
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.records import mark_not_ours, record_of_booking
from app.mapping.schema import FIRST, KEEP, DealRules, RecordRules, StageRules
from app.sync.desired import DesiredRecord, WriteRule


def deal_record(
    inputs: PlanInputs,
    report: PlanReport,
    section: DealRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
) -> DesiredRecord:
    """Return the booking's deal in its pipeline and stage, or an inbox lead in its place."""
    shape, booking = inputs.shape, inputs.booking
    ref = Ref(ObjectName.DEAL, booking.record_key)
    record = record_of_booking(inputs, report, ref, section, links, overflow)
    pipeline = find_pipeline(inputs.directory.pipelines, section.pipeline)
    record = _in_stage(inputs, record, section, pipeline)
    if section.kind == "lead" and not shape.inbox_ids:
        words = f"{inputs.mapping.crm} cannot use leads in place of deals here"
        raise InvalidRecord(words, {"as": words})
    record = replace(record, cancelled=booking.cancelled, inbox=section.kind == "lead")
    identity = inputs.main_attendee.identity
    if section.per == "open_deal_of_contact" and identity:
        scope = pipeline.id if shape.pipeline_field else ""
        key = LookupKey(MatchKey.OPEN_DEAL, identity, scope)
        keys = (*record.match.keys[:-1], key, record.match.keys[-1])
        record = replace(record, match=replace(record.match, keys=keys, asked=True))
    return _not_ours_if_asked(inputs, record)


def case_record(
    inputs: PlanInputs,
    report: PlanReport,
    section: RecordRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
) -> DesiredRecord:
    """Return the booking's case."""
    ref = Ref(ObjectName.CASE, inputs.booking.record_key)
    record = record_of_booking(inputs, report, ref, section, links, overflow)
    return _not_ours_if_asked(inputs, record)


def _not_ours_if_asked(inputs: PlanInputs, record: DesiredRecord) -> DesiredRecord:
    """A deal or case that a lookup finds may belong to others: it is not marked as ours."""
    return mark_not_ours(record, inputs.directory) if record.match.asked else record


def _in_stage(
    inputs: PlanInputs, record: DesiredRecord, section: DealRules, pipeline: Pipeline
) -> DesiredRecord:
    """Return the deal with pipeline and stage; only `backwards` in the file lets them move back."""
    shape = inputs.shape
    fields: dict[str, FieldValue] = dict(record.fields)
    rules = dict(record.rules)
    stage = _stage(inputs.booking, section.stage, pipeline)
    backwards = WriteRule.NEVER_BLANK if section.backwards else None
    if shape.pipeline_field:
        fields[shape.pipeline_field] = pipeline.id
        rules[shape.pipeline_field] = backwards or WriteRule.ON_CREATE
    fields[shape.stage_field] = stage.label if shape.stage_by_label else stage.id
    rules[shape.stage_field] = backwards or WriteRule.FORWARD
    return replace(record, fields=fields, rules=rules)


def _stage(booking: Booking, wanted: StageRules, pipeline: Pipeline) -> Stage:
    """Return the stage for the booking's state; `keep` means the stage of a new booking."""
    name = KEEP
    if booking.cancelled:
        name = wanted.cancelled
    elif booking.rescheduled:
        name = wanted.rescheduled
    return find_stage(pipeline, wanted.created if name == KEEP else name)


def find_pipeline(pipelines: tuple[Pipeline, ...], wanted: str) -> Pipeline:
    """Return the pipeline with that label or id, or the first. Raises InvalidRecord with all labels."""
    usable = tuple(pipeline for pipeline in pipelines if pipeline.stages)
    if not usable:
        message = "the CRM account has no pipeline with a stage"
        raise InvalidRecord(message, {"pipeline": message}, listed=True)
    return usable[0] if wanted == FIRST else _named(usable, wanted, "pipeline", "the account")


def find_stage(pipeline: Pipeline, wanted: str) -> Stage:
    """Return the stage with that label or id, or the first. Raises InvalidRecord with all labels."""
    stages = pipeline.stages
    return stages[0] if wanted == FIRST else _named(stages, wanted, "stage", pipeline.label)


Named = TypeVar("Named", Pipeline, Stage)


def _named(items: tuple[Named, ...], wanted: str, kind: str, where: str) -> Named:
    plain_name = wanted.strip().casefold()
    found = [item for item in items if item.id.casefold() == plain_name]
    found = found or [item for item in items if item.label.casefold() == plain_name]
    if len(found) > 1:
        ids = ", ".join(item.id for item in found)
        message = (
            f"{len(found)} {kind}s are called {wanted!r} in {where}; name one by its id: {ids}"
        )
        raise InvalidRecord(message, {kind: message}, listed=True)
    if found:
        return found[0]
    there = ", ".join(item.label for item in items)
    message = f"there is no {kind} {wanted!r} in {where}; there are: {there}"
    raise InvalidRecord(message, {kind: message}, listed=True)
