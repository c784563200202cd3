"""Links between records, each with a type."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import Record
from sandbox.hubspot.batch_answers import batch_answer
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.state import HubSpotState

LINKS = {
    ("contacts", "companies"): {279, 1}, ("companies", "contacts"): {280, 2},
    ("deals", "contacts"): {3}, ("contacts", "deals"): {4},
    ("deals", "companies"): {341, 5}, ("companies", "deals"): {342, 6},
    ("meetings", "contacts"): {200}, ("contacts", "meetings"): {199},
    ("meetings", "companies"): {188}, ("companies", "meetings"): {187},
    ("meetings", "deals"): {212}, ("deals", "meetings"): {211},
}  # fmt: skip


def link_kind(crm: HubSpotState, kind: str, target_id: str, spec: Record) -> tuple[str, str, int]:
    """Return object, id and type of a new link; raise if the link is not allowed."""
    number = spec.get("associationTypeId")
    for (source, target), numbers in LINKS.items():
        if source == kind and number in numbers:
            if str(target_id) not in crm.records[target]:
                raise HubSpotRefused(
                    400, "VALIDATION_ERROR", f"{target} {target_id} does not exist"
                )
            if crm.portal.is_full(target, str(target_id), source):
                # Such limits are documented, but the words are a guess.
                # https://developers.hubspot.com/docs/api-reference/crm-associations-v4/guide
                raise HubSpotRefused(400, "VALIDATION_ERROR",
                              f"{target} {target_id} has reached its association limit")  # fmt: skip
            return target, str(target_id), number
    raise HubSpotRefused(
        400, "VALIDATION_ERROR", f"associationTypeId {number} is not valid for {kind}"
    )


def serve_links(crm: HubSpotState, source: str, target: str, action: str) -> Response:
    """Create, read or archive links."""
    with crm.lock:
        if (source, target) not in LINKS:
            raise HubSpotRefused(400, "VALIDATION_ERROR", f"no link from {source} to {target}")
        inputs = (request.get_json(silent=True) or {}).get("inputs") or []
        if action == "read":
            return _read_links(crm, source, target, inputs)
        results = []
        for item in inputs:
            a = str(item["from"]["id"])
            if a not in crm.records[source]:
                raise HubSpotRefused(404, "OBJECT_NOT_FOUND", f"{source} {a} does not exist")
            if action == "archive":
                _unlink(crm, source, a, target, item["to"])
            else:
                results.append(_link(crm, source, a, target, item))
        if action == "archive":
            return Response(status=204)
        return batch_answer(results, [], 201)


def _link(crm: HubSpotState, source: str, a: str, target: str, item: Record) -> Record:
    """Link a record to the target of one batch entry; return the entry's result."""
    b = str(item["to"]["id"])
    for spec in item["types"]:
        number = link_kind(crm, source, b, spec)[2]
        crm.connect(source, a, target, b, number)
    return {"fromObjectTypeId": source, "fromObjectId": int(a), "toObjectTypeId": target,
            "toObjectId": int(b), "labels": []}  # fmt: skip


def _unlink(crm: HubSpotState, source: str, a: str, target: str, others: list[Record]) -> None:
    for other in others:
        crm.links.pop((source, a, target, str(other["id"])), None)
        crm.links.pop((target, str(other["id"]), source, a), None)


def _read_links(crm: HubSpotState, source: str, target: str, inputs: list[Record]) -> Response:
    results, errors = [], []
    for item in inputs:
        a = str(item["id"])
        to = [
            {"toObjectId": int(key[3]), "associationTypes": []}
            for key in crm.links
            if key[:3] == (source, a, target)
        ]
        if to:
            results.append({"from": {"id": a}, "to": to})
        else:
            errors.append({"status": "error", "category": "OBJECT_NOT_FOUND", "subCategory":
                           "crm.associations.NO_ASSOCIATIONS_FOUND", "links": {}, "errors": [],
                           "message": f"No {target} is associated with {source} {a}.",
                           "context": {"fromObjectId": [a]}})  # fmt: skip
    return batch_answer(results, errors, 200)
