"""The properties of an object, and the creation of new ones."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.schema import new_property
from sandbox.hubspot.state import HubSpotState
from sandbox.hubspot.tables import table_of


def fields_of(crm: HubSpotState, kind: str, use: str) -> dict[str, Record]:
    """Return the properties of an object for one use of `account.USES`."""
    added = {
        name: new_property(name, "enumeration", type_) if isinstance(type_, tuple)
        else new_property(name, type_)
        for name, type_ in crm.account.extra.get(kind, {}).items()
    }  # fmt: skip
    there = {**crm.schema[kind], **added}
    return {n: spec for n, spec in there.items() if crm.account.shows(kind, n, use)}


def serve_properties(crm: HubSpotState, kind: str) -> Response:
    """List the properties of an object, or create one."""
    with crm.lock:
        table_of(crm, kind)
        if request.method == "GET":
            writable = fields_of(crm, kind, "write")
            specs = fields_of(crm, kind, "describe").items()
            return make(200, {"results": [_described(crm, kind, spec, name in writable)
                                          for name, spec in specs]})  # fmt: skip
        body = request.get_json(silent=True) or {}
        if body["groupName"] not in crm.portal.groups(kind):
            why = f"Property group {body['groupName']} does not exist"
            raise HubSpotRefused(400, "VALIDATION_ERROR", why)
        if body["name"] in crm.schema[kind]:
            raise HubSpotRefused(409, "CONFLICT", f"{body['name']} already exists")
        if body.get("hasUniqueValue") and kind == "meetings":
            # Documented for contacts, companies, deals, tickets and custom objects only.
            raise HubSpotRefused(
                400, "VALIDATION_ERROR", "hasUniqueValue is not supported for MEETING"
            )
        unique = bool(body.get("hasUniqueValue"))
        options = tuple(option["value"] for option in body.get("options") or ())
        if body["type"] == "enumeration" and not options:
            raise HubSpotRefused(400, "VALIDATION_ERROR", "An enumeration needs options")
        spec = new_property(
            body["name"], body["type"], options, hasUniqueValue=unique, hubspotDefined=False,
            label=body["label"], fieldType=body["fieldType"], groupName=body["groupName"],
        )  # fmt: skip
        crm.schema[kind][body["name"]] = spec
        return make(201, spec)


def _described(crm: HubSpotState, kind: str, spec: Record, writable: bool) -> Record:
    group = spec["groupName"] or next(iter(crm.portal.groups(kind)))
    told = spec["modificationMetadata"]
    told = {**told, "readOnlyValue": told["readOnlyValue"] or not writable}
    return {**spec, "groupName": group, "modificationMetadata": told}
