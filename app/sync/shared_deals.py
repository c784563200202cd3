"""Deals that several bookings share: such a deal follows the furthest active booking. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.crm.objects import Fingerprints
from app.crm.schema import CrmShape, Directory
from app.sync.desired import DesiredRecord


@dataclass(frozen=True)
class Shared:
    """What other bookings call for in a deal."""

    stages: tuple[str, ...] = ()
    """The stages that the active ones of them call for, as they are written."""
    written: Fingerprints = ()
    """Fingerprints of the stages that this service wrote for them, so none that a person chose."""


def with_others(
    record: DesiredRecord, others: Shared, shape: CrmShape, directory: Directory
) -> DesiredRecord:
    """Return a booking's deal with the stage that results from all bookings that share it.

    A cancelled booking contributes nothing to a deal that another active booking shares.
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
    """Return the stage that comes last in the first pipeline that has any of these stages."""
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
