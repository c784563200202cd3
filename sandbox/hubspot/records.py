"""Single records: create, show and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import phonenumbers
from flask import Response, request

from sandbox.answers import Record, make
from sandbox.hubspot.checks import checked_properties
from sandbox.hubspot.links import link_kind
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.schema import SEARCHABLE
from sandbox.hubspot.state import HubSpotState
from sandbox.hubspot.tables import erase, table_of


def insert(crm: HubSpotState, kind: str, item: Record) -> Record:
    """Create a record with its links; `item`: one entry of a batch."""
    properties = checked_properties(crm, kind, item.get("properties") or {}, new=True)
    pairs = []
    for link in item.get("associations") or ():
        for kind_ in link["types"]:
            pairs.append(link_kind(crm, kind, link["to"]["id"], kind_))
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    record = {"id": str(crm.new_id()), "properties": properties, "created": now}
    crm.records[kind][record["id"]] = record
    crm.note(kind, record)
    for target, target_id, number in pairs:
        crm.connect(kind, record["id"], target, target_id, number)
    if kind == "contacts":
        crm.portal.contact_made(record["id"])
    return record


def show(crm: HubSpotState, record: Record, names: list[str] | None = None) -> Record:
    """Return a record as in answers; `names`: the requested properties."""
    properties = dict(record["properties"])
    closed = {s["id"] for p in crm.pipelines for s in p["stages"] if s.get("closed")}
    if "dealstage" in properties:
        properties["hs_is_closed"] = str(properties["dealstage"] in closed).lower()
    if record.get("additional"):
        properties["hs_additional_emails"] = ";".join(record["additional"])
    for name, source in SEARCHABLE.items():
        if properties.get(source):
            properties[name] = searchable(properties[source], crm.portal.phone_country)
    if names:
        properties = {name: properties.get(name) for name in names}
    times = {"createdAt": record["created"], "updatedAt": "2026-11-24T08:00:00Z"}
    return {"id": record["id"], "properties": dict(properties), "archived": False, **times}


def searchable(phone: str, country: str | None) -> str:
    """Return the digits of a number that the search knows: 'only the area code and local number'.

    A number without a country code keeps its leading zero, unless the portal assumes a country for
    its numbers. https://developers.hubspot.com/docs/api-reference/search/guide
    """
    try:
        number = phonenumbers.parse(phone, country)
    except phonenumbers.NumberParseException:
        return re.sub(r"\D", "", re.split(r"(?:ext|x|#)", phone, flags=re.I)[0])
    return phonenumbers.national_significant_number(number)


def list_records(crm: HubSpotState, kind: str) -> Response:
    """Return the first records of an object."""
    with crm.lock:
        limit = request.args.get("limit", 10, type=int)
        rows = [show(crm, record) for record in list(table_of(crm, kind).values())[:limit]]
        return make(200, {"results": rows})


def one_record(crm: HubSpotState, kind: str, record_id: str) -> Response:
    """Show or delete a record."""
    with crm.lock:
        table = table_of(crm, kind)
        record_id = crm.merged.get((kind, record_id), record_id)
        if record_id not in table:
            raise HubSpotRefused(404, "OBJECT_NOT_FOUND", f"Object not found. objectId={record_id}")
        if request.method == "DELETE":
            erase(crm, kind, record_id)
            return Response(status=204)
        names = request.args.getlist("properties")
        wanted = [name for part in names for name in part.split(",")]
        return make(200, show(crm, table[record_id], wanted or None))
