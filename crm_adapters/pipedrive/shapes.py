"""Converts values to the forms of API v2: structured custom fields, and lists of numbers.

https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.crm.objects import FieldValue
from app.domain.values import (
    money_parts,
    money_text,
    range_parts,
    range_text,
    time_text,
    with_seconds,
)

NUMBERS = frozenset({"user", "org", "people", "enum", "deal", "stage", "pipeline", "visible_to"})
"""Types of custom fields that hold one id."""
ENTRIES = {"emails": "work", "phones": "mobile"}
"""Lists of a person's addresses and numbers -> the label for our entries."""
TEXTS = frozenset({"note", "public_description"})
"""Texts of activities that accept no null."""
PLACES = frozenset({"location", "address"})
"""Pipedrive's own address fields: v2 takes an object here, and no null.
https://developers.pipedrive.com/docs/api/v1/Activities#addActivity"""
LEAD_NAMES = {"org_id": "organization_id"}
"""Fields of a deal that have another name in a lead of the inbox."""
MONEY = ("value", "currency")
"""Fields of a deal that form one value in a lead."""
V1_PARTS = ("currency", "until")
"""The parts of a structured field besides its value."""
NATIVE_NUMBERS = frozenset({"priority", "visible_to"})


def custom_value(type_: str, value: FieldValue) -> Any:
    """Return the value to send for a custom field of a type; texts are as in app/domain/values.py."""
    if value is None or value in ("", []):
        return None
    if type_ == "set":
        return [int(str(item)) for item in (value if isinstance(value, list) else [value])]
    if type_ in NUMBERS:
        return int(str(value))
    return _parts(type_, str(value)) or value


def _parts(type_: str, text: str) -> dict[str, Any] | None:
    """Return the object that a structured field takes; None for any other field."""
    if type_ == "address":
        return {"value": text}
    if type_ == "time":
        return {"value": with_seconds(text)}
    if type_ == "monetary" and (money := money_parts(text)):
        return {"value": money[0], "currency": money[1]}
    if type_ in ("daterange", "timerange") and (ends := range_parts(text)):
        start, end = ends if type_ == "daterange" else map(with_seconds, ends)
        return {"value": start, "until": end}
    return None


def native_value(field: str, value: FieldValue) -> Any:
    """Return the value to send for one of Pipedrive's own fields."""
    if field in ENTRIES:
        entries = value if isinstance(value, list) else [value] if value else []
        return [
            {"value": entry, "primary": number == 0, "label": ENTRIES[field]}
            for number, entry in enumerate(entries)
        ]
    if field in PLACES:
        return {"value": value or ""}
    if field in TEXTS:
        return value or ""
    if field == "label_ids":
        labels = value if isinstance(value, list) else [value] if value else []
        return [int(str(item)) for item in labels]
    number = field != "lead_id" and (field.endswith("_id") or field in NATIVE_NUMBERS)
    if number and value is not None:
        return int(str(value))
    return value


def custom_text(type_: str, value: Any) -> FieldValue:
    """Return a custom field's value as it was written; for an unknown type the plain value."""
    if isinstance(value, dict):
        first, last = value.get("value"), value.get("until")
        if type_ == "monetary" and isinstance(first, (int, float)):
            return money_text(first, str(value.get("currency") or ""))
        if type_ in ("daterange", "timerange") and first and last:
            ends = [str(first), str(last)]
            short = ends if type_ == "daterange" else [time_text(end) or end for end in ends]
            return range_text(short[0], short[1])
        if type_ == "time" and first:
            return time_text(str(first)) or str(first)
    return flat(value)


def as_v1(key: str, value: Any) -> dict[str, Any]:
    """Return the value of a custom field in the form of v1: its parts under keys of their own.

    https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide#custom-fields
    """
    if not isinstance(value, dict):
        return {key: value}
    names = {"value": key, **{part: f"{key}_{part}" for part in V1_PARTS}}
    return {names[part]: given for part, given in value.items() if part in names}


def from_v1(type_: str, item: Mapping[str, Any], key: str) -> Any:
    """Return a custom field of a v1 record in the form of v2; v1 joins some options into one text."""
    value = item.get(key)
    if value is None:
        return None
    if type_ == "set" and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if type_ == "monetary":
        return {"value": _number(value), "currency": item.get(f"{key}_currency")}
    if type_ in ("daterange", "timerange"):
        return {"value": value, "until": item.get(f"{key}_until")}
    return {"value": value} if type_ == "time" and isinstance(value, str) else value


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def flat(value: object) -> FieldValue:
    """Return the plain value of an object, or of a list of objects."""
    if isinstance(value, list):
        return [str(item.get("value") if isinstance(item, dict) else item) for item in value]
    if isinstance(value, dict):
        return flat(value.get("value", value.get("id")))
    return value if isinstance(value, (str, int, float, bool)) else None
