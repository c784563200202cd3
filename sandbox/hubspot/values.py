"""Checks one value against the type of its property."""

from __future__ import annotations

import re
from datetime import datetime

from sandbox.answers import Record
from sandbox.hubspot.refused import invalid
from sandbox.hubspot.schema import DATE, NUMBER
from sandbox.hubspot.state import HubSpotState


def check_type(crm: HubSpotState, spec: Record, name: str, value: str) -> None:
    """Raise if a value does not fit its property's type."""
    if not value:
        return
    values = [option["value"] for option in spec["options"]]
    several = spec["fieldType"] == "checkbox"
    if spec["type"] in ("json", "object_coordinates"):
        invalid(name, f"{name} is HubSpot's own", "READ_ONLY_VALUE")
    given = value.split(";") if several else [value]
    if spec["type"] == "enumeration" and values and not set(given) <= set(values):
        invalid(name, f"{value} was not one of the allowed options: {values}", "INVALID_OPTION")
    if spec["type"] == NUMBER and not re.fullmatch(r"-?\d+(\.\d+)?", value):
        invalid(name, f"{value} was not a valid number.", "INVALID_NUMBER")
    if spec["type"] == "bool" and value not in ("true", "false"):
        invalid(name, f"{value} was not a valid boolean.", "INVALID_BOOLEAN")
    if spec["type"] == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        invalid(name, f"{value} was not a valid date.", "INVALID_DATE")
    if spec["type"] == DATE and not value.isdigit():
        try:
            datetime.fromisoformat(value)
        except ValueError:
            invalid(name, f"{value} was not a valid long.", "INVALID_LONG")
    stages = [s["id"] for p in crm.pipelines for s in p["stages"]]
    if name == "dealstage" and value not in stages:
        invalid(name, f"{value} was not one of the allowed options: {stages}", "INVALID_OPTION")
    owned = spec.get("referencedObjectType") == "OWNER"
    if owned and value not in {u.id for u in crm.owner_rows()}:
        invalid(name, f"{value} was not a valid owner id", "INVALID_OWNER_ID")
