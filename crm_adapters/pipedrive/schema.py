"""Reads what a Pipedrive account reports of itself: fields with their keys, users, pipelines, stages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.crm.objects import ObjectName
from app.crm.schema import CrmField, FieldKind, FieldOption, Pipeline, Stage
from app.domain.errors import InvalidRecord
from app.outbound.reply import Json, a_text, an_id, some_objects, some_text

CUSTOM_KEY = re.compile(r"[0-9a-f]{40}")
KINDS = {
    # https://pipedrive.readme.io/docs/core-api-concepts-custom-fields#types-of-custom-fields and
    # the types of the fields API of v2; a mapping file cannot set fields of other types.
    "varchar": FieldKind.TEXT, "varchar_auto": FieldKind.TEXT, "text": FieldKind.TEXT,
    "phone": FieldKind.TEXT,
    "varchar_options": FieldKind.TEXT, "double": FieldKind.NUMBER, "int": FieldKind.WHOLE,
    "boolean": FieldKind.FLAG, "date": FieldKind.DATE, "daterange": FieldKind.DATES,
    "time": FieldKind.TIME,
    "timerange": FieldKind.TIMES, "enum": FieldKind.CHOICE, "status": FieldKind.CHOICE,
    "visible_to": FieldKind.CHOICE, "set": FieldKind.CHOICES, "address": FieldKind.ADDRESS,
    "monetary": FieldKind.MONEY, "user": FieldKind.USER, "org": FieldKind.REFERENCE,
    "people": FieldKind.REFERENCE,
    "stage": FieldKind.REFERENCE, "deal": FieldKind.REFERENCE, "pipeline": FieldKind.REFERENCE,
}  # fmt: skip
LENGTHS = {"varchar": 255, "varchar_auto": 255, "phone": 255, "text": 65_000}
NUMBER_FORM = r"\d{1,18}"
"""The form of the ids of users and records."""
NATIVE_KINDS = {
    # Fields whose form in v2 differs from their type: an amount is a number, beside its currency.
    "value": FieldKind.NUMBER, "emails": FieldKind.TEXT, "phones": FieldKind.TEXT,
    "label_ids": FieldKind.CHOICES,
    "priority": FieldKind.CHOICE, "location": FieldKind.ADDRESS, "address": FieldKind.ADDRESS,
}  # fmt: skip
WRITABLE = {
    # The keys that v2 accepts: https://developers.pipedrive.com/docs/api/v1/Deals#addDeal and so
    # on. Other keys are refused; other fields of a record are for Pipedrive's own use.
    ObjectName.COMPANY: {"name", "owner_id", "visible_to", "label_ids", "address"},
    ObjectName.CONTACT: {
        "name", "first_name", "last_name", "owner_id", "org_id", "emails", "phones", "visible_to",
        "label_ids", "marketing_status", "job_title", "notes", "im", "birthday", "postal_address",
    },
    ObjectName.DEAL: {
        "title", "owner_id", "person_id", "org_id", "pipeline_id", "stage_id", "value", "currency",
        "status", "probability", "lost_reason", "visible_to", "close_time", "won_time",
        "lost_time", "expected_close_date", "label_ids",
    },
    ObjectName.MEETING: {
        "subject", "type", "owner_id", "deal_id", "org_id", "due_date", "due_time", "duration",
        "busy", "done", "location", "public_description", "priority", "note",
    },
}  # fmt: skip
NOT_OF_LEADS = frozenset(
    {
        "pipeline_id", "stage_id", "status", "probability", "lost_reason", "close_time", "won_time",
        "lost_time", "label_ids",
    }
)  # fmt: skip
"""Fields of a deal that a lead of the inbox does not have. Labels of leads differ from labels of
deals: https://developers.pipedrive.com/docs/api/v1/Leads#addLead, LeadLabels"""
EMPTIES = {
    "note", "public_description", "location", "address", "emails", "phones", "label_ids",
    "probability", "lost_reason", "close_time", "person_id", "org_id", "deal_id",
}  # fmt: skip
"""Pipedrive's own fields that accept null, an empty text or an empty list; others cannot be emptied."""
SEARCHABLE = {"address", "varchar", "text", "varchar_auto", "double", "monetary", "phone"}
NATIVE = frozenset({"name", "title", "subject", "owner_id", "note", "type"})
"""Fields that are never treated as custom fields."""


