"""Values of a CRM in the words that people see there: labels for options, stages and users. Pure."""

from __future__ import annotations

from app.crm.objects import FieldValue, ObjectName
from app.crm.schema import CrmShape, Directory, FieldKind
from app.sync.values import tidy


def in_words(
    name: ObjectName, field: str, value: FieldValue, shape: CrmShape, directory: Directory
) -> FieldValue:
    """Return a field's value in the words that people see; the value itself if it has no label."""
    if value is None or value in ("", []):
        return value
    labels = _labels(name, field, shape, directory)
    known = directory.field(name, field)
    if labels and (isinstance(value, list) or (known and known.kind is FieldKind.CHOICES)):
        entries = value if isinstance(value, list) else str(value).split(";")
        return [labels.get(entry.strip(), entry.strip()) for entry in entries]
    return value if isinstance(value, list) else labels.get(str(value), tidy(value))


def _labels(name: ObjectName, field: str, shape: CrmShape, directory: Directory) -> dict[str, str]:
    """Return the written value -> the label that people see."""
    if name is ObjectName.DEAL and field == shape.stage_field:
        return {s.id: s.label for pipeline in directory.pipelines for s in pipeline.stages}
    if name is ObjectName.DEAL and field == shape.pipeline_field:
        return {pipeline.id: pipeline.label for pipeline in directory.pipelines}
    if field == shape.owner_fields.get(name):
        return {number: email for email, number in directory.owners.items()}
    known = directory.field(name, field)
    if known is None or known.kind not in (FieldKind.CHOICE, FieldKind.CHOICES, FieldKind.USER):
        return {}
    return {option.value: option.label or option.value for option in known.options}
