"""Checks the values of custom fields."""

from __future__ import annotations

import re
from typing import Any

from sandbox.answers import Record
from sandbox.pipedrive.presence import must_live
from sandbox.pipedrive.refused import unfit
from sandbox.pipedrive.state import PipedriveState

PARTS = {
    # https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide
    "monetary": {"value": r"-?\d+(\.\d+)?", "currency": r"[A-Z]{3}"},
    "address": {"value": r".+"}, "time": {"value": r"\d\d:\d\d:\d\d"},
    "daterange": {"value": r"\d{4}-\d\d-\d\d", "until": r"\d{4}-\d\d-\d\d"},
    "timerange": {"value": r"\d\d:\d\d:\d\d", "until": r"\d\d:\d\d:\d\d"},
}  # fmt: skip
"""Structured type of custom field -> its parts; a value that is no object is refused."""
REFERENCES = {"org": "organizations", "people": "persons"}


def check_custom(crm: PipedriveState, field: Record, value: Any) -> None:
    """Check that a custom field's value has the field's type; options are given by number."""
    if value is None:
        return
    kind, options = field["field_type"], {o["id"] for o in field.get("options") or ()}
    parts = PARTS.get(kind)
    if parts is not None:
        check_parts(field, parts, value)
        return
    users = {user.id for user in crm.user_rows()}
    if kind in REFERENCES and isinstance(value, int):
        must_live(crm, REFERENCES[kind], value)
    good = {
        **dict.fromkeys(REFERENCES, lambda: isinstance(value, int)),
        "user": lambda: value in users,
        "varchar": lambda: isinstance(value, str) and len(value) <= 255,
        "double": lambda: isinstance(value, (int, float)) and not isinstance(value, bool),
        "date": lambda: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", str(value))),
        "enum": lambda: value in options,
        "set": lambda: isinstance(value, list) and set(value) <= options,
    }.get(kind, lambda: isinstance(value, str))
    if not good():
        raise unfit(f"custom_fields: {field['field_name']} must be of type {kind}")


def check_parts(field: Record, parts: dict[str, str], value: Any) -> None:
    """Raise if a structured value lacks a part or has a wrong one."""
    name, kind = field["field_name"], field["field_type"]
    if not isinstance(value, dict):
        raise unfit(f"custom_fields: Expected object as value for {kind} field {name}")
    for part, form in parts.items():
        given = value.get(part)
        number = part == "value" and kind == "monetary"
        types = (int, float) if number else str
        if isinstance(given, bool) or not isinstance(given, types):
            raise unfit(f"custom_fields: {name}.{part} has the wrong type")
        if not re.fullmatch(form, str(given)):
            raise unfit(f"custom_fields: {name}.{part} has the wrong format")
