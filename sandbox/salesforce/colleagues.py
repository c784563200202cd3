"""Actions of people in Salesforce's own pages: conversions of leads and merges of records."""

from __future__ import annotations

from sandbox.salesforce.state import SalesforceState


def convert(crm: SalesforceState, lead_id: str) -> str:
    """Convert a lead as a person does: it is read-only afterwards."""
    with crm.lock:
        lead = crm.tables["Lead"][lead_id]
        kept = {k: lead.get(k) for k in ("FirstName", "LastName", "Email", "Phone", "OwnerId")}
        contact = crm.store("Contact", {k: v for k, v in kept.items() if v})
        lead |= {"IsConverted": True, "ConvertedContactId": contact["Id"]}
        return str(contact["Id"])


def merge(crm: SalesforceState, sobject: str, winner: str, loser: str) -> None:
    """Merge two records as a person does: the loser goes to the recycle bin."""
    with crm.lock:
        gone = crm.tables[sobject].pop(loser)
        crm.deleted[sobject][loser] = {**gone, "MasterRecordId": winner}
        for table in crm.tables.values():
            for row in table.values():
                row.update({k: winner for k, v in row.items() if v == loser})
