"""What a database of many bookings costs: pages, metrics, looks for work, and room on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.table import Table
from sqlalchemy import text

from app.store.engine import Store
from tests.bridge import Bridge, begin_migrated, sample
from tests.many import Idle, analyze, fill
from tests.postgres import postgres_url
from workers.jobs import look

ROWS = int(os.environ.get("ROWS", "100000"))
"""Bookings in the database, each synced in three CRMs; `make bench ARGS=rows ROWS=1000000`."""
TURNS = 9
PAGES = {
    "first page": "/", "failed bookings": "/?state=failed", "one booking": "/bookings/default:many-7",
    "webhooks": "/events", "one connection": "/connections/1", "mappings": "/mappings",
    "/metrics": "/metrics", "API, 50 bookings": "/api/v1/bookings",
}  # fmt: skip


def measure(table: Table, folder: Path) -> None:
    """Fill in the rows for SQLite and PostgreSQL."""
    _measure(table, "SQLite", f"sqlite:///{folder}/rows.sqlite3")
    with postgres_url() as url:
        _measure(table, "PostgreSQL", url)


def _measure(table: Table, name: str, url: str) -> None:
    begin_migrated(url)
    bridge = Bridge(url).connect_all()
    store, cipher = bridge.services.store, bridge.services.cipher
    before, began = _size(store), time.monotonic()
    fill(store, cipher, ROWS)
    analyze(store)
    table.add_row(f"{name}: {ROWS:,} bookings filled in", f"{time.monotonic() - began:.0f} s")
    table.add_row(f"{name}: bytes a booking", f"{(_size(store) - before) / ROWS:,.0f}")
    key = {"Authorization": f"Bearer {bridge.key}"}
    deeds: dict[str, Callable[[], object]] = {
        what: lambda path=path: bridge.client.get(path, headers=key) for what, path in PAGES.items()
    }
    deeds["a look for work"] = lambda: look(bridge.services, Idle())  # type: ignore[arg-type]
    for what, deed in deeds.items():
        table.add_row(f"{name}: {what}", f"{_time(deed) * 1000:.1f} ms")
    numbers = iter(range(TURNS + 1))
    live = _time(lambda: bridge.sync(sample("booking_created", id=f"live-{next(numbers)}")))
    table.add_row(f"{name}: one live booking into three CRMs", f"{live * 1000:.0f} ms")
    bridge.close()


def _time(deed: Callable[[], object]) -> float:
    """Return the median of some turns, in seconds, after one that warms up."""
    times = []
    for _ in range(TURNS + 1):
        began = time.perf_counter()
        deed()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def _size(store: Store) -> int:
    """Return the size of the database in bytes."""
    queries = {
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        "postgresql": "SELECT pg_database_size(current_database())",
    }
    with store.read() as session:
        found: int = session.execute(text(queries[store.engine.dialect.name])).scalar_one()
        return found
