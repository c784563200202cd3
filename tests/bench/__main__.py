"""`make bench`: measures and prints; nothing here is asserted."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from app.crm.schema import Directory, Pipeline, Stage
from app.domain.events import read_booking, read_event
from app.mapping.load import load_mapping
from app.mapping.plan import Planner
from app.security.signatures import sign_body
from app.services.rate_limits import room
from app.store.delivery_marking import mark_due
from app.store.engine import utcnow
from app.store.newest import keep_newest
from config.providers import load_providers
from config.settings import CONFIG_DIR
from crm_adapters.base import load_adapter
from crm_adapters.pipedrive.client import SEARCHES
from tests.apart import Apart
from tests.bridge import PROVIDERS, SECRET, Bridge, sample, wait_for
from tests.processes import running

POSTS = 1000
BACKLOG = {"hubspot": 10_000, "salesforce": 10_000, "pipedrive": 300}
"""The number of bookings. Pipedrive allows only about one search in a quarter of a second."""
SINGLE = 100
IDLE = 40
"""The number of bookings that come one at a time, each after the one before is in every CRM."""
QUIET = 0.4
"""After this many seconds without a call, a booking counts as written."""
PLANS = 1000


def main() -> None:
    """Print the table."""
    table = Table("what", "figure", title="Measured on this machine")
    with tempfile.TemporaryDirectory() as folder:
        _calls(table, Path(folder))
        _planning(table)
        _posts(table, Path(folder))
        _idle(table, Path(folder), "three CRMs at once", *PROVIDERS)
        for provider in PROVIDERS:
            _idle(table, Path(folder), "alone", provider)
        for provider in PROVIDERS:
            _backlog(table, Path(folder), provider)
    Console(width=110).print(table)


def _free_mail(name: str) -> dict[str, Any]:
    payload = sample(name)
    payload["attendees"][0]["email"] = "jane@gmail.com"
    return payload


def _calls(table: Table, folder: Path) -> None:
    bridge = Bridge(f"sqlite:///{folder}/calls.sqlite3").connect_all()
    for name in ("booking_created", "booking_rescheduled", "booking_cancelled"):
        bridge.sync(_free_mail(name))
        for provider in PROVIDERS:
            calls = bridge.sandbox(provider).calls
            table.add_row(f"{provider}: calls, {name}", str(sum(calls.values())))
            calls.clear()
    bridge.close()


def _planning(table: Table) -> None:
    """Measure the planning of a preview or a resync, without the CRM's answers."""
    shape = load_adapter(
        load_providers(CONFIG_DIR / "providers.yaml", {})[PROVIDERS[0]].adapter
    ).shape
    mapping = load_mapping(CONFIG_DIR / "mappings" / f"{PROVIDERS[0]}.yaml", PROVIDERS[0])
    stages = (Stage("s", "First"),)
    planner = Planner(mapping, shape, Directory(pipelines=(Pipeline("p", "Sales", stages),)))
    messages = (sample("booking_created", id=str(number)) for number in range(PLANS))
    bookings = [read_booking(read_event("default", message, utcnow())) for message in messages]
    started = time.monotonic()
    for booking in bookings:
        planner.plan(booking)
    table.add_row(f"planning {PLANS} bookings", f"{time.monotonic() - started:.2f} s")


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
    _fill(bridge, bookings)
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


def _fill(bridge: Bridge, bookings: int) -> None:
    """Store a backlog: each booking has another person, from a thousand companies."""
    base, cipher, now = sample("booking_created"), bridge.services.cipher, utcnow()
    for start in range(0, bookings, 500):
        with bridge.services.store.write() as session:
            for number in range(start, min(start + 500, bookings)):
                email = f"p{number}@corp{number % 1000}.example"
                person = {**base["attendees"][0], "email": email, "phone": None}
                message = {**base, "id": str(number), "attendees": [person]}
                booking = read_booking(read_event("default", message, now))
                mark_due(session, keep_newest(session, cipher, [booking], now), now, backlog=True)


def _posts(table: Table, folder: Path) -> None:
    with running(folder, f"sqlite:///{folder}/posts.sqlite3") as service:
        wait_for(service.ready, 60)
        bodies = [json.dumps(sample("booking_created", id=str(n))).encode() for n in range(POSTS)]
        with ThreadPoolExecutor(8) as pool:
            sessions = [requests.Session() for _ in range(8)]

            def post(item: tuple[int, bytes]) -> float:
                number, body = item
                headers = {
                    "Content-Type": "application/json",
                    "X-Meetergo-Signature": sign_body(SECRET, body),
                }
                begun = time.monotonic()
                url = f"{service.web}/webhooks/meetergo"
                answer = sessions[number % 8].post(url, data=body, headers=headers, timeout=30)
                answer.raise_for_status()
                return time.monotonic() - begun

            started = time.monotonic()
            times = sorted(pool.map(post, enumerate(bodies)))
            seconds = time.monotonic() - started
    table.add_row(f"{POSTS} webhooks by 8 clients, SQLite", f"{POSTS / seconds:.0f} a second")
    table.add_row("webhook, median / 99th of 100", f"{times[POSTS // 2] * 1000:.0f} / {times[POSTS * 99 // 100] * 1000:.0f} ms")  # fmt: skip


def _idle(table: Table, folder: Path, setting: str, *providers: str) -> None:
    """Measure the time from the 202 to the last record in a CRM, without the CRM's own work.

    The CRMs share this machine with the service: with three at once, its cores are the limit.
    """
    apart = {name: Apart(name) for name in providers}
    own = folder / f"idle-{'-'.join(providers)}"
    own.mkdir()
    waited: dict[str, list[float]] = {name: [] for name in providers}
    with running(own, f"sqlite:///{own}/idle.sqlite3", apart) as service:
        wait_for(service.ready, 60)
        for name in providers:
            service.connect(name)
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
    for name, seconds in waited.items():
        mine = sorted(seconds)
        figures = f"{mine[IDLE // 2] * 1000:.0f} / {mine[IDLE * 95 // 100] * 1000:.0f} ms"
        table.add_row(f"{name}, {setting}: 202 to last record, p50 / p95", figures)


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


if __name__ == "__main__":
    main()
