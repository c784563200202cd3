"""Checks the whole body of a v2 record."""

from __future__ import annotations

from flask import request

from sandbox.account import Refusal
from sandbox.answers import Record
from sandbox.pipedrive.refused import PipedriveRefused, unfit
from sandbox.pipedrive.schema import REQUIRED
from sandbox.pipedrive.state import PipedriveState
from sandbox.pipedrive.values import check_value


def checked_body(crm: PipedriveState, kind: str, new: bool, record: Record | None = None) -> Record:
    """Return the body of a call after all checks; `record`: the record that it changes."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise unfit("body: must be an object")
    for key, value in body.items():
        check_value(crm, kind, key, value)
    if new and not body.get(REQUIRED[kind]):
        raise unfit(f"{REQUIRED[kind]}: is required")
    if kind == "persons" and "name" in body and {"first_name", "last_name"} & set(body):
        raise unfit("name: not together with first_name or last_name")
    _check_account(crm, kind, new, body, record or {})
    if kind == "activities":
        _check_ends(crm, {**(record or {}), **body})
    return body


def _check_ends(crm: PipedriveState, activity: Record) -> None:
    """Check that an activity is not linked to both a deal and an existing lead."""
    lead = crm.leads.get(activity.get("lead_id") or "")
    if lead and not lead["is_deleted"] and activity.get("deal_id"):
        raise unfit("lead_id: not together with deal_id")


def _check_account(crm: PipedriveState, kind: str, new: bool, body: Record, before: Record) -> None:
    """Refuse what this account forbids."""
    locked = crm.account.locked_field(before.get("id"), body)
    if locked:
        raise unfit(f"{locked[0]}: {locked[2]}")
    given = body.get("owner_id")
    owners = {user.id: user for user in crm.user_rows()}
    owner = owners.get(given) if given != before.get("owner_id") else None
    whole = {
        **before,
        **before.get("custom_fields", {}),
        **body,
        **body.get("custom_fields", {}),
    }
    struck = crm.account.struck(kind, new, body, whole, owner)
    if struck:
        raise _refusal(struck)
    if owner and not owner.active:
        raise unfit(f"owner_id: user {given} does not exist or is inactive")


def _refusal(struck: Refusal) -> PipedriveRefused:
    if struck.fields:
        return unfit(f"{struck.fields[0]}: {struck.message}")
    return PipedriveRefused(400, struck.message, struck.code, struck.more)
