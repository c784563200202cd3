"""Checks the body of a v1 lead."""

from __future__ import annotations

import re
from typing import Any

from flask import request

from sandbox.answers import Record
from sandbox.pipedrive.custom import PARTS, check_custom, check_parts
from sandbox.pipedrive.presence import must_live
from sandbox.pipedrive.refused import PipedriveRefused
from sandbox.pipedrive.schema import ENTRIES, FLAG, OBJECT, STRING, WHOLE
from sandbox.pipedrive.state import PipedriveState

LEAD_BODY: dict[str, type] = {
    "title": STRING, "owner_id": WHOLE, "label_ids": ENTRIES, "person_id": WHOLE,
    "organization_id": WHOLE, "value": OBJECT, "expected_close_date": STRING, "visible_to": STRING,
    "was_seen": FLAG, "origin_id": STRING, "channel": WHOLE, "channel_id": STRING,
}  # fmt: skip
"""The keys that v1 accepts for a new lead, beside the deals' custom fields at the top level.
https://developers.pipedrive.com/docs/api/v1/Leads#addLead
"""
LEAD_CHANGES = {**{k: v for k, v in LEAD_BODY.items() if k != "origin_id"}, "is_archived": FLAG}
LEAD_NULLS = {"person_id", "organization_id", "value", "expected_close_date", "channel_id"}


def checked_lead(crm: PipedriveState, allowed: dict[str, type], before: Record) -> Record:
    """Return the body of a lead after v1's checks; `before` is the present lead, empty for a new one."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise PipedriveRefused(400, "the body must be an object")
    for key, value in body.items():
        base, _, part = key.partition("_") if key[40:41] == "_" else (key, "", "")
        field = crm.custom["deals"].get(base)
        if field is not None:
            _check_v1(crm, field, part, value, body)
        elif key not in allowed:
            raise PipedriveRefused(400, f"{key}: is not allowed")
        else:
            _check_of_lead(crm, key, allowed[key], value)
    whole = {**before, **body}
    if not whole.get("title"):
        raise PipedriveRefused(400, "title: is required")
    if not (whole.get("person_id") or whole.get("organization_id")):
        raise PipedriveRefused(400, "A lead has to be linked to a person or an organization")
    return body


def _check_of_lead(crm: PipedriveState, key: str, expected: type, value: Any) -> None:
    if value is None:
        if key not in LEAD_NULLS:
            raise PipedriveRefused(400, f"{key}: may not be null")
        return
    if isinstance(value, bool) is not (expected is bool) or not isinstance(value, expected):
        raise PipedriveRefused(400, f"{key}: must be of type {expected.__name__}")
    targets = {"person_id": "persons", "organization_id": "organizations"}
    if key in targets:
        must_live(crm, targets[key], value)
    if key == "value" and (
        set(value) != {"amount", "currency"}
        or isinstance(value["amount"], bool)
        or not isinstance(value["amount"], (int, float))
        or not re.fullmatch("[A-Z]{3}", str(value["currency"]))
    ):
        raise PipedriveRefused(400, "value: amount and currency are required")
    if key == "expected_close_date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise PipedriveRefused(400, "expected_close_date: has the wrong format")
    if key == "visible_to" and value not in ("1", "3", "5", "7"):
        raise PipedriveRefused(400, "visible_to: must be one of 1, 3, 5, 7")
    if key == "title" and len(value) > 255:
        raise PipedriveRefused(400, "title: is longer than 255")
    if key == "owner_id" and value not in {u.id for u in crm.user_rows() if u.active}:
        raise PipedriveRefused(400, f"owner_id: user {value} does not exist or is inactive")


def _check_v1(crm: PipedriveState, field: Record, part: str, value: Any, body: Record) -> None:
    """Check a custom field's value in the form of v1: its further parts have keys of their own."""
    key, kind = field["field_code"], field["field_type"]
    parts = PARTS.get(kind, {})
    if part and part not in parts:
        raise PipedriveRefused(400, f"{key}_{part}: is not allowed")
    if part or value is None:
        return
    if parts and not isinstance(value, dict):
        whole = {one: value if one == "value" else body.get(f"{key}_{one}") for one in parts}
        check_parts(field, parts, whole)
    elif parts:
        raise PipedriveRefused(400, f"{key}: v1 takes no object")
    else:
        check_custom(crm, field, value)
