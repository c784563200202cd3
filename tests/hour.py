"""`make hour`: an hour at 20 bookings a second; memory, Redis and the database each minute.

It fails where a booking is lost or doubled, or where a process goes on growing after ten minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import redis
from rich.console import Console
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import create_engine, func, select

from app.services.wake import QUEUE, RETENTION_JOB
from app.store.engine import utcnow
from app.store.models import BookingRow, DeliveryRow
from app.store.states import DeliveryState
from tests.apart import Apart
from tests.bench.load import Clients
from tests.bridge import wait_for
from tests.postgres import postgres_url
from tests.processes import Running

CRMS = ("hubspot", "salesforce")
"""The CRMs whose own limits let through so many bookings; Pipedrive's searches do not."""
GROWTH = 1.10
"""What a process may need at the end, in terms of what it needed after the first minutes."""
FIRST = 10
"""Minutes in which memory settles."""
SETTLE = 900.0
"""Seconds that the last bookings have to be synced."""
REDUCE_EVERY = 5
"""Minutes between two runs of retention; the scheduler's own are an hour apart."""
KEYS = 100
"""More keys than this in Redis, and something piles up there."""
console = Console(width=120)


@dataclass(frozen=True)
class Moment:
    """What was seen in one minute."""

    memory: dict[str, float]
    """Process -> MiB that it alone holds."""
    keys: int
    redis: float
    """MiB."""
    database: float
    """MiB."""
    synced: int
    reduced: int


class Observer:
    """Looks at the running service from outside."""

    def __init__(self, service: Running, database_url: str) -> None:
        self._service = service
        self._engine = create_engine(database_url)
        self._redis = redis.Redis(port=service.redis_port)

    def look(self) -> Moment:
        """Return what is there now."""
        with self._engine.connect() as connection:
            synced = select(func.count()).where(DeliveryRow.state == DeliveryState.SYNCED)
            reduced = select(func.count()).where(BookingRow.reduced_at.is_not(None))
            sizes = {
                "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                "postgresql": "SELECT pg_database_size(current_database())",
            }
            size = connection.exec_driver_sql(sizes[connection.dialect.name]).scalar_one()
            numbers = [connection.scalar(query) or 0 for query in (synced, reduced)]
        keys, info = self._redis.dbsize(), self._redis.info("memory")
        return Moment(
            self._memory(), int(keys), info["used_memory"] / 2**20, size / 2**20, *numbers
        )

    def reduce(self) -> None:
        """Begin retention, as the scheduler does once an hour."""
        queue = Queue(QUEUE, connection=self._redis, serializer=JSONSerializer)
        queue.enqueue(RETENTION_JOB)

    def states(self) -> dict[str, int]:
        """Return how many deliveries are in each state."""
        query = select(DeliveryRow.state, func.count()).group_by(DeliveryRow.state)
        with self._engine.connect() as connection:
            return {state: number for state, number in connection.execute(query)}

    def _memory(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for number in _below(self._service.process.pid):
            try:
                words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
                rows = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue  # it has ended
            names = [name for name in ("web", "worker", "scheduler") if _is(name, words)]
            own = [int(row.split()[1]) for row in rows if row.startswith("Private_")]
            for name in names:
                found[name] = max(found.get(name, 0.0), sum(own) / 1024)
        return found


def _is(name: str, words: list[bytes]) -> bool:
    line = b" ".join(words)
    if name == "web":
        return b"gunicorn" in line
    module = {"worker": b"workers.worker", "scheduler": b"workers.schedule"}[name]
    return module in line and b"sh -c" not in line


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry.name), *_below(int(entry.name))]
    return found


@contextmanager
def _posting(service: Running, rate: float, seconds: float, retention: bool) -> Iterator[None]:
    """Post bookings at a steady rate in the background; with retention, half of them are long over."""
    kinds = [timedelta(days=5), timedelta(days=-40)] if retention else [timedelta(days=5)]
    threads = []
    for number, ahead in enumerate(kinds):
        start: datetime = utcnow() + ahead
        end = start + timedelta(minutes=30)
        words = {"start": start.isoformat(), "end": end.isoformat()}
        clients = Clients(service.web, f"hour{number}", **words)
        threads.append(threading.Thread(target=clients.pace, args=(rate / len(kinds), seconds)))
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def judge(moments: list[Moment], minutes: float) -> list[str]:
    """Return what is wrong with the figures of the run."""
    wrong = []
    early, late = moments[min(FIRST, len(moments) - 1)], moments[-1]
    for name, now in late.memory.items():
        before = early.memory.get(name, 0.0)
        if minutes > FIRST and now > before * GROWTH:
            wrong.append(f"{name} needs {now:.0f} MiB, and {before:.0f} after {FIRST} minutes")
    if late.keys > KEYS:
        wrong.append(f"Redis holds {late.keys} keys")
    return wrong


def run(folder: Path, url: str, minutes: float, rate: float, retention: bool) -> list[str]:
    """Run once; return what is wrong."""
    moments: list[Moment] = []
    total = int(rate * minutes * 60)
    apart = {name: Apart(name) for name in CRMS}
    settings = {"RETENTION_DAYS": "30" if retention else "0"}
    service = Running(folder, url, dict(apart), settings)
    try:
        wait_for(service.ready, 60)
        for name in CRMS:
            service.connect(name)
        observer, began = Observer(service, url), time.monotonic()
        with _posting(service, rate, minutes * 60, retention):
            while (passed := time.monotonic() - began) < minutes * 60:
                if passed >= len(moments) * 60:
                    moments.append(observer.look())
                    _say(len(moments) - 1, moments[-1])
                    if retention and not len(moments) % REDUCE_EVERY:
                        observer.reduce()
                time.sleep(0.5)
        ends = time.monotonic() + SETTLE
        while (states := observer.states()) != {"synced": total * len(CRMS)}:
            if time.monotonic() > ends:
                return [f"after {SETTLE:.0f} s the deliveries are {states}"]
            time.sleep(2)
        settled = time.monotonic() - began - minutes * 60
        moments.append(observer.look())
        _say(len(moments) - 1, moments[-1])
        console.print(f"{total} bookings, the last one synced {settled:.0f} s after the end.")
        grown = (moments[-1].database - moments[0].database) * 2**20 / total
        console.print(f"The database grew by {grown:,.0f} bytes a booking.")
        wrong = judge(moments, minutes)
        for name, crm in apart.items():
            counts = crm.counts()
            wrong += [f"{name} has {n} {what}" for what, n in counts.items() if n != total]
            wrong += [f"{name} refused a call with 429"] if crm.told()["refused"] else []
        return wrong
    finally:
        service.stop()


def _say(minute: int, now: Moment) -> None:
    memory = ", ".join(f"{name} {size:.0f}" for name, size in sorted(now.memory.items()))
    console.print(
        f"minute {minute:3d}: {now.synced:7d} synced, {now.reduced:6d} reduced; MiB: {memory},"
        f" Redis {now.redis:.1f} ({now.keys} keys), database {now.database:.0f}",
        highlight=False,
    )


def main() -> int:
    """Run as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--retention", type=int, default=0, help="1: half of the meetings are over")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rest = (given.minutes, given.rate, bool(given.retention))
        if given.database == "postgresql":
            with postgres_url() as url:
                wrong = run(folder, url, *rest)
        else:
            wrong = run(folder, f"sqlite:///{folder}/hour.sqlite3", *rest)
    for line in wrong:
        console.print(f"[bold red]{line}[/]")
    console.print("0 lost, 0 doubled, nothing grows." if not wrong else f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
