"""HubSpot's records in the neutral shape."""

from __future__ import annotations

from datetime import datetime

from sandbox.answers import Record
from sandbox.hubspot.state import HubSpotState
from sandbox.view import Company, Contact, Deal, Meeting, View, plain


def view(crm: HubSpotState) -> View:
    """Return the contents of the portal."""
    labels = {s["id"]: s["label"] for p in crm.pipelines for s in p["stages"]}
    contacts = [
        Contact(
            r["id"], p.get("email"), p.get("phone"), p.get("firstname") or None,
            p.get("lastname") or None,
            next(iter(crm.linked("contacts", r["id"], "companies")), None),
            owner_email(crm, p),
        )
        for r in crm.records["contacts"].values() for p in (r["properties"],)
    ]  # fmt: skip
    companies = [
        Company(r["id"], r["properties"].get("name"), r["properties"].get("domain"))
        for r in crm.records["companies"].values()
    ]
    deals = [
        Deal(
            r["id"], p.get("dealname"), labels.get(p.get("dealstage", "")),
            crm.linked("deals", r["id"], "contacts"),
            next(iter(crm.linked("deals", r["id"], "companies")), None),
            p.get("meetergo_booking_id"), owner_email(crm, p),
        )
        for r in crm.records["deals"].values() for p in (r["properties"],)
    ]  # fmt: skip
    return View(contacts, companies, deals, [_meeting(crm, r) for r in
                                             crm.records["meetings"].values()])  # fmt: skip


KINDS = {"contact": "contacts", "company": "companies", "deal": "deals", "meeting": "meetings"}


def fields_of(crm: HubSpotState, name: str, record_id: str) -> Record | None:
    """Return the properties of a record."""
    properties: Record = crm.records[KINDS[name]][record_id]["properties"]
    return properties


def owner_email(crm: HubSpotState, properties: Record) -> str | None:
    """Return the address of a record's owner."""
    by_id = {user.id: user.email for user in crm.owner_rows()}
    return by_id.get(properties.get("hubspot_owner_id", ""))


def _meeting(crm: HubSpotState, record: Record) -> Meeting:
    p = record["properties"]
    start = datetime.fromisoformat(p["hs_meeting_start_time"])
    end = datetime.fromisoformat(p["hs_meeting_end_time"])
    assert p["hs_timestamp"] == p["hs_meeting_start_time"]  # nosec B101  # noqa: S101 - where it is shown
    return Meeting(
        record["id"], p.get("hs_meeting_title"), start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        int((end - start).total_seconds() // 60), p.get("hs_meeting_outcome") == "CANCELED",
        p.get("hs_meeting_external_url") or None, plain(p.get("hs_meeting_body", "")),
        crm.linked("meetings", record["id"], "contacts"),
        next(iter(crm.linked("meetings", record["id"], "deals")), None),
        owner_email(crm, p),
    )  # fmt: skip
