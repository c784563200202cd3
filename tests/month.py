"""A service on a simulated clock: nothing sleeps, hours pass at once, and clocks can be wrong."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import and_, or_, select
from time_machine import Traveller

from app import create_app
from app.bootstrap import bootstrap
from app.oauth import tokens
from app.services import rate_limits as allowance
from app.services import secrets
from app.services.rate_limits import LocalBudget, SharedRateLimiter
from app.services.watch import waiting
from app.store import leases
from app.store.deliveries import WORKABLE
from app.store.engine import utcnow
from app.store.leases import SKEW
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import WORKING, DeliveryState
from config.settings import CONFIG_DIR
from sandbox import meetergo, oauth
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import KEY, SECRET, Bridge, make_settings, sample
from tests.chaos.system import lift_limits
from workers import drain, jobs, lease
from workers.drain import Drainer

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
LOOK = 20.0
"""Simulated seconds between two looks: twice SWEEP_INTERVAL, as if every other look failed."""
CHANCE = 60.0
"""Simulated seconds within which all due work is synced if nothing blocks it."""
RECOVERY = 25 * 60.0
"""Simulated seconds until work is no longer blocked after the cause has ended: the day's budget and
a token endpoint are checked every 15 minutes, and a clock may be ten minutes wrong.
"""
PEOPLE = 24


class Clock:
    """The time of day, which a test may set, and the elapsed time, which it may not."""

    def __init__(self, traveller: Traveller) -> None:
        self._traveller = traveller
        self._passed = 1000.0
        self._wrong = timedelta()

    def ticks(self) -> float:
        """Return the elapsed seconds."""
        return self._passed

    def true(self) -> datetime:
        """Return the correct time, which meetergo and all others have."""
        return START + timedelta(seconds=self._passed - 1000.0)

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds
        self._set()

    def turn(self, hours: float) -> None:
        """Set this machine's clock; no time passes."""
        self._wrong += timedelta(hours=hours)
        self._set()

    def _set(self) -> None:
        self._traveller.move_to(self.true() + self._wrong, tick=False)


