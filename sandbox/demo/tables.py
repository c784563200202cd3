"""The demo's tables: what became of each booking, and why some are not in a CRM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox.serve import Served

COLOURS = {"synced": "green", "skipped": "cyan", "failed": "red", "parked": "yellow", "retrying": "yellow", "due": "yellow"}  # fmt: skip
Booking = dict[str, Any]


def print_tables(
    console: Console,
    bookings: Sequence[Booking],
    connections: Sequence[dict[str, Any]],
    quarantined: int,
    crms: Mapping[str, Served],
) -> None:
    """Print a row for each booking with its state in each CRM, and the reasons."""
    table = Table("Booking", *(served.sandbox.title for served in crms.values()),
                  title="Every booking in every CRM")  # fmt: skip
    for booking in sorted(bookings, key=lambda item: str(item["start"])):
        cancelled = " (cancelled)" if booking["status"] == "cancelled" else ""
        by_crm = {delivery["provider"]: delivery for delivery in booking["deliveries"]}
        cells = [_cell(by_crm[name]) if name in by_crm else "" for name in crms]
        table.add_row(escape(booking["who"]) + cancelled, *cells)
    console.print(table)
    reasons = _reasons(bookings, {row["provider"]: row for row in connections})
    why = Table("Bookings", "State", "CRM", "Reason", title="Not in a CRM, and why")
    for (state, provider, reason), number in reasons.most_common():
        title = crms[provider].sandbox.title
        why.add_row(str(number), _coloured(state), title, escape(reason))
    if quarantined:
        why.add_row(str(quarantined), "[red]quarantined[/]", "",
                    "webhooks that were signed and could not be read: see the page Webhooks")  # fmt: skip
    if why.row_count:
        console.print(why)
    counts = Counter(item["state"] for booking in bookings for item in booking["deliveries"])
    states = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    calls = ", ".join(f"{s.sandbox.title} {s.sandbox.total_calls}" for s in crms.values())
    console.print(
        f"{counts.total()} deliveries: {states}; {quarantined} quarantined webhooks."
        f" Calls counted by the CRMs: {calls}.",
        highlight=False,
    )


def _cell(delivery: dict[str, Any]) -> str:
    links = len(delivery["links"])
    records = f" {links} records" if links and delivery["state"] == "synced" else ""
    return f"{_coloured(delivery['state'])}{records}"


def _coloured(state: str) -> str:
    colour = COLOURS.get(state, "white")
    return f"[{colour}]{state}[/]"


def _reasons(
    bookings: Sequence[Booking], connections: Mapping[str, dict[str, Any]]
) -> Counter[tuple[str, str, str]]:
    """Count the deliveries that are not synced by state, CRM and reason."""
    found: Counter[tuple[str, str, str]] = Counter()
    for booking in bookings:
        for delivery in booking["deliveries"]:
            state, provider = delivery["state"], delivery["provider"]
            if state == "synced":
                continue
            of_account = connections.get(provider, {})
            reason = delivery["error"] or of_account.get("error") or of_account.get("problem")
            found[state, provider, str(reason or "it waits for its turn")] += 1
    return found
