"""Persons, organizations, deals and activities: v2."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.pipedrive.bodies import checked_body
from sandbox.pipedrive.paging import page_of_rows
from sandbox.pipedrive.presence import must_show
from sandbox.pipedrive.refused import PipedriveRefused
from sandbox.pipedrive.state import PipedriveState


def many_records(crm: PipedriveState, kind: str) -> Response:
    """List the records of an object, or create one."""
    with crm.lock:
        must_show(crm, kind)
        if request.method == "POST":
            body = checked_body(crm, kind, new=True)
            made = {"is_deleted": False, "add_time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
            record = {"id": crm.new_id(), **made, **defaults(crm, kind), **_placed(crm, body)}
            crm.records[kind][record["id"]] = record
            return make(200, {"success": True, "data": _show(crm, kind, record)})
        rows = [r for r in crm.records[kind].values() if not r["is_deleted"]]
        if "status" in request.args:
            rows = [r for r in rows if r.get("status") == request.args["status"]]
        for key in ("person_id", "deal_id", "org_id"):
            if key in request.args:
                rows = [r for r in rows if _refers(kind, r, key, int(request.args[key]))]
        if "lead_id" in request.args:
            rows = [r for r in rows if r.get("lead_id") == request.args["lead_id"]]
        return page_of_rows([_show(crm, kind, row) for row in rows])


def one_record(crm: PipedriveState, kind: str, number: int) -> Response:
    """Show, change or delete a record."""
    with crm.lock:
        must_show(crm, kind)
        record = crm.records[kind].get(number)
        if record is None or (record["is_deleted"] and request.method != "GET"):
            raise PipedriveRefused(404, f"{kind[:-1]} not found")
        if request.method == "DELETE":
            record["is_deleted"] = True
        if request.method == "PATCH":
            body = checked_body(crm, kind, new=False, record=record)
            custom = {**record.get("custom_fields", {}), **body.pop("custom_fields", {})}
            record.update(_placed(crm, body))
            if custom:
                record["custom_fields"] = custom
        return make(200, {"success": True, "data": _show(crm, kind, record)})


def _refers(kind: str, record: Record, key: str, number: int) -> bool:
    if kind == "activities" and key == "person_id":
        return any(p["person_id"] == number for p in record.get("participants") or ())
    return record.get(key) == number


def defaults(crm: PipedriveState, kind: str) -> Record:
    """Return the default values of a new record."""
    me = 1
    if kind == "deals":
        first = crm.stages[0]
        place = {"pipeline_id": first["pipeline_id"], "stage_id": first["id"]}
        return {"owner_id": me, **place, "status": "open"}
    return {"owner_id": me, "done": False} if kind == "activities" else {"owner_id": me}


def _placed(crm: PipedriveState, body: Record) -> Record:
    """Set pipeline and stage: a stage decides the pipeline; a pipeline alone means its first stage."""
    # https://developers.pipedrive.com/changelog/post/bug-fix-in-the-behavior-of-codepipeline_idcode-and-codestage_idcode-for-put-dealsid
    if "stage_id" in body:
        line = next(s["pipeline_id"] for s in crm.stages if s["id"] == body["stage_id"])
        return {**body, "pipeline_id": line}
    if "pipeline_id" in body:
        line = body["pipeline_id"]
        return {**body, "stage_id": next(s["id"] for s in crm.stages
                                         if s["pipeline_id"] == line)}  # fmt: skip
    return body


def _show(crm: PipedriveState, kind: str, record: Record) -> Record:
    shown = dict(record)
    if kind in ("persons", "organizations", "deals"):
        keys = crm.custom[kind]
        shown["custom_fields"] = {k: record.get("custom_fields", {}).get(k) for k in keys}
    source = shown.pop("source_lead_id", None)
    asked = "source_lead_id" in request.args.get("include_fields", "").split(",")
    if kind == "deals" and asked and crm.names_sources:
        shown["source_lead_id"] = source
    if kind == "activities" and record.get("participants"):
        shown["person_id"] = record["participants"][0]["person_id"]
    return shown
