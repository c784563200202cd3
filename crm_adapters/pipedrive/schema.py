"""What a Pipedrive account tells of itself: fields with their keys, users, pipelines and stages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.domain.errors import InvalidRecord
from app.domain.records import Choice, CrmField, Kind, ObjectName, Pipeline, Stage
from app.outbound.reply import Json, a_text, an_id, some_objects, some_text

CUSTOM_KEY = re.compile(r"[0-9a-f]{40}")
KINDS = {
    # https://developers.pipedrive.com/docs/api/v1/DealFields
    "varchar": Kind.TEXT, "varchar_auto": Kind.TEXT, "text": Kind.TEXT, "phone": Kind.TEXT,
    "double": Kind.NUMBER, "monetary": Kind.NUMBER, "int": Kind.WHOLE, "boolean": Kind.FLAG,
    "date": Kind.DATE, "time": Kind.TIME, "enum": Kind.CHOICE, "set": Kind.CHOICES,
    "user": Kind.REFERENCE, "org": Kind.REFERENCE, "people": Kind.REFERENCE,
    "stage": Kind.REFERENCE, "deal": Kind.REFERENCE,
}  # fmt: skip
SEARCHABLE = {"address", "varchar", "text", "varchar_auto", "double", "monetary", "phone"}
NATIVE = frozenset({"name", "title", "subject", "owner_id", "note", "type"})
"""Fields that are never looked for among the custom ones."""


@dataclass
class CustomFields:
    """The custom fields of an account, by what people call them and by their keys."""

    keys: dict[tuple[ObjectName, str], list[str]] = field(default_factory=dict)
    """(object, name or key) -> keys; several where two fields have one name."""
    numbered: set[tuple[ObjectName, str]] = field(default_factory=set)
    """(object, key) of those whose options go by numbers."""
    names: dict[tuple[ObjectName, str], str] = field(default_factory=dict)
    """(object, key) -> the name that mapping files use."""

    def note(self, name: ObjectName, items: Iterable[Json]) -> None:
        """Take in the fields of an object."""
        for item in items:
            key = a_text(item, "field_code")
            if not CUSTOM_KEY.fullmatch(key):
                continue
            label = some_text(item, "field_name")
            self.keys.setdefault((name, label), []).append(key)
            self.keys.setdefault((name, key), []).append(key)
            self.names[name, key] = label
            if item.get("field_type") in ("enum", "set"):
                self.numbered.add((name, key))

    def key_of(self, name: ObjectName, label: str) -> str | None:
        """The key of a custom field by its name or key. Raises InvalidRecord where two have it."""
        keys = self.keys.get((name, label), []) if label not in NATIVE else []
        if len(keys) > 1:
            words = (
                f"{len(keys)} fields are called {label!r}; name one by its key: {', '.join(keys)}"
            )
            raise InvalidRecord(words, {label: words})
        return keys[0] if keys else None

    def name_of(self, name: ObjectName, key: str) -> str:
        """What mapping files call a field: its name, or its key where the name fits two."""
        label = self.names.get((name, key), key)
        return label if len(self.keys.get((name, label), ())) == 1 else key


def fields_of(items: Sequence[Json]) -> list[CrmField]:
    """The fields of an object; custom ones under their name, under their key where two share one."""
    every = [_field(item) for item in items]
    labels = [one.name for one in every]
    return [
        replace(one, name=key) if labels.count(one.name) > 1 and CUSTOM_KEY.fullmatch(key) else one
        for one, key in zip(every, (a_text(item, "field_code") for item in items), strict=True)
    ]


def schema_of(items: Sequence[Json]) -> dict[str, CrmField]:
    """What a mapping file may name: fields by name, custom ones by key too; a shared name says so."""
    schema: dict[str, CrmField] = {}
    for item in items:
        one, key = _field(item), a_text(item, "field_code")
        before = schema.get(one.name)
        if before and one.custom and before.custom:
            also = (*(before.also or (before.key,)), key)
            schema[one.name] = replace(before, also=also)
        elif before is None or one.custom is False:
            schema[one.name] = replace(one, key=key)
        if one.custom:
            schema[key] = replace(one, name=key, key=key)
    return schema


def _field(item: Json) -> CrmField:
    key = a_text(item, "field_code")
    label, kind = some_text(item, "field_name") or key, some_text(item, "field_type")
    custom = bool(CUSTOM_KEY.fullmatch(key))
    return CrmField(
        # Custom ones under their name, as mapping files write them.
        label if custom else key,
        label,
        KINDS.get(kind, Kind.OTHER),
        options=tuple(
            Choice(an_id(o), some_text(o, "label")) for o in some_objects(item, "options")
        ),
        custom=custom,
        # Only custom fields can be searched, and not all types of them:
        # https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons
        searchable=custom and kind in SEARCHABLE,
    )


def owners_of(users: Iterable[Json]) -> dict[str, str]:
    """E-mail in lower case -> id of the active users; of two with one address the older one."""
    owners: dict[str, str] = {}
    for user in users:
        email = some_text(user, "email").strip().lower()
        if email and user.get("active_flag"):
            owners.setdefault(email, an_id(user))
    return owners


def pipelines_of(pipelines: Iterable[Json], stages: Sequence[Json]) -> tuple[Pipeline, ...]:
    """Pipelines with their stages, in order."""
    return tuple(
        Pipeline(
            an_id(item),
            some_text(item, "name"),
            tuple(
                Stage(an_id(stage), some_text(stage, "name"))
                for stage in sorted(stages, key=_place)
                if stage.get("pipeline_id") == item.get("id")
            ),
        )
        for item in sorted(pipelines, key=_place)
    )


def _place(item: Mapping[str, object]) -> float:
    order = item.get("order_nr")
    return float(order) if isinstance(order, (int, float)) else 0.0
