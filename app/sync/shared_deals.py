"""Deals that several bookings share: such a deal follows the furthest booking that is on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.crm.objects import Fingerprints
from app.crm.schema import CrmShape, Directory
from app.sync.desired import DesiredRecord


@dataclass(frozen=True)
class Shared:
    """What other bookings say of a deal."""

    stages: tuple[str, ...] = ()
    """The stages that those call for that are on, as they are written."""
    written: Fingerprints = ()
    """Fingerprints of the stages that this service wrote for them: a person's own is none of these."""


def with_others(
    record: DesiredRecord, others: Shared, shape: CrmShape, directory: Directory
) -> DesiredRecord:
    """A booking's deal with the stage that it has by all who share it.

    A booking that was cancelled says nothing of a deal of which another one is on.
    """
    own = record.fields.get(shape.stage_field)
    if own is None or not others.stages:
        return record
    wanted = [*others.stages, *([] if record.cancelled else [str(own)])]
    stage = _furthest(wanted, directory) or own
    fields = dict(record.fields)
    if record.cancelled:
        places = (shape.stage_field, shape.pipeline_field)
        fields = {name: value for name, value in fields.items() if name in places}
    return replace(record, fields={**fields, shape.stage_field: stage})


def _furthest(stages: Iterable[str], directory: Directory) -> str | None:
    """The stage that comes last in the pipeline of the first one that is known."""
    stages = list(stages)
    for pipeline in directory.pipelines:
        places = {
            name: number
            for number, stage in enumerate(pipeline.stages)
            for name in (stage.id, stage.label)
        }
        known = [stage for stage in stages if stage in places]
        if known:
            return max(known, key=lambda stage: places[stage])
    return None
