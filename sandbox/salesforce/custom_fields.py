"""The creation of custom fields."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import make
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.schema import CUSTOM_TYPES
from sandbox.salesforce.state import SalesforceState


def make_field(crm: SalesforceState) -> Response:
    """Create a custom field."""
    with crm.lock:
        body = request.get_json(silent=True) or {}
        owner, _, name = body.get("FullName", "").partition(".")
        target = "Event" if owner == "Activity" else owner
        if target not in crm.custom or not name.endswith("__c"):
            raise SalesforceRefused(400, "FIELD_INTEGRITY_EXCEPTION", "FullName is not usable")
        if name in crm.custom[target]:
            raise SalesforceRefused(400, "DUPLICATE_DEVELOPER_NAME", f"{name} exists")
        made = dict(body["Metadata"])
        listed = made.pop("valueSet", None)
        if made.get("type") in ("Picklist", "MultiselectPicklist"):
            if not listed or not listed["valueSetDefinition"]["value"]:
                raise SalesforceRefused(400, "FIELD_INTEGRITY_EXCEPTION", "a list needs values")
            rows = listed["valueSetDefinition"]["value"]
            made |= {"values": [row["fullName"] for row in rows],
                     "restricted": bool(listed.get("restricted"))}  # fmt: skip
        elif made.get("type") not in CUSTOM_TYPES:
            raise SalesforceRefused(400, "INVALID_FIELD", f"there is no type {made.get('type')}")
        crm.custom[target][name] = made
        # A field created by API is invisible until field-level security grants access.
        crm.hidden.add((target, name))
        return make(201, {"id": "00N000000000001AAA", "success": True, "errors": []})
