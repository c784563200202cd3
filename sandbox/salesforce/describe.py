"""The fields of an object, as describe returns them."""

from __future__ import annotations

from flask import Response

from sandbox.answers import Record, make
from sandbox.salesforce.schema import DEFAULTED, FIELDS, REQUIRED, TEXT_TYPES, TYPES
from sandbox.salesforce.state import SalesforceState


def serve_describe(crm: SalesforceState, sobject: str) -> Response:
    """Describe an object."""
    with crm.lock:
        crm.table_of(sobject)
        rows = [
            {"name": name, "label": name, "nillable": _nillable(crm, sobject, name),
             "defaultedOnCreate": name in DEFAULTED,
             "createable": not crm.read_only(sobject, name)
             and name in crm.names(sobject, "write"),
             "unique": bool(crm.custom[sobject].get(name, {}).get("unique")),
             "custom": name in crm.custom[sobject], **type_of(crm, sobject, name),
             # Long texts are not indexed, so no query may filter by them.
             "filterable": FIELDS[sobject].get(name) != 32_000}
            for name in sorted(crm.names(sobject, "describe"))
        ]  # fmt: skip
        return make(200, {"name": sobject, "fields": rows})


def _nillable(crm: SalesforceState, sobject: str, name: str) -> bool:
    filled = name in REQUIRED.get(sobject, []) or name in DEFAULTED
    return not filled and crm.kind_of(sobject, name) != "flag"


def type_of(crm: SalesforceState, sobject: str, name: str) -> Record:
    """Return the type of a field as in describe."""
    custom = crm.custom[sobject].get(name, {})
    kind = crm.kind_of(sobject, name)
    values = list(custom.get("values", ()))
    if name == "StageName":
        values = [row["ApiName"] for row in crm.tables["OpportunityStage"].values()]
    if isinstance(kind, tuple) and kind[0] == "pick":
        kind, values = "pick", list(kind[1:])
    options = [{"value": v, "label": v, "active": True} for v in values]
    if values:
        several = custom.get("type") == "MultiselectPicklist"
        return {"type": "multipicklist" if several else "picklist", "length": 255,
                "restrictedPicklist": custom.get("restricted", True),
                "picklistValues": options}  # fmt: skip
    if isinstance(kind, int):
        most = crm.account.units.get((sobject, name), kind)
        told = TEXT_TYPES.get(custom.get("type", ""), "string")
        return {"type": told, "length": most, "picklistValues": []}
    named = kind if isinstance(kind, str) else ""
    told = {"type": TYPES.get(named, "reference"), "length": 0, "picklistValues": []}
    if told["type"] == "reference":
        told["referenceTo"] = [kind] if isinstance(kind, str) else list(kind)
    if named in ("number", "double", "percent"):
        told |= {"precision": custom.get("precision", 18), "scale": custom.get("scale", 2)}
    return told
