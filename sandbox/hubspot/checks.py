"""Checks all properties of a write together."""

from __future__ import annotations

import re

from sandbox.account import Refusal
from sandbox.answers import Record
from sandbox.hubspot.properties import fields_of
from sandbox.hubspot.refused import HubSpotRefused, invalid
from sandbox.hubspot.schema import DEMANDED
from sandbox.hubspot.state import HubSpotState
from sandbox.hubspot.tables import by_email, by_unique
from sandbox.hubspot.values import check_type
from sandbox.limits import LONGEST_EMAIL, java_length


def checked_properties(
    crm: HubSpotState, kind: str, given: Record, new: bool, own: str = ""
) -> Record:
    """Refuse unknown properties, wrong types, duplicate unique values and breaches of admin rules."""
    clean: Record = {}
    fields = fields_of(crm, kind, "write")
    for name, value in given.items():
        spec = fields.get(name)
        if spec is None and name in fields_of(crm, kind, "describe"):
            invalid(name, f'"{name}" is a read only property', "READ_ONLY_VALUE")
        if spec is None:
            invalid(name, f'Property "{name}" does not exist', "PROPERTY_DOESNT_EXIST")
        if spec["modificationMetadata"]["readOnlyValue"]:
            invalid(name, f'"{name}" is a read only property', "READ_ONLY_VALUE")
        if not isinstance(value, str):
            invalid(name, f"{value!r} was not a valid string.", "INVALID_STRING")
        check_type(crm, spec, name, value)
        most = crm.account.too_long(kind, name, value, 65_536)
        if most is not None:
            invalid(name, f"Property values must not be longer than {most}", "TOO_LONG")
        clean[name] = value
    if new:
        _check_new(crm, kind, clean)
    if kind == "contacts":
        _check_contact(crm, clean, new, own)
    _check_unique(crm, kind, clean, own)
    _check_account(crm, kind, clean, new, own)
    rule = crm.required_when.get(kind)
    if rule and clean.get(rule[0]) == rule[1] and not clean.get(rule[2]):
        invalid(rule[2], f"{rule[2]} is required", "REQUIRED_PROPERTY")
    return clean


def _check_new(crm: HubSpotState, kind: str, clean: Record) -> None:
    """Refuse a new record without a property that the object's guide requires."""
    if kind == "meetings" and clean.get("hs_meeting_start_time"):
        clean.setdefault("hs_timestamp", clean["hs_meeting_start_time"])
    for names in DEMANDED.get(kind, ()):
        if not any(clean.get(name) for name in names):
            words = f"{' or '.join(names)} is required for {kind}"
            invalid(names[0], words, "REQUIRED_PROPERTY")


def _check_unique(crm: HubSpotState, kind: str, clean: Record, own: str) -> None:
    """Refuse a unique value that another record has."""
    for name, spec in crm.schema[kind].items():
        if not (spec["hasUniqueValue"] and clean.get(name)):
            continue
        for other in by_unique(crm, kind, name, clean[name]):
            if other["id"] != own:
                raise HubSpotRefused(
                    400, "VALIDATION_ERROR",
                    f"Cannot set PropertyValueCoordinates{{portalId=4711, propertyName={name}}}"
                    f" on {crm.next_id + 1}. {other['id']} already has that value.",
                )  # fmt: skip


def _check_account(crm: HubSpotState, kind: str, clean: Record, new: bool, own: str) -> None:
    """Refuse what this account forbids."""
    before = crm.records[kind].get(own, {}).get("properties", {})
    locked = crm.account.locked_field(own, clean)
    if locked:
        invalid(locked[0], locked[2], locked[1] or "READ_ONLY_VALUE")
    given = clean.get("hubspot_owner_id")
    owners = {user.id: user for user in crm.owner_rows()}
    owner = owners.get(given or "") if given != before.get("hubspot_owner_id") else None
    struck = crm.account.struck(kind, new, clean, {**before, **clean}, owner)
    if struck:
        _refuse(struck)
    if owner and not owner.active:
        why = f"{given} was not a valid owner id"
        invalid("hubspot_owner_id", why, "INVALID_OWNER_ID")


def _refuse(struck: Refusal) -> None:
    if struck.fields:
        code = struck.code or "PROPERTY_VALIDATION"
        invalid(struck.fields[0], struck.message, code, struck.more)
    category = struck.code or "VALIDATION_ERROR"
    status = 409 if category == "CONFLICT" else 400
    raise HubSpotRefused(status, category, struck.message, **struck.more)


def _check_contact(crm: HubSpotState, clean: Record, new: bool, own: str) -> None:
    if clean.get("lastname") in crm.forbidden_names:
        invalid("lastname", "A rule of this account forbids it", "PROPERTY_VALIDATION")
    if clean.get("email"):
        clean["email"] = clean["email"].lower()
        if java_length(clean["email"]) > LONGEST_EMAIL:
            invalid("email", "Email address is too long", "INVALID_EMAIL")
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", clean["email"]):
            invalid("email", f"Email address {clean['email']} is invalid", "INVALID_EMAIL")
        other = by_email(crm, clean["email"])
        if other and other["id"] != own:
            raise HubSpotRefused(
                409, "CONFLICT", f"Contact already exists. Existing ID: {other['id']}"
            )
