"""Reads what a HubSpot portal reports of itself: properties, owners, pipelines."""

from __future__ import annotations

from collections.abc import Iterable

from app.crm.schema import CrmField, FieldKind, FieldOption, Pipeline, Stage
from app.outbound.reply import Json, a_text, an_id, rows, some_object, some_objects, some_text

KINDS = {
    # https://developers.hubspot.com/docs/api-reference/crm-properties-v3/guide; other types (json,
    # object_coordinates) are for HubSpot's own use.
    "string": FieldKind.TEXT, "number": FieldKind.NUMBER, "date": FieldKind.DATE,
    "datetime": FieldKind.MOMENT,
    "bool": FieldKind.FLAG, "phone_number": FieldKind.TEXT, "enumeration": FieldKind.CHOICE,
}  # fmt: skip
LONGEST = 65_536
"""Most characters of a text:
https://developers.hubspot.com/docs/api-reference/crm-properties-v3/guide"""
LISTED = frozenset({"pipeline", "dealstage"})
"""Lists whose options are elsewhere; `referencedObjectType` marks an owner."""
OWNERS = "hubspot_owner_id"


def field_of(item: Json, owners: tuple[FieldOption, ...] = ()) -> CrmField:
    """Return a property; `owners` are the allowed values of a property that holds a user."""
    name = a_text(item, "name")
    kind = KINDS.get(some_text(item, "type"), FieldKind.OTHER)
    options = tuple(
        FieldOption(a_text(o, "value"), some_text(o, "label") or a_text(o, "value"))
        for o in some_objects(item, "options")
    )
    if kind is FieldKind.CHOICE and some_text(item, "fieldType") == "checkbox":
        kind = FieldKind.CHOICES
    if some_text(item, "referencedObjectType") == "OWNER" or name == OWNERS:
        kind, options = FieldKind.USER, owners
    elif kind in (FieldKind.CHOICE, FieldKind.CHOICES) and not options:
        # Pipelines and stages appear as a list without options of its own.
        kind = FieldKind.OTHER
    told = some_object(item, "modificationMetadata").get("readOnlyValue") is True
    taken = kind is not FieldKind.OTHER or name in LISTED
    return CrmField(
        name,
        some_text(item, "label") or name,
        kind,
        unique=item.get("hasUniqueValue") is True,
        writable=taken and not told and item.get("calculated") is not True,
        options=options,
        form=r"\d{1,18}" if kind is FieldKind.USER else "",
        length=LONGEST if kind is FieldKind.TEXT else None,
        custom=item.get("hubspotDefined") is not True,
    )


def choices_of(rows_: Iterable[Json]) -> tuple[FieldOption, ...]:
    """Return id and e-mail address of the users who can own records."""
    return tuple(
        FieldOption(an_id(owner), some_text(owner, "email").strip().lower())
        for owner in rows_
        if owner.get("archived") is not True
    )


def owners_of(rows_: Iterable[Json]) -> dict[str, str]:
    """Return e-mail in lower case -> id of the possible owners; of two with one address, the older."""
    owners: dict[str, str] = {}
    for owner in rows_:
        email = some_text(owner, "email").strip().lower()
        if email and owner.get("archived") is not True:
            owners.setdefault(email, an_id(owner))
    return owners


def pipelines_of(rows_: Iterable[Json]) -> tuple[Pipeline, ...]:
    """Return the pipelines with their stages, in order."""
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
