"""Several operations in one call: composite and graphs."""

from __future__ import annotations

import re
from typing import Any

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.salesforce.records import do
from sandbox.salesforce.references import filled
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.state import SalesforceState


def serve_composite(crm: SalesforceState) -> Response:
    """Run the parts of a composite call."""
    with crm.lock:
        body = request.get_json(silent=True) or {}
        parts = body.get("compositeRequest")
        if not isinstance(parts, list) or not 0 < len(parts) <= 25:
            raise SalesforceRefused(400, "PROCESSING_HALTED", "between 1 and 25 subrequests")
        inherited = {"accept", "authorization", "content-type"}
        if any(inherited & {h.lower() for h in part.get("httpHeaders", {})} for part in parts):
            raise SalesforceRefused(400, "INVALID_INPUT", "a subrequest inherits this header")
        if sum("/query" in part["url"] for part in parts) > 5:
            raise SalesforceRefused(400, "PROCESSING_HALTED", "at most 5 queries")
        if all(part["method"] == "GET" for part in parts):
            # A composite call with reads only is no write, though it is a POST.
            crm.calls[f"POST {request.path}"] -= 1
            crm.calls[f"POST {request.path}/query"] += 1
        _, answers = run_parts(crm, parts, bool(body.get("allOrNone")))
        return make(200, {"compositeResponse": answers})


def serve_graphs(crm: SalesforceState) -> Response:
    """Run graphs of parts; each graph is done completely or not at all."""
    with crm.lock:
        graphs = (request.get_json(silent=True) or {}).get("graphs")
        if not isinstance(graphs, list) or not 0 < len(graphs) <= 75:
            raise SalesforceRefused(400, "PROCESSING_HALTED", "between 1 and 75 graphs")
        if sum(len(graph["compositeRequest"]) for graph in graphs) > 500:
            raise SalesforceRefused(400, "LIMIT_EXCEEDED", "at most 500 nodes")
        answers, failed = [], 0
        for graph in graphs:
            parts = graph["compositeRequest"]
            if failed > 14:
                good, nodes = False, [_halted(part) for part in parts]
            else:
                _check_graph(parts)
                good, nodes = run_parts(crm, parts, True)
            failed += not good
            entry = {"graphId": graph["graphId"], "isSuccessful": good}
            answers.append({**entry, "graphResponse": {"compositeResponse": nodes}})
        return make(200, {"graphs": answers})


def _check_graph(parts: list[Record]) -> None:
    kinds = set()
    for part in parts:
        if "/query" in part["url"] or part["method"] not in ("GET", "POST", "PATCH", "DELETE"):
            raise SalesforceRefused(400, "INVALID_INPUT", "a graph takes record URLs only")
        unknown = set(part) - {"method", "url", "referenceId", "body"}
        if unknown:
            message = f"Unrecognized field {unknown.pop()!r}"
            raise SalesforceRefused(400, "JSON_PARSER_ERROR", message)
        kinds.add((part["method"], part["url"].split("/")[5]))
    if len(kinds) > 15:
        raise SalesforceRefused(400, "LIMIT_EXCEEDED", "at most 15 kinds of nodes")


def run_parts(
    crm: SalesforceState, parts: list[Record], all_or_none: bool
) -> tuple[bool, list[Record]]:
    """Run parts in order; return whether all succeeded, and their answers."""
    crm.undo.clear()
    answers: list[Record] = []
    made: dict[str, Any] = {}
    for number, part in enumerate(parts):
        name = part["referenceId"]
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise SalesforceRefused(400, "INVALID_INPUT", f"referenceId {name}")
        crm.part = part
        try:
            status, body = do(
                crm, part["method"], filled(part["url"], made), filled(part.get("body"), made)
            )
        except SalesforceRefused as error:
            answers.append(
                {"referenceId": name, "httpStatusCode": error.status, "body": error.body}
            )
            if all_or_none:
                _take_back(crm)
                halted = [_halted(p) for p in parts]
                halted[number] = answers[-1]
                return False, halted
            continue
        finally:
            crm.part = None
        made[name] = body
        answers.append({"referenceId": name, "httpStatusCode": status, "body": body})
    return all(answer["httpStatusCode"] < 300 for answer in answers), answers


def _halted(part: Record) -> Record:
    message = "The transaction was rolled back since another operation in the same transaction failed."  # fmt: skip
    body = [{"errorCode": "PROCESSING_HALTED", "message": message}]
    return {"referenceId": part["referenceId"], "httpStatusCode": 400, "body": body}


def _take_back(crm: SalesforceState) -> None:
    for undo in reversed(crm.undo):
        undo()
