"""Pipedrive's records in the neutral shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sandbox.answers import Record
from sandbox.pipedrive.state import PipedriveState
from sandbox.view import Company, Contact, Deal, Meeting, View, plain


def view(crm: PipedriveState) -> View:
    """Return the contents of the company account."""
    users = {user.id: user.email for user in crm.user_rows()}
    stages = {stage["id"]: stage["name"] for stage in crm.stages}
    live = {
        kind: [r for r in rows.values() if not r["is_deleted"]]
        for kind, rows in crm.records.items()
    }
    contacts = [
        Contact(
            str(r["id"]), _first(r.get("emails")), _first(r.get("phones")), None, r["name"],
            _id(r.get("org_id")), users.get(r["owner_id"]),
        )
        for r in live["persons"]
    ]  # fmt: skip
    companies = [Company(str(r["id"]), r["name"], r["name"]) for r in live["organizations"]]
    deals = [
        Deal(
            str(r["id"]), r["title"], stages[r["stage_id"]],
            [str(p) for p in (r.get("person_id"),
                              *crm.participants.get(r["id"], {}).values()) if p],
            _id(r.get("org_id")), _custom(crm, "deals", r, "meetergo_booking_id"),
            users.get(r["owner_id"]),
        )
        for r in live["deals"]
    ]  # fmt: skip
    return View(contacts, companies, deals, [_meeting(r, users) for r in
                                             live["activities"]])  # fmt: skip


KINDS = {"contact": "persons", "company": "organizations", "deal": "deals", "meeting": "activities"}
HIDDEN = ("id", "is_deleted", "custom_fields", "participants")


def fields_of(crm: PipedriveState, name: str, record_id: str) -> Record | None:
    """Return the fields of a record, custom ones by their names."""
    kind, record = KINDS[name], crm.records[KINDS[name]][int(record_id)]
    custom = record.get("custom_fields") or {}
    own = {field["field_name"]: custom.get(code) for code, field in crm.custom[kind].items()}
    return {**{key: value for key, value in record.items() if key not in HIDDEN}, **own}


def _custom(crm: PipedriveState, kind: str, record: Record, name: str) -> Any:
    keys = [k for k, f in crm.custom[kind].items() if f["field_name"] == name]
    return record.get("custom_fields", {}).get(keys[0]) if keys else None


def _meeting(r: Record, users: dict[int, str]) -> Meeting:
    start = datetime.fromisoformat(f"{r['due_date']}T{r['due_time']}").replace(tzinfo=UTC)
    hours, minutes = (int(part) for part in r["duration"].split(":")[:2])
    place = (r.get("location") or {}).get("value")
    return Meeting(
        str(r["id"]), r["subject"], start.strftime("%Y-%m-%dT%H:%M:%SZ"), hours * 60 + minutes,
        bool(r["done"]) and r["subject"].startswith("Cancelled"), place,
        plain(r.get("note") or ""), [str(p["person_id"]) for p in r.get("participants") or ()],
        _id(r.get("deal_id")), users.get(r["owner_id"]),
    )  # fmt: skip


def _first(entries: list[Record] | None) -> str | None:
    return entries[0]["value"] if entries else None


def _id(number: int | None) -> str | None:
    return str(number) if number else None
