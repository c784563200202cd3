"""The search: filter groups, pages, parts of a number."""

from __future__ import annotations

import re

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.hubspot.properties import fields_of
from sandbox.hubspot.records import show
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.state import HubSpotState
from sandbox.hubspot.tables import table_of

MOST_IN = 100
"""The maximum number of values in an IN list."""


def serve_search(crm: HubSpotState, kind: str) -> Response:
    """Search records by filter groups."""
    with crm.lock:
        table = table_of(crm, kind)
        body = request.get_json(silent=True) or {}
        groups = body.get("filterGroups") or []
        if len(groups) > 5 or any(len(g.get("filters", ())) > 6 for g in groups):
            raise HubSpotRefused(400, "VALIDATION_ERROR", "too many filter groups")
        found = [
            show(crm, record, body.get("properties"))
            for record in table.values()
            if record["id"] not in crm.search_lag
            and any(all(_fits(crm, kind, record, f) for f in g["filters"]) for g in groups)
        ]
        start, limit = int(body.get("after") or 0), body.get("limit", 10)
        if limit > 200:
            raise HubSpotRefused(400, "VALIDATION_ERROR", "limit must not be larger than 200")
        answer: Record = {"total": len(found), "results": found[start : start + limit]}
        if start + limit < len(found):
            answer["paging"] = {"next": {"after": str(start + limit)}}
        return make(200, answer)


def _fits(crm: HubSpotState, kind: str, record: Record, rule: Record) -> bool:
    name, operator = rule["propertyName"], rule["operator"]
    if name not in fields_of(crm, kind, "query"):
        raise HubSpotRefused(400, "VALIDATION_ERROR", f"There was a problem with {name}")
    value = show(crm, record)["properties"].get(name) or ""
    if operator == "HAS_PROPERTY":
        return bool(value)
    if operator == "EQ":
        return value.lower() == str(rule["value"]).lower()
    if operator == "IN":
        if len(rule["values"]) > MOST_IN:
            told = f"count: {len(rule['values'])}, max allowed: {MOST_IN}"
            raise HubSpotRefused(400, "VALIDATION_ERROR", f"too many IN list values ({told})")
        return value.lower() in rule["values"]
    if operator == "CONTAINS_TOKEN":
        return rule["value"].lower() in re.split(r"[;\s]", value.lower())
    raise HubSpotRefused(400, "VALIDATION_ERROR", f"operator {operator} is not known here")