def own_time(patch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Make everything use this clock, including the database server, and let nothing sleep."""
    shim = SimpleNamespace(monotonic=clock.ticks, sleep=clock.forward, time=time.time)
    for module in (tokens, allowance, secrets, oauth, meetergo):
        patch.setattr(module, "time", shim)
    for owner in (lease, drain):
        patch.setattr(owner, "ticks", clock.ticks)
    patch.setattr(allowance, "LocalBudget", partial(LocalBudget, now=clock.ticks))

    def enter(gate: SharedRateLimiter, allowance: object) -> None:
        gate.ensure_lease()
        gate._keep_share_of_day()

    patch.setattr(leases, "goes_by_database", lambda session: False)
    patch.setattr(SharedRateLimiter, "enter", enter)


class Hands:
    """A pool with one worker that runs each task at once."""

    def __init__(self, drain: Callable[[int], None]) -> None:
        self.submit = drain
        self.stopping = threading.Event()

    def at_work(self) -> int:
        """No connection is at work between two tasks."""
        return 0

    def aside(self, name: str, action: Callable[[], object], again: bool = False) -> None:
        """Run the action."""
        action()


class World:
    """meetergo, the CRMs and the service, and a record of all actions."""

    def __init__(
        self,
        database_url: str,
        folder: Path,
        clock: Clock,
        dice: random.Random,
        scheme: str = "body",
    ) -> None:
        """`scheme`: how the service verifies meetergo's webhooks."""
        self.clock, self.dice = clock, dice
        self.mappings = folder / "mappings"
        shutil.copytree(CONFIG_DIR / "mappings", self.mappings)
        self.meetergo = Served(MeetergoSandbox())
        lift_limits(self.meetergo.sandbox)
        self.values: dict[str, Any] = {
            "mappings_dir": self.mappings, "meetergo_api_key": API_KEY,
            "meetergo_api_base": self.meetergo.url, "meetergo_api_user_id": "u1",
            "meetergo_webhook_secrets": SECRET, "meetergo_signature_scheme": scheme,
        }  # fmt: skip
        self.bridge = Bridge(database_url, **self.values)
        for served in self.bridge.served.values():
            lift_limits(served.sandbox)
            served.sandbox.account.user("kim@acme.example", "Kim Long")
        self.bridge.connect_all()
        self.secret = SECRET
        self.keys = [KEY]
        self.newest: dict[str, dict[str, Any]] = {}
        """Booking -> its newest state."""
        self.people: set[str] = set()
        self.old: list[dict[str, Any]] = []
        self.hosts = ["john@acme.example", "mary@acme.example", "kim@acme.example"]
        self.broken: set[str] = set()
        """CRMs that have a problem at present."""
        self.mapped: set[str] = set()
        """CRMs whose mapping file is changed at present."""
        self._numbers = 0
        self._chance: dict[int, float] = {}

    def close(self) -> None:
        """Stop everything."""
        self.bridge.close()
        self.meetergo.stop()

    def restart(self) -> None:
        """Restart all processes of the service, with the current encryption keys."""
        bridge = self.bridge
        environ = {
            k: v for served in bridge.served.values() for k, v in served.environment().items()
        }
        bridge.services.store.close()
        values = {**self.values, "encryption_keys": ",".join(self.keys)}
        bridge.settings = make_settings(bridge.settings.database_url, **values)
        bridge.services = bootstrap(bridge.settings, environ)
        bridge.services.prepare()
        bridge.app = create_app(bridge.services)
        bridge.drainer = Drainer(bridge.services)

    def command(self, *words: str) -> str:
        """Run `flask --app app …`; return its output."""
        told = self.bridge.app.test_cli_runner().invoke(args=list(words))
        assert told.exit_code == 0, (words, told.output, told.exception)
        return str(told.output)

    def write(self, row_id: int, **values: Any) -> None:
        """Change a connection's row, as a process did that has died since."""
        with self.bridge.services.store.write() as session:
            row = session.get_one(ConnectionRow, row_id)
            for name, value in values.items():
                setattr(row, name, value)

    # meetergo

    def state(self, kind: str, number: str) -> dict[str, Any]:
        """Return the next state of a booking."""
        before = self.newest.get(number)
        start = before["start"] if before else ""
        people = before["attendees"] if before else self._some(1)
        if kind != "booking_cancelled":
            moment = self.clock.true() + timedelta(hours=self.dice.randint(30, 400))
            start = moment.replace(minute=0, second=0, microsecond=0).isoformat()
        if self.dice.random() < 0.2:
            people = self._some(self.dice.choice([2, 3]))
        self._numbers += 1
        changed = (self.clock.true() + timedelta(microseconds=self._numbers)).isoformat()
        end = datetime.fromisoformat(start) + timedelta(minutes=30)
        made = sample(
            kind, id=number, start=start, end=end.isoformat(), attendees=people, updatedAt=changed,
            hosts=[{"email": self.dice.choice(self.hosts)}],
            createdAt=before["createdAt"] if before else changed,
        )  # fmt: skip
        self.newest[number] = made
        self.people |= {person["email"] for person in people}
        self.meetergo.sandbox.book(made)
        return made

    def _some(self, number: int) -> list[dict[str, Any]]:
        return [_person(n) for n in self.dice.sample(range(PEOPLE), number)]

    def post(self, *payloads: dict[str, Any]) -> None:
        """Post webhooks and check that each is accepted."""
        for payload in payloads:
            answer = self.bridge.post(payload, secret=self.secret)
            assert answer.status_code == 202, answer.get_data(as_text=True)
            assert answer.get_json()["status"] in ("accepted", "duplicate"), answer.get_json()
        self.old += payloads

    def something_happens(self) -> dict[str, Any]:
        """Create, move or cancel a booking; return the webhook."""
        open_ = [n for n, state in self.newest.items() if not state.get("isCancelled")]
        if len(open_) < 4 or self.dice.random() < 0.5:
            return self.state("booking_created", f"b{len(self.newest)}")
        kind = self.dice.choice(["booking_rescheduled"] * 2 + ["booking_cancelled"])
        return self.state(kind, self.dice.choice(open_))

    # The service

    def look(self) -> None:
        """Do what each worker does each SWEEP_INTERVAL."""
        jobs.look(self.bridge.services, Hands(self.bridge.drainer.drain))  # type: ignore[arg-type]

    def rows(self) -> list[ConnectionRow]:
        """Return the connections."""
        with self.bridge.services.store.read() as session:
            return list(session.scalars(select(ConnectionRow).order_by(ConnectionRow.id)))

    def due(self) -> dict[int, list[DeliveryRow]]:
        """Return connection -> its due deliveries, including parked ones."""
        now = utcnow()
        ripe = or_(DeliveryRow.next_attempt_at <= now, DeliveryRow.updated_at > now + SKEW)
        query = select(DeliveryRow).where(
            or_(
                DeliveryRow.state.in_((DeliveryState.DUE, DeliveryState.PARKED)),
                and_(DeliveryRow.state.in_(WORKABLE), ripe),
            )
        )
        found: dict[int, list[DeliveryRow]] = {}
        with self.bridge.services.store.read() as session:
            for row in session.scalars(query):
                found.setdefault(row.connection_id, []).append(row)
        return found

    def work(self, what: Iterable[str] = ()) -> None:
        """Look until nothing is due, except work that a page says waits; fail if work waits without
        a reason.

        `what` happened, for the message. Once a cause has ended, its reason must disappear.
        """
        begun = self.clock.ticks()
        self._chance = {row.id: begun for row in self.rows()}
        while True:
            self.look()
            self._nothing_failed(what)
            now, passed, work, ends = utcnow(), self.clock.ticks(), self.due(), []
            waits = False
            for row in self.rows():
                end = hindrance(row, now)
                if end or row.id not in work:
                    self._chance[row.id] = passed
                assert passed - self._chance[row.id] <= CHANCE, (
                    f"{what}: {row.provider} has no reason to wait: {row.status}, "
                    f"{[(d.state, d.error_message) for d in work[row.id]]}"
                )
                if row.provider not in self.broken and (end or row.id in work):
                    waits = True
                    ends += [(end - now).total_seconds()] if end else []
            self._nothing_overdue(now, what)
            if not waits and (not self.broken or passed - begun >= CHANCE):
                return
            assert passed - begun < RECOVERY, f"{what}: {self._told()}"
            self.clock.forward(max(LOOK, min(ends, default=LOOK)))

    def _nothing_failed(self, what: Iterable[str]) -> None:
        query = select(DeliveryRow).where(DeliveryRow.state == DeliveryState.FAILED)
        with self.bridge.services.store.read() as session:
            failed = session.scalars(query).all()
        assert not failed, f"{what}: {[(d.connection_id, d.error_message) for d in failed]}"

    def _nothing_overdue(self, now: datetime, what: Iterable[str]) -> None:
        with self.bridge.services.store.read() as session:
            late = waiting(session, now)
        for row in self.rows():
            if row.id in late and late[row.id].overdue(now) and not hindrance(row, now):
                since = self.clock.ticks() - self._chance[row.id]
                assert since <= CHANCE, f"{what}: overdue on {row.provider}: {late[row.id]}"

    def _told(self) -> str:
        return json.dumps(
            [(r.provider, r.status, r.last_error, str(r.pause_until), str(r.probe_at))
             for r in self.rows()]
        )  # fmt: skip


def hindrance(row: ConnectionRow, now: datetime) -> datetime | None:
    """Return until when the connection's page says that work waits; None: nothing blocks it."""
    if row.status not in WORKING:
        assert row.last_error and row.next_step, f"{row.provider} is {row.status} and says nothing"
        return (
            row.probe_at if row.probe_at and row.probe_at > now else now + timedelta(seconds=LOOK)
        )
    void = row.paused_at is not None and row.paused_at > now + SKEW
    if row.pause_until and row.pause_until > now and not void:
        assert row.last_error, f"{row.provider} pauses and says nothing"
        return row.pause_until
    if row.backlog_after and now < row.backlog_after <= now + leases.LONGEST_BACKLOG_PAUSE:
        return row.backlog_after
    return None


def _person(number: int) -> dict[str, Any]:
    domain = "gmail.com" if number % 3 == 0 else f"corp{number // 6}.example"
    return {"email": f"p{number}@{domain}", "firstname": f"P{number}", "lastname": "Test",
            "phone": f"+49151234{number:05d}", "timezone": "Europe/Berlin"}  # fmt: skip
