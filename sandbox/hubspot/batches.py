"""Batches of records: create, read, update, upsert, archive."""

from __future__ import annotations

import re
from typing import Any

from flask import Response, request

from sandbox.answers import Record
from sandbox.hubspot.batch_answers import batch_answer
from sandbox.hubspot.checks import checked_properties
from sandbox.hubspot.records import insert, show
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.state import HubSpotState
from sandbox.hubspot.tables import by_email, by_unique, erase, table_of


def serve_batch(crm: HubSpotState, kind: str, action: str) -> Response:
    """Do one action with all records of a batch."""
    with crm.lock:
        table = table_of(crm, kind)
        body = request.get_json(silent=True)
        inputs = body.get("inputs") if isinstance(body, dict) else None
        if not isinstance(inputs, list) or not inputs:
            raise HubSpotRefused(
                400, "VALIDATION_ERROR", "Invalid input JSON: inputs may not be empty"
            )
        if len(inputs) > 100:
            raise HubSpotRefused(400, "VALIDATION_ERROR", "Batch inputs may not exceed 100")
        actions = {"create": _create, "read": _read, "update": _update,
                   "upsert": _upsert, "archive": _archive}  # fmt: skip
        if action not in actions:
            raise HubSpotRefused(404, "OBJECT_NOT_FOUND", "resource not found")
        return actions[action](crm, kind, table, inputs, body)


def _create(
    crm: HubSpotState, kind: str, table: Any, inputs: list[Record], body: Record
) -> Response:
    traced = all(item.get("objectWriteTraceId") for item in inputs)
    if len({item.get("objectWriteTraceId") for item in inputs}) < len(inputs):
        traced = False
    results, errors, undo = [], [], []
    for item in inputs:
        try:
            record = insert(crm, kind, item)
            undo.append(record["id"])
            results.append(show(crm, record))
        except HubSpotRefused as error:
            if not traced:
                _take_back(crm, kind, undo)
                raise
            errors.append(_told(error, item["objectWriteTraceId"]))
    return batch_answer(results, errors, 201)


def _take_back(crm: HubSpotState, kind: str, ids: list[str]) -> None:
    for record_id in ids:
        erase(crm, kind, record_id)


def _read(crm: HubSpotState, kind: str, table: Any, inputs: list[Record], body: Record) -> Response:
    key = body.get("idProperty")
    if key and key != "email" and not crm.schema[kind].get(key, {}).get("hasUniqueValue"):
        raise HubSpotRefused(400, "VALIDATION_ERROR", f"{key} is not a unique property")
    results, missing = [], []
    for item in inputs:
        wanted = str(item["id"])
        found = _find(crm, kind, key, wanted)
        if found:
            results.append(show(crm, found, body.get("properties")))
        else:
            missing.append(wanted)
    return batch_answer(results, _missing(kind, missing), 200)


def _update(
    crm: HubSpotState, kind: str, table: Any, inputs: list[Record], body: Record
) -> Response:
    ids = [str(item["id"]) for item in inputs]
    if len(set(ids)) < len(ids):
        raise HubSpotRefused(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
    known = [item for item in inputs if str(item["id"]) in table]
    checked = [
        (
            table[str(i["id"])],
            checked_properties(crm, kind, i.get("properties") or {}, False, str(i["id"])),
        )
        for i in known
    ]
    for record, properties in checked:
        record["properties"].update(properties)
        crm.note(kind, record)
    missing = [item for item in ids if item not in table]
    return batch_answer([show(crm, r) for r, _ in checked], _missing(kind, missing), 200)


def _upsert(
    crm: HubSpotState, kind: str, table: Any, inputs: list[Record], body: Record
) -> Response:
    keys = {item.get("idProperty") for item in inputs}
    if kind == "contacts" and keys != {"email"}:
        raise HubSpotRefused(400, "VALIDATION_ERROR", f"idProperty {keys} is not usable here")
    ids = [item["id"].lower() for item in inputs]
    if len(set(ids)) < len(ids):
        raise HubSpotRefused(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
    results = []
    for item in inputs:
        given = {**(item.get("properties") or {}), "email": item["id"]}
        record = by_email(crm, item["id"].lower())
        if record:
            record["properties"].update(checked_properties(crm, kind, given, False, record["id"]))
            crm.note(kind, record)
        new = record is None
        record = record or insert(crm, kind, {"properties": given})
        results.append({**show(crm, record), "new": new})
    return batch_answer(results, [], 200)


def _archive(
    crm: HubSpotState, kind: str, table: Any, inputs: list[Record], body: Record
) -> Response:
    for item in inputs:
        erase(crm, kind, str(item["id"]))
    return Response(status=204)


def _find(crm: HubSpotState, kind: str, key: str | None, wanted: str) -> Record | None:
    if not key:
        return crm.records[kind].get(wanted)
    if key == "email":
        return by_email(crm, wanted)
    return next(iter(by_unique(crm, kind, key, wanted)), None)


def _told(error: HubSpotRefused, trace: str) -> Record:
    context = {"objectWriteTraceId": [trace]}
    existing = re.search(r"Existing ID: (\d+)|\. ?(\d+) already has", error.message)
    if existing:
        context["existingId"] = [existing[1] or existing[2]]
    context.update({k: v for k, v in error.more.get("context", {}).items()})
    return {"status": "error", "category": error.category, "message": error.message,
            "context": context, "errors": error.more.get("errors", []), "links": {}}  # fmt: skip


def _missing(kind: str, ids: list[str]) -> list[Record]:
    if not ids:
        return []
    return [{"status": "error", "category": "OBJECT_NOT_FOUND", "links": {}, "errors": [],
             "message": f"Could not get some {kind} objects, they may be deleted or not exist.",
             "context": {"ids": ids}}]  # fmt: skip
