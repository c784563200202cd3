"""Salesforce's records in the neutral shape."""

from __future__ import annotations

from datetime import datetime

from sandbox.answers import Record
from sandbox.salesforce.state import SalesforceState
from sandbox.view import Company, Contact, Deal, Meeting, View


def view(crm: SalesforceState) -> View:
    """Return the contents of the org."""
    users = {row["Id"]: row["Email"] for row in crm.tables["User"].values()}
    contacts = [
        Contact(
            r["Id"], r.get("Email"), r.get("Phone"), r.get("FirstName"), r.get("LastName"),
            r.get("AccountId"), users.get(r.get("OwnerId", "")),
        )
        for r in crm.tables["Contact"].values()
    ]  # fmt: skip
    companies = [
        Company(r["Id"], r["Name"], r.get("Website")) for r in crm.tables["Account"].values()
    ]
    roles = list(crm.tables["OpportunityContactRole"].values())
    deals = [
        Deal(
            r["Id"], r["Name"], r["StageName"],
            [x["ContactId"] for x in roles if x["OpportunityId"] == r["Id"]],
            r.get("AccountId"), r.get("meetergo_booking_id__c"), users.get(r.get("OwnerId", "")),
        )
        for r in crm.tables["Opportunity"].values()
    ]  # fmt: skip
    return View(contacts, companies, deals, [_meeting(crm, r, users) for r in
                                             crm.tables["Event"].values()])  # fmt: skip


SOBJECTS = {"contact": "Contact", "company": "Account", "deal": "Opportunity", "meeting": "Event"}


def fields_of(crm: SalesforceState, name: str, record_id: str) -> Record | None:
    """Return the fields of a record."""
    fields = crm.tables[SOBJECTS[name]][record_id]
    return {key: value for key, value in fields.items() if key not in ("Id", "CreatedDate")}


def _meeting(crm: SalesforceState, r: Record, users: dict[str, str]) -> Meeting:
    start, end = (datetime.fromisoformat(r[key]) for key in ("StartDateTime", "EndDateTime"))
    others = [
        x["RelationId"] for x in crm.tables["EventRelation"].values() if x["EventId"] == r["Id"]
    ]
    what = r.get("WhatId") or ""
    return Meeting(
        r["Id"], r.get("Subject"), start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        int((end - start).total_seconds() // 60),
        (r.get("Subject") or "").startswith("Cancelled") and r.get("ShowAs") == "Free",
        r.get("Location"), r.get("Description") or "",
        [who for who in (r.get("WhoId"),) if who] + others,
        what if what.startswith("006") else None, users.get(r.get("OwnerId", "")),
    )  # fmt: skip
