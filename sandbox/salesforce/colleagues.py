"""What people do in Salesforce's own pages: they convert leads and merge records."""

from __future__ import annotations

from sandbox.salesforce.state import SalesforceState


def convert(crm: SalesforceState, lead_id: str) -> str:
    """Do what a person does who converts a lead: it is read-only from then on."""
    with crm.lock:
        lead = crm.tables["Lead"][lead_id]
        kept = {k: lead.get(k) for k in ("FirstName", "LastName", "Email", "Phone", "OwnerId")}
        contact = crm.store("Contact", {k: v for k, v in kept.items() if v})
        lead |= {"IsConverted": True, "ConvertedContactId": contact["Id"]}
        return str(contact["Id"])


def merge(crm: SalesforceState, sobject: str, winner: str, loser: str) -> None:
    """Do what a person does who merges two records: the loser goes to the recycle bin."""
    with crm.lock:
        gone = crm.tables[sobject].pop(loser)
        crm.deleted[sobject][loser] = {**gone, "MasterRecordId": winner}
        for table in crm.tables.values():
            for row in table.values():
                row.update({k: winner for k, v in row.items() if v == loser})
