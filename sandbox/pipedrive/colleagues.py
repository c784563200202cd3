"""Actions of people in Pipedrive's own pages: merges of records and conversions of leads."""

from __future__ import annotations

from datetime import UTC, datetime

from sandbox.answers import Record
from sandbox.pipedrive.custom import PARTS
from sandbox.pipedrive.presence import living_lead
from sandbox.pipedrive.records import defaults
from sandbox.pipedrive.state import PipedriveState


def merge(crm: PipedriveState, kind: str, winner: int, loser: int) -> None:
    """Merge two records as a person does: the winner's values take precedence."""
    # https://pipedrive.readme.io/docs/merging-two-persons
    with crm.lock:
        kept, gone = crm.records[kind][winner], crm.records[kind][loser]
        gone["is_deleted"] = True
        for key, value in gone.items():
            if key in ("emails", "phones"):
                there = {entry["value"] for entry in kept.get(key) or ()}
                more = [e for e in value if e["value"] not in there]
                kept[key] = [*(kept.get(key) or ()), *({**e, "primary": False} for e in more)]
            elif key == "custom_fields":
                own = {k: v for k, v in (kept.get(key) or {}).items() if v is not None}
                kept[key] = {**value, **own}
            elif kept.get(key) is None:
                kept[key] = value
        _repoint(crm, kind, winner, loser)


def _repoint(crm: PipedriveState, kind: str, winner: int, loser: int) -> None:
    own = {"persons": "person_id", "organizations": "org_id", "deals": "deal_id"}[kind]
    for row in [row for table in crm.records.values() for row in table.values()]:
        if row.get(own) == loser:
            row[own] = winner
        for entry in row.get("participants") or () if kind == "persons" else ():
            if entry["person_id"] == loser:
                entry["person_id"] = winner
    on_lead = {"persons": "person_id", "organizations": "organization_id"}.get(kind, "")
    for lead in crm.leads.values():
        if lead.get(on_lead) == loser:
            lead[on_lead] = winner
    for rows in crm.participants.values() if kind == "persons" else ():
        rows.update({row: winner for row, person in rows.items() if person == loser})


def convert(crm: PipedriveState, lead_id: str) -> int:
    """Convert a lead as a person does: a deal takes over all its contents.

    'Related entities (notes, files, emails, activities, ...) are transferred … the lead is marked
    as deleted.'
    https://developers.pipedrive.com/docs/api/v1/Leads#convertLeadToDeal
    """
    with crm.lock:
        lead = living_lead(crm, lead_id, 404)
        worth = lead["value"] or {}
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        deal: Record = {
            "id": crm.new_id(), "is_deleted": False, "add_time": now,
            **defaults(crm, "deals"), "title": lead["title"],
            "owner_id": lead["owner_id"], "person_id": lead["person_id"],
            "org_id": lead["organization_id"], "value": worth.get("amount"),
            "currency": worth.get("currency"),
            "expected_close_date": lead["expected_close_date"],
            "custom_fields": _custom_of_lead(crm, lead),
            "source_lead_id": lead_id,
        }  # fmt: skip
        crm.records["deals"][deal["id"]] = deal
        for activity in crm.records["activities"].values():
            if activity.get("lead_id") == lead_id:
                activity |= {"lead_id": None, "deal_id": deal["id"]}
        lead["is_deleted"] = True
        return int(deal["id"])


def _custom_of_lead(crm: PipedriveState, lead: Record) -> Record:
    """Return the custom fields of a lead in the form of v2."""
    fields: Record = {}
    for key, field in crm.custom["deals"].items():
        parts, value = PARTS.get(field["field_type"], {}), lead.get(key)
        if value is not None:
            whole = {one: value if one == "value" else lead.get(f"{key}_{one}") for one in parts}
            fields[key] = whole or value
    return fields
