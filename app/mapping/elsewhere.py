"""Fields of the CRM that keys of the file set: an entry for them under `fields` is a conflict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.crm.objects import ObjectName
from app.crm.schema import CrmShape
from app.mapping.value_source import FieldSpec


def set_elsewhere(name: ObjectName, field: str, spec: FieldSpec, shape: CrmShape) -> str | None:
    """Return why a field does not belong under `fields`, and the key for it; None if it is allowed.

    Pipeline and stage would be overwritten. An owner replaces the key `owner` and has to be an id
    of the CRM: a queue of Salesforce has no address and can be given in no other way.
    """
    if name is ObjectName.DEAL and field in (shape.stage_field, shape.pipeline_field):
        key = "stage" if field == shape.stage_field else "pipeline"
        example = "{created: …, cancelled: …}" if key == "stage" else "…"
        return f"{field} is overwritten by the key {key}: write deal: {{{key}: {example}}}"
    if field == shape.owner_fields.get(name) and not _ids(spec):
        return (
            f"{field} takes the CRM's ids, but this value may be another text; the key owner finds the "
            "user by e-mail: owner: {rule: host_email}, or {rule: fixed, user: …}"
        )
    return None


def _ids(spec: FieldSpec) -> bool:
    """Whether the value can only be one of the ids that the file itself contains."""
    last = spec.transforms[-1] if spec.transforms else None
    if spec.value is not None and not spec.transforms:
        values: list[Any] = [spec.value]
    else:
        values = list(last["map"].values()) if isinstance(last, Mapping) and "map" in last else []
    return bool(values) and not any("@" in str(value) for value in values)
