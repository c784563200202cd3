"""`make soak MINUTES=60`: the real processes in real time, no interval shortened, with faults now and then.

It fails where a booking waits for longer than PATIENCE without a reason that a page shows.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from sqlalchemy import or_, select
from sqlalchemy.exc import DBAPIError

from app.store.deliveries import WORKABLE
from app.store.engine import utcnow
from app.store.models import BookingRow, ConnectionRow, DeliveryRow
from app.store.states import DeliveryState
from tests.bridge import PROVIDERS, sample
from tests.chaos.system import System
from tests.month import hindrance
from tests.postgres import postgres_url

PATIENCE = 30.0
"""The seconds that a booking may wait without a reason that a page shows."""
EVERY = (2.0, 5.0)
"""The seconds between two bookings."""
FAULT_EVERY = (35.0, 75.0)
"""The seconds between two faults."""
CRM_OUT, REDIS_OUT = 20.0, 15.0
SETTLE = 180.0
"""The seconds that waiting bookings have at the end."""
console = Console(width=110)


@dataclass
class Watch:
    """Observations of every delivery: the start of its unexplained wait, and its total time."""

    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    oldest: float = 0.0
    """The longest current wait without a reason, in seconds."""
    _since: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    """(delivery, wanted revision) -> when it was first seen, and since when it waits without a reason."""
    _told: set[tuple[int, int]] = field(default_factory=set)

    def look(self, system: System) -> int:
        """Check every delivery once; return how many are due."""
        moment, now, seen = time.monotonic(), utcnow(), set()
        open_ = or_(
            DeliveryRow.state.in_(WORKABLE), DeliveryRow.state == DeliveryState.PARKED,
            DeliveryRow.state == DeliveryState.FAILED,
        )  # fmt: skip
        with system.store.read() as session:
            query = select(DeliveryRow, ConnectionRow).join(
                ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id
            )
            rows = session.execute(query.where(open_)).all()
        self.oldest = 0.0
        for delivery, connection in rows:
            key = (delivery.id, delivery.wanted_revision)
            seen.add(key)
            first, since = self._since.get(key, (moment, moment))
            waits = delivery.state != DeliveryState.FAILED and (
                hindrance(connection, now)
                or (delivery.state == DeliveryState.RETRYING and delivery.error_message
                    and delivery.next_attempt_at > now)
            )  # fmt: skip
            self._since[key] = (first, moment if waits else since)
            alone = moment - self._since[key][1]
            self.oldest = max(self.oldest, alone)
            failed = delivery.state == DeliveryState.FAILED
            if (alone > PATIENCE or failed) and key not in self._told:
                self._told.add(key)
                self.wrong.append(
                    f"{connection.provider}: delivery {delivery.id} {delivery.state} for {alone:.0f} s"
                    f" without a reason ({delivery.error_message or connection.last_error})"
                )
        for key in set(self._since) - seen:
            self.took.append(moment - self._since.pop(key)[0])
        return len(rows)

    def quantile(self, part: float) -> float:
        """Return the seconds within which this share of the deliveries was synced."""
        rows = sorted(self.took)
        return rows[min(len(rows) - 1, int(part * len(rows)))] if rows else 0.0


class Faults:
    """One fault after another; each ends before the next begins."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._dice, self._over = random.Random(seed), threading.Event()
        self.now, self.struck = "", 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._kinds: dict[str, Callable[[], None]] = {
            "CRM out": lambda: self._answers(503, "maintenance"),
            "nonsense": lambda: self._answers(200, "<html>Please wait</html>"),
            "worker killed": lambda: system.kill(self._dice.choice(system.workers)),
            "tokens dead": self._expire,
            "file touched": self._touch,
            "Redis stopped": self._redis,
        }

    def start(self) -> None:
        """Start the faults."""
        self._thread.start()

    def stop(self) -> None:
        """End the current fault and start no other."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        names: list[str] = []
        while not self._over.wait(self._dice.uniform(*FAULT_EVERY)):
            names = names or self._dice.sample(sorted(self._kinds), len(self._kinds))
            self.now = names.pop()
            self._kinds[self.now]()
            self.struck += 1
            self.now = ""

    def _answers(self, status: int, body: str) -> None:
        name = self._dice.choice(PROVIDERS)
        account = self._system.served[name].sandbox.account
        account.every_call_answers(status, body)
        self._over.wait(CRM_OUT)
        account.clears_answers()

    def _expire(self) -> None:
        for served in self._system.served.values():
            served.sandbox.expire_access_tokens()

    def _touch(self) -> None:
        path = self._system.mappings / f"{self._dice.choice(PROVIDERS)}.yaml"
        path.write_text(path.read_text(encoding="utf-8") + "# touched\n", encoding="utf-8")

    def _redis(self) -> None:
        self._system.kill_valkey()
        self._over.wait(REDIS_OUT)
        self._system.start_valkey()


def booking(dice: random.Random, number: int) -> dict[str, object]:
    """Return the next webhook: usually a new person, sometimes a move or cancel of an earlier booking."""
    kind, which, now = "booking_created", number, utcnow()
    if number > 5 and dice.random() < 0.3:
        kind = dice.choice(["booking_rescheduled", "booking_cancelled"])
        which = dice.randrange(number)
    start = (now + timedelta(days=dice.randint(2, 20))).replace(minute=0, second=0, microsecond=0)
    person = {
        "email": f"p{which}@corp{which % 40}.example",
        "firstname": "P",
        "lastname": f"N{which}",
    }
    return sample(
        kind, id=f"s{which}", start=start.isoformat(), attendees=[person],
        end=(start + timedelta(minutes=30)).isoformat(), updatedAt=now.isoformat(),
        hosts=[{"email": "john@acme.example"}],
    )  # fmt: skip


def run(folder: Path, database_url: str, minutes: float, seed: int) -> Watch:
    """Run once; return the observations."""
    watch, dice = Watch(), random.Random(seed)
    with ExitStack() as stack:
        system = System(folder, database_url, console.print, settings={})
        stack.callback(system.stop)
        faults = Faults(system, seed)
        faults.start()
        begun, posted, next_at = time.monotonic(), 0, 0.0
        while (passed := time.monotonic() - begun) < minutes * 60:
            if passed >= next_at:
                system.post(booking(dice, posted))
                posted, next_at = posted + 1, passed + dice.uniform(*EVERY)
            progress(watch, system, passed, posted, faults.now)
        faults.stop()
        end = time.monotonic() + SETTLE
        while progress(watch, system, time.monotonic() - begun, posted, "the end"):
            if time.monotonic() > end:
                watch.wrong.append(f"not all is synced at the end: {system.states()}")
                break
        watch.wrong += missing(system)
        console.print(f"\n{posted} webhooks, {faults.struck} faults, {system.states()}")
    return watch


def progress(watch: Watch, system: System, passed: float, posted: int, fault: str) -> int:
    """Check once, print the progress line, pause; return how many are due."""
    try:
        due = watch.look(system)
    except DBAPIError:
        due = 1
    line = (
        f"{passed / 60:5.1f} min  {posted} webhooks  {len(watch.took)} synced  {due} due"
        f"  p99 {watch.quantile(0.99):.1f} s  {fault:<14}"
    )
    sys.stdout.write(f"\r{line}" if sys.stdout.isatty() else "")
    sys.stdout.flush()
    time.sleep(0.2)
    return due


def missing(system: System) -> list[str]:
    """Return the surplus and the lack of records in each CRM."""
    with system.store.read() as session:
        bookings = len(session.scalars(select(BookingRow.id)).all())
    wrong = []
    for name, served in system.served.items():
        view = served.sandbox.view()
        if (len(view.deals), len(view.meetings)) != (bookings, bookings):
            told = f"{len(view.deals)} deals, {len(view.meetings)} meetings"
            wrong.append(f"{name}: {told} of {bookings} bookings")
    return wrong


def main() -> int:
    """Run, print the result, return the exit code."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/bridge.sqlite3"
        if given.database == "postgresql":
            url = stack.enter_context(postgres_url())
        watch = run(Path(folder), url, given.minutes, given.seed)
        if watch.wrong:
            kept = Path(tempfile.gettempdir()) / f"soak-{os.getpid()}.log"
            kept.write_bytes((Path(folder) / "log").read_bytes())
            console.print(f"What the processes printed: {kept}")
    for line in watch.wrong[:40]:
        console.print(line, style="red", markup=False, highlight=False)
    console.print(
        f"Seconds to sync: p50 {watch.quantile(0.5):.1f}, p99 {watch.quantile(0.99):.1f}, max"
        f" {watch.quantile(1):.1f}; oldest that is due: {watch.oldest:.1f}"
    )
    return 1 if watch.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
