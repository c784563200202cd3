"""One operation on one record: the core of sobjects, composite and graph."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.salesforce.checks import check
from sandbox.salesforce.org import MIRRORED
from sandbox.salesforce.paths import DATA
from sandbox.salesforce.queries import query, query_all
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.state import SalesforceState


def serve_sobject(crm: SalesforceState, rest: str) -> Response:
    """Do one operation on one record."""
    with crm.lock:
        body = request.get_json(silent=True)
        status, answer = do(crm, request.method, f"{DATA}/sobjects/{rest}", body)
        return make(status, answer) if answer is not None else Response(status=status)


def do(crm: SalesforceState, method: str, url: str, body: Any) -> tuple[int, Any]:
    """Do one operation on one record."""
    parts = urlsplit(url)
    if method == "GET" and parts.path.rstrip("/") == f"{DATA}/queryAll":
        return 200, query_all(crm, parse_qs(parts.query)["q"][0])
    if method == "GET" and parts.path.rstrip("/") == f"{DATA}/query":
        return 200, query(crm, parse_qs(parts.query)["q"][0])
    match = re.fullmatch(rf"{re.escape(DATA)}/sobjects/(\w+)(?:/(.+))?", parts.path)
    if not match:
        raise SalesforceRefused(404, "NOT_FOUND", "The requested resource does not exist")
    sobject, rest = match[1], match[2]
    table = crm.table_of(sobject)
    if method == "POST" and not rest:
        check(crm, sobject, body, None)
        record = crm.store(sobject, dict(body))
        _assign(crm, sobject, record)
        _show_field(crm, sobject, body)
        return 201, {"id": record["Id"], "success": True, "errors": []}
    if method == "PATCH" and rest and "/" in rest:
        return _upsert(crm, sobject, *rest.split("/", 1), body)
    if rest not in table:
        raise SalesforceRefused(404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible")  # fmt: skip
    if method == "PATCH":
        check(crm, sobject, body, rest)
        crm.change(sobject, table[rest], body)
        _assign(crm, sobject, table[rest])
        _mirror(crm, sobject, table[rest], body)
        return 204, None
    if method == "DELETE":
        gone = table.pop(rest)
        crm.deleted[sobject][rest] = {**gone, "MasterRecordId": None}
        crm.undo.append(lambda: (table.update({rest: gone}), crm.deleted[sobject].pop(rest)))
        return 204, None
    return 200, {"attributes": {"type": sobject}, **table[rest]}


def _upsert(
    crm: SalesforceState, sobject: str, field: str, value: str, body: Any
) -> tuple[int, Any]:
    if not crm.custom[sobject].get(field, {}).get("externalId"):
        raise SalesforceRefused(404, "NOT_FOUND", f"{field} is not an external id of {sobject}")
    value = unquote(value)
    found = crm.by_unique(sobject, field, value)
    if field in body:
        raise SalesforceRefused(
            400, "INVALID_FIELD", f"{field} may not be in the body as well", [field]
        )
    if found:
        check(crm, sobject, body, found[0]["Id"])
        crm.change(sobject, found[0], body)
        return 200, {"id": found[0]["Id"], "success": True, "created": False, "errors": []}
    check(crm, sobject, {**body, field: value}, None)
    record = crm.store(sobject, {**body, field: value})
    return 201, {"id": record["Id"], "success": True, "created": True, "errors": []}


def _show_field(crm: SalesforceState, sobject: str, body: Record) -> None:
    if sobject == "FieldPermissions" and body.get("PermissionsRead"):
        name = body["Field"].split(".")[1]
        crm.hidden.discard((body["SobjectType"], name))


def _assign(crm: SalesforceState, sobject: str, record: Record) -> None:
    """Let an active assignment rule assign a new or changed lead or case, unless the header turns
    it off; without the header it is on.

    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_autoassign.htm
    """
    wanted = crm.header("Sforce-Auto-Assign").upper() != "FALSE"
    if sobject in ("Lead", "Case") and crm.assign_to and wanted:
        record["OwnerId"] = crm.assign_to


def _mirror(crm: SalesforceState, sobject: str, record: Record, body: Record) -> None:
    """Copy what was written to a person's Account to the Contact that shows it."""
    contact = crm.tables["Contact"].get(record.get("PersonContactId") or "")
    if sobject == "Account" and contact:
        shown = {MIRRORED[name]: value for name, value in body.items() if name in MIRRORED}
        crm.change("Contact", contact, shown)
