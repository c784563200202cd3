"""Actions of people in HubSpot's own pages: merges of records."""

from __future__ import annotations

from sandbox.hubspot.state import HubSpotState


def merge(crm: HubSpotState, kind: str, winner: str, loser: str) -> str:
    """Merge two records as a person does: the remaining record has a new id."""
    with crm.lock:
        new = str(crm.new_id())
        record = crm.records[kind].pop(winner)
        crm.records[kind].pop(loser)
        record["id"] = new
        crm.records[kind][new] = record
        crm.note(kind, record)
        _relink(crm, kind, (winner, loser), new)
        for old in (winner, loser):
            crm.merged[kind, old] = new
        return new


def _relink(crm: HubSpotState, kind: str, old: tuple[str, str], new: str) -> None:
    """Move the links of two records to a new one."""
    for key in list(crm.links):
        source, a, target, b = key
        a = new if source == kind and a in old else a
        b = new if target == kind and b in old else b
        kinds = crm.links.pop(key)
        crm.links.setdefault((source, a, target, b), set()).update(kinds)
