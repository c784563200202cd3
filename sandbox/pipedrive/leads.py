"""Leads, which only v1 has: https://developers.pipedrive.com/docs/api/v1/Leads"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from flask import Response, request

from sandbox.answers import Record, make
from sandbox.pipedrive.lead_bodies import LEAD_BODY, LEAD_CHANGES, checked_lead
from sandbox.pipedrive.presence import living_lead, must_show
from sandbox.pipedrive.state import PipedriveState


def many_leads(crm: PipedriveState) -> Response:
    """List the leads, or create one."""
    with crm.lock:
        must_show(crm, "leads")
        if request.method == "POST":
            body = checked_lead(crm, LEAD_BODY, {})
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
            lead: Record = {
                "id": str(uuid.uuid4()), "owner_id": 1, "creator_id": 1, "label_ids": [],
                "person_id": None, "organization_id": None, "source_name": "API",
                "origin": "API", "origin_id": None, "is_archived": False, "was_seen": False,
                "value": None, "expected_close_date": None, "source_deal_id": None,
                "visible_to": "3", "add_time": now, "update_time": now, "is_deleted": False,
                **body,
            }  # fmt: skip
            crm.leads[lead["id"]] = lead
            return make(201, {"success": True, "data": _show_lead(crm, lead)})
        rows = [r for r in crm.leads.values() if not (r["is_deleted"] or r["is_archived"])]
        for key in ("person_id", "organization_id", "owner_id"):
            if key in request.args:
                rows = [r for r in rows if r[key] == int(request.args[key])]
        start, limit = int(request.args.get("start", 0)), int(request.args.get("limit", 100))
        more = len(rows) > start + limit
        page = {"start": start, "limit": limit, "more_items_in_collection": more}
        page |= {"next_start": start + limit} if more else {}
        data = [_show_lead(crm, lead) for lead in rows[start : start + limit]]
        return make(200, {"success": True, "data": data or None,
                          "additional_data": {"pagination": page}})  # fmt: skip


def one_lead(crm: PipedriveState, lead_id: str) -> Response:
    """Show, change or delete a lead."""
    with crm.lock:
        must_show(crm, "leads")
        lead = living_lead(crm, lead_id, 404)
        if request.method == "DELETE":
            lead["is_deleted"] = True
            return make(200, {"success": True, "data": {"id": lead_id}})
        if request.method == "PATCH":
            lead.update(checked_lead(crm, LEAD_CHANGES, lead))
        return make(200, {"success": True, "data": _show_lead(crm, lead)})


def _show_lead(crm: PipedriveState, lead: Record) -> Record:
    """Return a lead for an answer: empty custom fields are omitted, and the options of a list are
    one text.
    """
    shown = {key: value for key, value in lead.items() if key != "is_deleted"}
    for key, field in crm.custom["deals"].items():
        if shown.get(key) is None:
            shown.pop(key, None)
        elif field["field_type"] == "set":
            shown[key] = ",".join(map(str, shown[key]))
    return shown
