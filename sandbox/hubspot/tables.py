"""The objects, and how their records are found and removed."""

from __future__ import annotations

from sandbox.answers import Record
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.state import HubSpotState
from sandbox.index import Index


def table_of(crm: HubSpotState, kind: str) -> dict[str, Record]:
    """Return the records of an object; raise if the account hides it."""
    if crm.account.missing.get(kind) == 403:
        message = "This app hasn't been granted all required scopes to make this call."
        raise HubSpotRefused(403, "MISSING_SCOPES", message)
    if kind in crm.account.missing:
        raise HubSpotRefused(404, "OBJECT_NOT_FOUND", f"Unable to infer object type from: {kind}")
    if kind not in crm.records:
        raise HubSpotRefused(400, "VALIDATION_ERROR", f"Unable to infer object type from: {kind}")
    return crm.records[kind]


def by_email(crm: HubSpotState, email: str) -> Record | None:
    """Return the contact with this address, also as an additional one."""
    return next(iter(crm.emails.find(crm.records["contacts"], email)), None)


def by_unique(crm: HubSpotState, kind: str, name: str, value: str) -> list[Record]:
    """Return the records with this value in a property, usually a unique one."""
    index = crm.unique.get((kind, name))
    if index is None:
        index = Index(lambda r: [r["properties"].get(name, "")])
        for record in crm.records[kind].values():
            index.note(record["id"], record)
        crm.unique[kind, name] = index
    return index.find(crm.records[kind], value)


def erase(crm: HubSpotState, kind: str, record_id: str) -> None:
    """Remove a record with its links."""
    crm.records[kind].pop(record_id, None)
    for key in [k for k in crm.links if (kind, record_id) in (k[:2], k[2:])]:
        del crm.links[key]
