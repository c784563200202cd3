"""The people of a deal: v1."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import make
from sandbox.pipedrive.presence import must_live
from sandbox.pipedrive.refused import PipedriveRefused
from sandbox.pipedrive.state import PipedriveState


def serve_participants(crm: PipedriveState, deal_id: int) -> Response:
    """List the other people of a deal, or add one."""
    with crm.lock:
        must_live(crm, "deals", deal_id)
        rows = crm.participants.setdefault(deal_id, {})
        if request.method == "POST":
            person = (request.get_json(silent=True) or {}).get("person_id")
            must_live(crm, "persons", person)
            rows[crm.new_id()] = person
            return make(201, {"success": True, "data": {}})
        data = [{"id": row, "person_id": {"value": person}} for row, person in rows.items()]
        return make(200, {"success": True, "data": data})


def drop_participant(crm: PipedriveState, deal_id: int, row_id: int) -> Response:
    """Remove a person from a deal."""
    with crm.lock:
        if crm.participants.get(deal_id, {}).pop(row_id, None) is None:
            raise PipedriveRefused(404, "participant not found")
        return make(200, {"success": True, "data": {"id": row_id}})
