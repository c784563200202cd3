"""Checks one value against the type of its field."""

from __future__ import annotations

import re
from typing import Any

from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.state import SalesforceState

CLOCK = r"\d\d:\d\d:\d\d\.\d{3}Z"


def check_value(crm: SalesforceState, sobject: str, name: str, value: Any) -> None:
    """Raise if a field may not have this value."""
    custom = crm.custom[sobject].get(name, {})
    kind = crm.kind_of(sobject, name)
    if custom.get("type") in ("Picklist", "MultiselectPicklist"):
        given = str(value).split(";") if custom["type"].startswith("Multi") else [value]
        if custom.get("restricted", True) and not set(given) <= set(custom["values"]):
            message = f"bad value for restricted picklist field: {value}"
            raise SalesforceRefused(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, [name])
        return
    if isinstance(kind, int):
        if not isinstance(value, str):
            raise SalesforceRefused(
                400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as String"
            )
        most = crm.account.too_long(sobject, name, value, kind)
        if most is not None:
            message = f"{name}: data value too large: {value} (max length={most})"
            raise SalesforceRefused(400, "STRING_TOO_LONG", message, [name])
    elif kind == "flag" and not isinstance(value, bool):
        raise SalesforceRefused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Boolean")
    elif kind in ("number", "double", "percent"):
        _check_number(crm, sobject, name, value)
    elif kind == "clock" and not re.fullmatch(CLOCK, str(value)):
        raise SalesforceRefused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Time")
    elif kind == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
        raise SalesforceRefused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Date")
    elif kind == "time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(value)):
        raise SalesforceRefused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as DateTime")
    elif (
        kind == "stage"
        and value not in [s["ApiName"] for s in crm.tables["OpportunityStage"].values()]
    ) or (isinstance(kind, tuple) and kind[0] == "pick" and value not in kind):
        message = f"bad value for restricted picklist field: {value}"
        raise SalesforceRefused(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, [name])
    else:
        _check_reference(crm, kind, name, value)


def _check_number(crm: SalesforceState, sobject: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SalesforceRefused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Double")
    custom = crm.custom[sobject].get(name, {})
    digits = custom.get("precision", 18) - custom.get("scale", 2)
    if abs(value) >= 10**digits:
        message = f"{name}: value outside of valid range on numeric field: {value}"
        raise SalesforceRefused(400, "NUMBER_OUTSIDE_VALID_RANGE", message, [name])


def _check_reference(crm: SalesforceState, kind: Any, name: str, value: Any) -> None:
    targets = [kind] if isinstance(kind, str) else list(kind)
    targets = [target for target in targets if target in crm.tables]
    if targets and not any(value in crm.tables[target] for target in targets):
        message = f"invalid cross reference id: {name}"
        raise SalesforceRefused(400, "INVALID_CROSS_REFERENCE_KEY", message, [name])
