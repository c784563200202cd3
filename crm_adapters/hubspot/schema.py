"""What a HubSpot portal tells of itself: properties, owners, pipelines."""

from __future__ import annotations

from collections.abc import Iterable

from app.domain.records import Choice, CrmField, Kind, Pipeline, Stage
from app.outbound.reply import Json, a_text, an_id, rows, some_object, some_objects, some_text

KINDS = {
    "string": Kind.TEXT, "number": Kind.NUMBER, "date": Kind.DATE, "datetime": Kind.MOMENT,
    "bool": Kind.FLAG, "phone_number": Kind.TEXT,
}  # fmt: skip


def field_of(item: Json) -> CrmField:
    """A property. https://developers.hubspot.com/docs/api-reference/crm-properties-v3/guide"""
    kind = KINDS.get(some_text(item, "type"), Kind.OTHER)
    options = some_objects(item, "options")
    if item.get("type") == "enumeration":
        several = some_text(item, "fieldType") == "checkbox"
        kind = Kind.CHOICES if several else Kind.CHOICE
    # Owners come as an enumeration without options of its own, pipelines and stages likewise.
    if kind is Kind.CHOICE and not options:
        kind = Kind.OTHER
    name = a_text(item, "name")
    return CrmField(
        name,
        some_text(item, "label") or name,
        kind,
        unique=item.get("hasUniqueValue") is True,
        writable=some_object(item, "modificationMetadata").get("readOnlyValue") is not True,
        options=tuple(Choice(a_text(o, "value"), some_text(o, "label")) for o in options),
        custom=item.get("hubspotDefined") is not True,
    )


def owners_of(rows_: Iterable[Json]) -> dict[str, str]:
    """E-mail in lower case -> id of those who can own; of two with one address the older one."""
    owners: dict[str, str] = {}
    for owner in rows_:
        email = some_text(owner, "email").strip().lower()
        if email and owner.get("archived") is not True:
            owners.setdefault(email, an_id(owner))
    return owners


def pipelines_of(rows_: Iterable[Json]) -> tuple[Pipeline, ...]:
    """Pipelines with their stages, in order."""
    live = (item for item in rows_ if item.get("archived") is not True)
    return tuple(
        Pipeline(
            an_id(item),
            some_text(item, "label"),
            tuple(_stage(stage) for stage in _in_order(rows(item, "stages"))),
        )
        for item in _in_order(live)
    )


def _in_order(items: Iterable[Json]) -> list[Json]:
    def place(item: Json) -> float:
        order = item.get("displayOrder")
        return float(order) if isinstance(order, (int, float)) else 0.0

    return sorted(items, key=place)


def _stage(item: Json) -> Stage:
    closed = some_text(some_object(item, "metadata"), "isClosed").lower() == "true"
    closed = closed or some_object(item, "metadata").get("isClosed") is True
    return Stage(an_id(item), some_text(item, "label"), closed)