@dataclass
class CustomFields:
    """The custom fields of an account, by the names that people use and by their keys."""

    keys: dict[tuple[ObjectName, str], list[str]] = field(default_factory=dict)
    """(object, name or key) -> keys; several if two fields have one name."""
    types: dict[tuple[ObjectName, str], str] = field(default_factory=dict)
    """(object, key) -> Pipedrive's type."""
    names: dict[tuple[ObjectName, str], str] = field(default_factory=dict)
    """(object, key) -> the name that mapping files use."""

    def note(self, name: ObjectName, items: Iterable[Json]) -> None:
        """Add the fields of an object."""
        for item in items:
            key = a_text(item, "field_code")
            if not CUSTOM_KEY.fullmatch(key):
                continue
            label = some_text(item, "field_name")
            self.keys.setdefault((name, label), []).append(key)
            self.keys.setdefault((name, key), []).append(key)
            self.names[name, key] = label
            self.types[name, key] = some_text(item, "field_type")

    def key_of(self, name: ObjectName, label: str) -> str | None:
        """Return a custom field's key by name or key. Raises InvalidRecord if two share the name."""
        keys = self.keys.get((name, label), []) if label not in NATIVE else []
        if len(keys) > 1:
            words = (
                f"{len(keys)} fields are called {label!r}; name one by its key: {', '.join(keys)}"
            )
            raise InvalidRecord(words, {label: words})
        return keys[0] if keys else None

    def name_of(self, name: ObjectName, key: str) -> str:
        """Return a field's name in mapping files: its own, or its key if two fields share the name."""
        label = self.names.get((name, key), key)
        return label if len(self.keys.get((name, label), ())) == 1 else key


def fields_of(name: ObjectName, items: Sequence[Json], account: AboutAccount) -> list[CrmField]:
    """Return the fields of an object; custom ones by name, or by key if two share the name."""
    every = [_field(name, item, account) for item in items]
    labels = [one.name for one in every]
    return [
        replace(one, name=key) if labels.count(one.name) > 1 and CUSTOM_KEY.fullmatch(key) else one
        for one, key in zip(every, (a_text(item, "field_code") for item in items), strict=True)
    ]


def schema_of(
    name: ObjectName, items: Sequence[Json], account: AboutAccount
) -> dict[str, CrmField]:
    """Return the fields that a mapping may name, custom ones by name and key; mark shared names."""
    schema: dict[str, CrmField] = {}
    for item in items:
        one, key = _field(name, item, account), a_text(item, "field_code")
        before = schema.get(one.name)
        if before and one.custom and before.custom:
            also = (*(before.also or (before.key,)), key)
            schema[one.name] = replace(before, also=also)
        elif before is None or one.custom is False:
            schema[one.name] = replace(one, key=key)
        if one.custom:
            schema[key] = replace(one, name=key, key=key)
    return schema


@dataclass
class AboutAccount:
    """Facts about an account that its fields depend on."""

    currency: str = ""
    """The currency of amounts that name none (ISO 4217); empty if it is not known."""
    users: tuple[FieldOption, ...] = ()
    """Id and e-mail address of all active users; empty if the account does not show them."""


def _field(name: ObjectName, item: Json, account: AboutAccount) -> CrmField:
    key = a_text(item, "field_code")
    label, type_ = some_text(item, "field_name") or key, some_text(item, "field_type")
    custom = bool(CUSTOM_KEY.fullmatch(key))
    kind = KINDS.get(type_, FieldKind.OTHER)
    kind = kind if custom else NATIVE_KINDS.get(key, kind)
    options = tuple(
        FieldOption(str(o["id"]), some_text(o, "label") or str(o["id"]))
        for o in some_objects(item, "options")
        if isinstance(o.get("id"), (int, str))
    )
    if kind in (FieldKind.CHOICE, FieldKind.CHOICES) and not options and not custom:
        kind = FieldKind.WHOLE if kind is FieldKind.CHOICE else FieldKind.OTHER
    return CrmField(
        # Custom fields have the name that mapping files use.
        label if custom else key,
        label,
        kind,
        writable=(custom or key in WRITABLE.get(name, ())) and kind is not FieldKind.OTHER,
        options=account.users if kind is FieldKind.USER else options,
        currency=account.currency if kind is FieldKind.MONEY else "",
        form=NUMBER_FORM if kind in (FieldKind.USER, FieldKind.REFERENCE) else "",
        empties=custom or key in EMPTIES,
        length=LENGTHS.get(type_) if kind is FieldKind.TEXT and custom else None,
        custom=custom,
        # Only custom fields can be searched, and only some types of them:
        # https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons
        searchable=custom and type_ in SEARCHABLE,
    )


def owners_of(users: Iterable[Json]) -> dict[str, str]:
    """Return e-mail in lower case -> id of the active users; of two with one address, the older."""
    owners: dict[str, str] = {}
    for user in users:
        email = some_text(user, "email").strip().lower()
        if email and user.get("active_flag"):
            owners.setdefault(email, an_id(user))
    return owners


def users_of(users: Iterable[Json]) -> tuple[FieldOption, ...]:
    """Return id and e-mail address of the active users."""
    return tuple(
        FieldOption(an_id(user), some_text(user, "email").strip().lower())
        for user in users
        if user.get("active_flag")
    )


def pipelines_of(pipelines: Iterable[Json], stages: Sequence[Json]) -> tuple[Pipeline, ...]:
    """Return the pipelines with their stages, in order."""
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
