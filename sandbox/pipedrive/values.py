"""Checks one value in the body of a v2 record."""

from __future__ import annotations

import re
from typing import Any

from sandbox.limits import LONGEST_EMAIL
from sandbox.pipedrive.custom import check_custom
from sandbox.pipedrive.presence import living_lead, must_live, types_of
from sandbox.pipedrive.refused import unfit
from sandbox.pipedrive.schema import NATIVE_OPTIONS, PATTERNS
from sandbox.pipedrive.state import PipedriveState

TARGETS = {"person_id": "persons", "org_id": "organizations", "deal_id": "deals"}
"""Key -> the object that it refers to."""


def check_value(crm: PipedriveState, kind: str, key: str, value: Any) -> None:
    """Raise if a key may not have this value."""
    expected = types_of(crm, kind, "write").get(key)
    if expected is None:
        raise unfit(f"{key}: is not allowed")
    if value is None:
        if key not in crm.nullable:
            raise unfit(f"{key}: may not be null")
        return
    types = (int, float) if expected is float else expected
    if isinstance(value, bool) is not (expected is bool) or not isinstance(value, types):
        raise unfit(f"{key}: must be of type {expected.__name__}")
    _check_text(crm, kind, key, value)
    _check_named(crm, key, value)
    _check_options(key, value)
    _check_entries(crm, key, value)
    if key == "custom_fields":
        unknown = set(value) - set(crm.custom[kind])
        if unknown:
            raise unfit(f"custom_fields: {unknown.pop()} is not allowed")
        for name, given in value.items():
            check_custom(crm, crm.custom[kind][name], given)


def _check_text(crm: PipedriveState, kind: str, key: str, value: Any) -> None:
    """Check a text's format, its length, and that it has no forbidden name."""
    if (
        key in ("name", "last_name")
        and value.split()[-1:]
        and value.split()[-1] in crm.forbidden_names
    ):
        raise unfit(f"{key}: a rule of this account forbids it")
    if key in PATTERNS and not re.fullmatch(PATTERNS[key], value):
        raise unfit(f"{key}: has the wrong format")
    if isinstance(value, str) and key in ("name", "title", "subject") and len(value) > 255:
        raise unfit(f"{key}: is longer than 255")
    most = crm.account.too_long(kind, key, value)
    if most is not None:
        raise unfit(f"{key}: is longer than {most}")


def _check_named(crm: PipedriveState, key: str, value: Any) -> None:
    """Check that a named record, user, stage or activity type exists."""
    if key in TARGETS:
        must_live(crm, TARGETS[key], value)
    if key == "lead_id":
        living_lead(crm, value, 400)
    if key == "owner_id" and value not in {u.id for u in crm.user_rows()}:
        raise unfit(f"owner_id: user {value} does not exist or is inactive")
    if key == "stage_id" and value not in [stage["id"] for stage in crm.stages]:
        raise unfit("stage_id: does not exist")
    if key == "type" and value not in crm.activity_types:
        raise unfit("type: is not an activity type")


def _check_options(key: str, value: Any) -> None:
    """Check that a place has only its text, and that a list value is one of the options."""
    if key in ("location", "address") and set(value) - {"value"}:
        raise unfit(f"{key}: only value")
    if key in NATIVE_OPTIONS:
        options = {option for option, _ in NATIVE_OPTIONS[key]}
        if not set(value if isinstance(value, list) else [value]) <= options:
            raise unfit(f"{key}: must be one of {sorted(map(str, options))}")


def _check_entries(crm: PipedriveState, key: str, value: Any) -> None:
    """Check that each entry of a list has only allowed keys."""
    if key in ("emails", "phones"):
        for item in value:
            if not isinstance(item, dict) or set(item) - {"value", "primary", "label"}:
                raise unfit(f"{key}: wrong entry")
            if key == "emails" and len(item["value"]) > LONGEST_EMAIL:
                raise unfit("emails: is too long")
    if key == "participants":
        for item in value:
            if set(item) - {"person_id", "primary"} or not isinstance(item["person_id"], int):
                raise unfit("participants: wrong entry")
            must_live(crm, "persons", item["person_id"])
