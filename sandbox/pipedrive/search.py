"""The search for records and leads, which may lag."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import Record
from sandbox.pipedrive.paging import page_of_hits
from sandbox.pipedrive.presence import must_show
from sandbox.pipedrive.refused import unfit
from sandbox.pipedrive.state import PipedriveState


def search_records(crm: PipedriveState, kind: str) -> Response:
    """Search records by a term in some fields."""
    with crm.lock:
        must_show(crm, kind)
        term = request.args.get("term", "").lower()
        fields = request.args.get("fields", "").split(",")
        exact = request.args.get("exact_match") == "true"
        if len(term) < (1 if exact else 2):
            raise unfit("term: is too short")
        items = []
        for record in crm.records[kind].values():
            # A deleted record stays in the index for a while, without a mark.
            if record["id"] in crm.search_lag:
                continue
            texts = [text.lower() for name in fields for text in _texts(record, name)]
            if any(term == text if exact else term in text for text in texts):
                items.append({"result_score": 1.0, "item": _item(kind, record)})
        return page_of_hits(items)


def _texts(record: Record, name: str) -> list[str]:
    if name in ("email", "phone"):
        return [entry["value"] for entry in record.get(f"{name}s") or ()]
    if name == "custom_fields":
        return [str(v) for v in record.get("custom_fields", {}).values() if v is not None]
    value = record.get(name)
    return [value] if isinstance(value, str) else []


def _item(kind: str, record: Record) -> Record:
    item = {"id": record["id"], "type": kind[:-1], "name": record.get("name")}
    if kind == "persons":
        item["emails"] = [entry["value"] for entry in record.get("emails") or ()]
        item["phones"] = [entry["value"] for entry in record.get("phones") or ()]
        org = record.get("org_id")
        item["organization"] = {"id": org} if org else None
    return item


def search_leads(crm: PipedriveState) -> Response:
    """Search leads by a term in some fields."""
    with crm.lock:
        must_show(crm, "leads")
        term = request.args.get("term", "").lower()
        exact = request.args.get("exact_match") == "true"
        fields = request.args.get("fields", "title,custom_fields").split(",")
        if set(fields) - {"title", "notes", "custom_fields"}:
            raise unfit("fields: is not allowed")
        if len(term) < (1 if exact else 2):
            raise unfit("term: is too short")
        items = []
        for lead in crm.leads.values():
            texts = [lead["title"]] if "title" in fields else []
            if "custom_fields" in fields:
                texts += [str(lead[key]) for key in crm.custom["deals"] if lead.get(key)]
            found = any(term == t.lower() if exact else term in t.lower() for t in texts)
            if found and lead["id"] not in crm.search_lag:
                items.append({"result_score": 1.0, "item": {"id": lead["id"], "type": "lead",
                                                            "title": lead["title"]}})  # fmt: skip
        return page_of_hits(items)
