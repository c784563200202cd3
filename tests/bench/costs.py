"""What single things cost: calls to a CRM, a plan, a page, a command, a start, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from app.crm.schema import Directory, Pipeline, Stage
from app.domain.events import read_booking, read_event
from app.mapping.load import load_mapping
from app.mapping.plan import Planner
from app.store.engine import utcnow
from config.providers import load_providers
from config.settings import CONFIG_DIR
from crm_adapters.base import load_adapter
from tests.bench.backlog import fill
from tests.bridge import KEY, NO_REDIS, PROVIDERS, Bridge, sample

PLANS = 1000
BOOKINGS = 10_000
"""Bookings in the database while pages and memory are measured."""
PAGES = ("/", "/events", "/mappings", "/sources", "/api/v1/bookings", "/metrics")
TIMES = 5
ROOT = Path(__file__).parent.parent.parent


def measure(table: Table, folder: Path) -> None:
    """Fill in the rows."""
    _calls(table, folder)
    _planning(table)
    _pages(table, folder)
    _starts(table, folder)


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


def _pages(table: Table, folder: Path) -> None:
    """Measure each page at the server, and the memory of a process that worked off all bookings."""
    bridge = Bridge(f"sqlite:///{folder}/pages.sqlite3", ("salesforce",)).connect_all()
    fill(bridge, BOOKINGS)
    bridge.settle(3600)
    key = {"Authorization": f"Bearer {bridge.key}"}
    for page in PAGES:
        seconds = _median(lambda page=page: bridge.client.get(page, headers=key))  # type: ignore[misc]
        table.add_row(f"page {page} with {BOOKINGS} bookings", f"{seconds * 1000:.0f} ms")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    words = f"memory of one process (tests, sandbox and worker) after {BOOKINGS} bookings"
    table.add_row(words, f"{int(memory) / 1024:.0f} MiB")
    bridge.close()


def _starts(table: Table, folder: Path) -> None:
    """Measure how long a process needs until it can work."""
    environment = {
        **os.environ, "DATABASE_URL": f"sqlite:///{folder}/pages.sqlite3", "REDIS_URL": NO_REDIS,
        "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
    }  # fmt: skip

    def run(*command: str) -> Callable[[], Any]:
        return lambda: subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True
        )

    app = "from app import create_app; create_app()"
    table.add_row("start of a web process", f"{_median(run('-c', app)):.1f} s")
    command = ("-m", "flask", "--app", "app", "events", "list")
    table.add_row("one CLI command (events list)", f"{_median(run(*command)):.1f} s")


def _median(action: Callable[[], Any]) -> float:
    """Return the seconds of a middling run."""
    times = []
    for _ in range(TIMES):
        began = time.monotonic()
        action()
        times.append(time.monotonic() - began)
    return median(times)
