"""How long a backlog takes under the limits of each CRM, beside one booking at a time."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table

from app.domain.events import read_booking, read_event
from app.services.rate_limits import room
from app.store.delivery_marking import mark_due
from app.store.engine import utcnow
from app.store.newest import keep_newest
from crm_adapters.pipedrive.client import SEARCHES
from tests.apart import Apart
from tests.bridge import PROVIDERS, Bridge, sample

BACKLOG = {"hubspot": 10_000, "salesforce": 10_000, "pipedrive": 300}
"""The number of bookings. Pipedrive allows only about one search in a quarter of a second."""
SINGLE = 100


def measure(table: Table, folder: Path) -> None:
    """Fill in the rows for each CRM."""
    for provider in PROVIDERS:
        _backlog(table, folder, provider)


def _backlog(table: Table, folder: Path, provider: str) -> None:
    """Measure a backlog under the CRM's own limits, in batches and one booking at a time."""
    number = BACKLOG.get(provider, SINGLE)
    calls, seconds, refused = _drain(folder / f"{provider}-batches", provider, number)
    row = f"{calls} calls in {seconds:.1f} s, {refused} refused"
    table.add_row(f"{provider}: backlog of {number} bookings, one worker", row)
    if provider == "pipedrive":
        # There are no batches: its limit is on searches, two for a new person with a company.
        floor = 2 * number / room(SEARCHES.calls, 0.2, backlog=True) * SEARCHES.seconds
        table.add_row(
            "pipedrive: its limit's floor for that", f"{floor:.1f} s ({seconds / floor - 1:+.1%})"
        )
    calls, seconds, _ = _drain(folder / f"{provider}-single", provider, SINGLE, single=True)
    row = f"{calls} calls in {seconds:.1f} s"
    table.add_row(f"{provider}: {SINGLE} bookings, one job and single calls for each", row)


def _drain(
    folder: Path, provider: str, bookings: int, single: bool = False
) -> tuple[int, float, int]:
    """Sync a backlog into a sandbox in its own process; return calls, seconds and refusals."""
    folder.mkdir()
    crm = Apart(provider)
    bridge = Bridge(f"sqlite:///{folder}/a.sqlite3", (provider,), served={provider: crm})
    bridge.connect_all()
    fill(bridge, bookings)
    before, started = crm.told(), time.monotonic()
    if single:
        adapter = type(bridge.drainer.warm(1).adapter)
        size, adapter.batch_size = adapter.batch_size, 1
        bridge.settle(3600)
        adapter.batch_size = size
    else:
        bridge.settle(3600)
    seconds, after = time.monotonic() - started, crm.told()
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    bridge.close()
    return after["total"] - before["total"], seconds, after["refused"]


def fill(bridge: Bridge, bookings: int, mark: str = "") -> None:
    """Store a backlog: each booking has another person, from a thousand companies.

    `mark`: begins the ids and the people's addresses.
    """
    base, cipher, now = sample("booking_created"), bridge.services.cipher, utcnow()
    for start in range(0, bookings, 500):
        with bridge.services.store.write() as session:
            for number in range(start, min(start + 500, bookings)):
                email = f"{mark}p{number}@corp{number % 1000}.example"
                person = {**base["attendees"][0], "email": email, "phone": None}
                message = {**base, "id": f"{mark}{number}", "attendees": [person]}
                booking = read_booking(read_event("default", message, now))
                mark_due(session, keep_newest(session, cipher, [booking], now), now, backlog=True)
