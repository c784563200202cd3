"""How long a booking is on its way from its webhook to the last record in a CRM."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.table import Table
from sqlalchemy import create_engine, select

from app.store.models import BookingRow, ConnectionRow, DeliveryRow, EventRow
from app.store.states import DeliveryState
from tests.apart import Apart
from tests.bench.load import Clients
from tests.bridge import PROVIDERS, sample, wait_for
from tests.processes import Running, running

IDLE = 40
"""The number of bookings that come one at a time, each after the one before is in every CRM."""
QUIET = 0.4
"""After this many seconds without a call, a booking counts as written."""
STEADY = ("hubspot", "salesforce")
"""The CRMs whose own limits let through what comes at the rate below; Pipedrive's searches do not."""
RATE, SECONDS = 20, 30


def measure(table: Table, folder: Path) -> None:
    """Fill in the rows: all CRMs at once, then each alone, then many bookings a second."""
    _idle(table, folder, "three CRMs at once", *PROVIDERS)
    for provider in PROVIDERS:
        _idle(table, folder, "alone", provider)
    _steady(table, folder)


def _steady(table: Table, folder: Path) -> None:
    """Measure the time from a webhook to the end of its sync, at a steady rate."""
    own = folder / "steady"
    own.mkdir()
    url = f"sqlite:///{own}/steady.sqlite3"
    with running(own, url, {name: Apart(name) for name in STEADY}) as service:
        wait_for(service.ready, 60)
        for name in STEADY:
            service.connect(name)
        Clients(service.web).pace(RATE, SECONDS)
        times = (
            select(ConnectionRow.provider, DeliveryRow.updated_at, EventRow.received_at)
            .join(DeliveryRow, DeliveryRow.connection_id == ConnectionRow.id)
            .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
            .join(EventRow, EventRow.booking_key == BookingRow.key)
            .where(DeliveryRow.state == DeliveryState.SYNCED)
        )
        engine = create_engine(url)

        def rows() -> list[tuple[str, datetime, datetime]]:
            with engine.connect() as connection:
                return [(name, end, begin) for name, end, begin in connection.execute(times)]

        wait_for(lambda: len(rows()) == RATE * SECONDS * len(STEADY), 120)
        for name in STEADY:
            seconds = [(end - begin).total_seconds() for who, end, begin in rows() if who == name]
            words = f"{name}: webhook to synced at {RATE} bookings a second, with the CRM's time"
            table.add_row(f"{words}, p50 / p95", told(seconds))
        engine.dispose()


def _idle(table: Table, folder: Path, setting: str, *providers: str) -> None:
    """Measure the time from the 202 to the last record in a CRM, without the CRM's own work.

    The CRMs share this machine with the service: with three at once, its cores are the limit.
    """
    apart = {name: Apart(name) for name in providers}
    own = folder / f"idle-{'-'.join(providers)}"
    own.mkdir()
    with running(own, f"sqlite:///{own}/idle.sqlite3", apart) as service:
        wait_for(service.ready, 60)
        for name in providers:
            service.connect(name)
        waited = travel_times(service, apart)
    for name, seconds in waited.items():
        table.add_row(f"{name}, {setting}: 202 to last record, p50 / p95", told(seconds))


def told(seconds: list[float]) -> str:
    """Return the median and the 95th percentile, in words."""
    mine = sorted(seconds)
    return f"{mine[len(mine) // 2] * 1000:.0f} / {mine[len(mine) * 95 // 100] * 1000:.0f} ms"


def travel_times(service: Running, apart: dict[str, Apart]) -> dict[str, list[float]]:
    """Post bookings one at a time; return for each CRM the seconds from 202 to its last record."""
    waited: dict[str, list[float]] = {name: [] for name in apart}
    for number in range(IDLE):
        before = {name: len(crm.times()) for name, crm in apart.items()}
        base = sample("booking_created", id=f"idle-{number}")
        person = {**base["attendees"][0], "email": f"p{number}@corp{number}.example"}
        service.post({**base, "attendees": [person]}).raise_for_status()
        began = time.monotonic()
        # A check of the CRMs costs machine time, so none runs before the sync can be over.
        time.sleep(2 * QUIET)
        wait_for(partial(_quiet_since, apart, before, began), 60)
        for name, crm in apart.items():
            calls = [call for call in crm.times() if call[1] > began]
            waited[name].append(max(end for _, end in calls) - began - _busy(calls, began))
    return waited


def _quiet_since(apart: dict[str, Apart], before: dict[str, int], began: float) -> bool:
    """Whether every CRM was called, and then not again for a while."""
    for name, crm in apart.items():
        calls = crm.times()
        if len(calls) == before[name] or time.monotonic() - max(c[1] for c in calls) < QUIET:
            return False
    return time.monotonic() > began


def _busy(calls: list[tuple[float, float]], since: float) -> float:
    """Return the seconds during which at least one of these calls was in progress."""
    total, reached = 0.0, since
    for began, ended in sorted(calls):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total
