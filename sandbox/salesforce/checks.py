"""Checks all values of a write together."""

from __future__ import annotations

from typing import Any

from sandbox.answers import Record
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.schema import DEMANDED, REQUIRED
from sandbox.salesforce.state import SalesforceState
from sandbox.salesforce.values import check_value


def check(crm: SalesforceState, sobject: str, values: Any, record_id: str | None) -> None:
    """Raise if a record may not be written; `record_id`: the changed record, None for a new one."""
    if not isinstance(values, dict):
        raise SalesforceRefused(400, "JSON_PARSER_ERROR", "an object is expected")
    _check_fields(crm, sobject, values, record_id)
    converted = crm.tables[sobject].get(record_id or "", {}).get("IsConverted")
    if converted:
        raise SalesforceRefused(
            400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead"
        )
    whole = {**(crm.tables[sobject].get(record_id or "", {})), **values}
    demanded = [*REQUIRED.get(sobject, ()), *DEMANDED.get(sobject, ())]
    missing = [name for name in demanded if whole.get(name) in (None, "")]
    if missing:
        message = f"Required fields are missing: [{', '.join(missing)}]"
        raise SalesforceRefused(400, "REQUIRED_FIELD_MISSING", message, missing)
    who, what = whole.get("WhoId") or "", whole.get("WhatId")
    if sobject == "Event" and who.startswith("00Q") and what:
        message = "WhatId: Related To ID cannot be specified with a lead"
        raise SalesforceRefused(400, "FIELD_INTEGRITY_EXCEPTION", message, ["WhatId"])
    if sobject == "Contact" and values.get("LastName") in crm.forbidden_names:
        message = "a rule of this org forbids it"
        raise SalesforceRefused(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", message, ["LastName"])
    crm.org.check(sobject, values, whole, record_id)
    for rule in crm.rules:
        rule(sobject, whole)
    _check_unique(crm, sobject, values, record_id)


def _check_fields(
    crm: SalesforceState, sobject: str, values: Record, record_id: str | None
) -> None:
    """Check that each field exists, may be written, and may have its value."""
    for name, value in values.items():
        if name not in crm.names(sobject):
            message = f"No such column '{name}' on sobject of type {sobject}"
            raise SalesforceRefused(400, "INVALID_FIELD", message)
        if crm.read_only(sobject, name) or name not in crm.names(sobject, "write"):
            message = f"Unable to create/update fields: {name}. Please check the security settings"
            raise SalesforceRefused(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, [name])
        if value is not None:
            check_value(crm, sobject, name, value)
        elif crm.kind_of(sobject, name) == "flag":
            message = f"Cannot deserialize instance of boolean from VALUE_NULL: {name}"
            raise SalesforceRefused(400, "JSON_PARSER_ERROR", message)
        elif name == "OwnerId" and record_id:
            message = "Owner ID: owner cannot be blank"
            raise SalesforceRefused(400, "INVALID_CROSS_REFERENCE_KEY", message, [name])


def _check_unique(
    crm: SalesforceState, sobject: str, values: Record, record_id: str | None
) -> None:
    """Refuse a unique value that another record has."""
    for name, spec in crm.custom[sobject].items():
        if not (spec.get("unique") and values.get(name)):
            continue
        for other in crm.by_unique(sobject, name, values[name]):
            if other["Id"] != record_id:
                message = f"duplicate value found: {name} duplicates value on record with id: {other['Id']}"  # fmt: skip
                raise SalesforceRefused(400, "DUPLICATE_VALUE", message)
