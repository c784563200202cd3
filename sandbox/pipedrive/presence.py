"""Checks for existence: objects and keys that the account shows, records that are not deleted."""

from __future__ import annotations

from sandbox.answers import Record
from sandbox.pipedrive.refused import PipedriveRefused
from sandbox.pipedrive.schema import BODIES
from sandbox.pipedrive.state import PipedriveState


def must_show(crm: PipedriveState, kind: str) -> None:
    """Raise if the account hides an object."""
    status = crm.account.missing.get(kind)
    if status:
        raise PipedriveRefused(status, "Scope and URL mismatch" if status == 403 else "Not found")


def must_live(crm: PipedriveState, kind: str, number: int) -> None:
    """Raise if a record does not exist or is deleted."""
    record = crm.records[kind].get(number)
    if record is None or record["is_deleted"]:
        raise PipedriveRefused(400, f"{kind} {number} does not exist or is deleted")


def living_lead(crm: PipedriveState, lead_id: str, status: int) -> Record:
    """Return a lead that is neither deleted nor converted; `status`: of the error if there is none."""
    lead = crm.leads.get(lead_id)
    if lead is None or lead["is_deleted"]:
        raise PipedriveRefused(status, "The lead was not found")
    return lead


def types_of(crm: PipedriveState, kind: str, use: str) -> dict[str, type]:
    """Return the keys of an object's body with their types, for one use of `account.USES`."""
    there = {**BODIES[kind], **crm.account.extra.get(kind, {})}
    return {key: type_ for key, type_ in there.items() if crm.account.shows(kind, key, use)}
