"""A month in which accounts, mappings, tokens, hosts, secrets, keys, clocks and processes change.

The test owns the clock. A webhook comes every hour; whatever has happened, what is due is synced
within a minute of its chance. No CRM is asked to be quick: calls take their real time.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from ruamel.yaml import YAML
from sqlalchemy import select

from app.mapping.mapping import lay_over
from app.services.allowance import BudgetGate
from app.services.catch_up import Kind
from app.services.watch import waiting
from app.store.engine import utcnow
from app.store.models import ConnectionRow, DeliveryRow, Notice
from config.settings import CONFIG_DIR
from sandbox.account import Fault
from sandbox.core import Window
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import KEY, PROVIDERS, SECRET, Bridge, sample
from workers.jobs import look

START = datetime(2026, 12, 1, 6, tzinfo=UTC)
HOUR = 3600.0
STEP = 5.0
"""Seconds between two looks of a worker (SWEEP_INTERVAL)."""
CHANCE = 60.0
"""Seconds within which what can be synced has to be."""
SHIPPED = CONFIG_DIR / "mappings"
DAYS = 30


class Clock:
    """The time, for every module of the process; nothing sleeps."""

    def __init__(self, traveller: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch) -> None:
        self._traveller, self._ahead = traveller, 0.0
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + self._ahead)

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead += seconds
        self._traveller.shift(seconds)

    def set(self, seconds: float) -> None:
        """Set the clock of the machine: no time has passed."""
        self._traveller.shift(seconds)


class Now:
    """A pool of threads that has none: what is handed out is done before the next thing."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def submit(self, connection_id: int) -> None:
        """Drain a connection."""
        self._bridge.drainer.drain(connection_id)

    def aside(self, name: str, action: Callable[[], object]) -> None:
        """Do what a thread of its own would do."""
        action()


class Month:
    """One service over a month, and what a test does to it."""

    def __init__(self, database_url: str, folder: Path, clock: Clock, meetergo: Served) -> None:
        self.clock, self.folder, self.meetergo = clock, folder, meetergo
        self.url = database_url
        self.secrets, self.keys = SECRET, KEY
        self.bridge = Bridge(database_url, **self.values()).connect_all(warm=False)
        self.served = self.bridge.served
        self.number = 0
        self.waited: list[float] = []
        """Seconds that each hour's bookings took."""
        self.posted: dict[str, dict[str, Any]] = {}

    def values(self) -> dict[str, Any]:
        """The settings of the day."""
        return {
            "mappings_dir": self.folder, "meetergo_webhook_secrets": self.secrets,
            "encryption_keys": self.keys, "meetergo_api_base": self.meetergo.url,
            "meetergo_api_key": API_KEY, "meetergo_api_user_id": "u1",
        }  # fmt: skip

    def restart(self) -> None:
        """End web and worker, and begin them anew on the same database."""
        self.bridge.services.store.close()
        self.bridge = Bridge(self.url, served=self.served, **self.values())

    def sandboxes(self) -> Iterator[Any]:
        """Every CRM."""
        for name in self.served:
            yield self.bridge.sandbox(name)

    def payload(self, **changes: Any) -> dict[str, Any]:
        """A booking of this hour."""
        self.number += 1
        now, person = utcnow(), self.number % 12
        start = (now + timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
        values = {
            "id": f"m{self.number}", "createdAt": iso(now), "updatedAt": iso(now),
            "start": iso(start), "end": iso(start + timedelta(minutes=30)),
            "attendees": [{"email": f"person{person}@globex.example", "firstname": "Pat",
                           "lastname": f"Number{person}"}],
        }  # fmt: skip
        return sample("booking_created", **{**values, **changes})

    def webhook(self, **changes: Any) -> None:
        """A new booking comes in."""
        payload = self.payload(**changes)
        self.posted[payload["id"]] = payload
        answer = self.bridge.post(payload, secret=self.secrets.split(",")[0])
        assert answer.status_code == 202, answer.get_data(as_text=True)

    def change(self, kind: str, number: int, **changes: Any) -> None:
        """A booking is moved or cancelled."""
        before = self.posted[f"m{number}"]
        payload = {**before, "webhookType": kind, "updatedAt": iso(utcnow()), **changes}
        self.posted[payload["id"]] = payload
        answer = self.bridge.post(payload, secret=self.secrets.split(",")[0])
        assert answer.status_code == 202, answer.get_data(as_text=True)

    def work(self) -> None:
        """What a worker does each few seconds."""
        look(self.bridge.services, Now(self.bridge))  # type: ignore[arg-type]

    def open(self) -> list[tuple[int, str, str | None]]:
        """Deliveries that have not come to a good end: connection, state, reason."""
        with self.bridge.services.store.read() as session:
            rows = session.scalars(
                select(DeliveryRow).where(DeliveryRow.state.not_in(["synced", "skipped"]))
            )
            return [(row.connection_id, row.state, row.error_code) for row in rows]

    def caught_up(self, within: float = CHANCE) -> None:
        """Everything that came is synced within `within` seconds."""
        begun = utcnow()
        self.work()
        while open_ := self.open():
            passed = (utcnow() - begun).total_seconds()
            assert passed < within, (f"{begun:%d %H:%M}", passed, open_, self.troubles())
            self.clock.pass_(STEP)
            self.work()
        self.waited.append((utcnow() - begun).total_seconds())

    def troubles(self) -> list[tuple[str, str, str | None]]:
        """What each connection says of itself."""
        with self.bridge.services.store.read() as session:
            rows = session.scalars(select(ConnectionRow)).all()
            return [(row.provider, row.status, row.problem or row.last_error) for row in rows]

    def hours(self, number: int) -> None:
        """So many quiet hours: each has its booking."""
        for _ in range(number):
            self.clock.pass_(HOUR)
            self.webhook()
            self.caught_up()

    def out_of_order(self, seconds: float) -> None:
        """Hours in which bookings come and nothing can be written; the page says why all the time."""
        passed = 0.0
        while passed < seconds:
            self.clock.pass_(min(600.0, seconds))
            passed += min(600.0, seconds)
            if passed % HOUR == 0:
                self.webhook()
            self.work()
            self.clock.pass_(1)
            with self.bridge.services.store.read() as session:
                for item in waiting(session, utcnow()).values():
                    assert "No worker" not in item.reason, item

    def mapping(self, provider: str, changes: dict[str, Any]) -> None:
        """Save a provider's mapping file with changes to the default one."""
        text = (SHIPPED / f"{provider}.yaml").read_text(encoding="utf-8")
        whole = YAML(typ="safe", pure=True).load(text)
        target = self.folder / f"{provider}.yaml"
        target.write_text(json.dumps(lay_over(whole, changes), indent=1), encoding="utf-8")

    def notices(self) -> list[str]:
        """Kinds of notices so far."""
        with self.bridge.services.store.read() as session:
            return [row.kind for row in session.scalars(select(Notice))]


def iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


@contextmanager
def faulty(month: Month, **fault: Any) -> Iterator[None]:
    """Every call of every CRM goes wrong for a while."""
    made = [(sandbox, Fault(times=None, path=sandbox.api_paths[0], **fault))
            for sandbox in month.sandboxes()]  # fmt: skip
    for sandbox, one in made:
        sandbox.faults.append(one)
    yield
    for sandbox, one in made:
        sandbox.faults.remove(one)


# What happens, a thing a day


def tokens_end(month: Month) -> None:
    """Every access token ends at once; the next refresh gives another refresh token too."""
    for sandbox in month.sandboxes():
        sandbox.rotates = True
        sandbox.expire_access_tokens()


def a_mapping_changes(month: Month) -> None:
    """Titles are written otherwise."""
    for provider in PROVIDERS:
        month.mapping(provider, {"deal": {"per": "attendee"}})


def a_mapping_is_broken(month: Month) -> None:
    """A file is saved half-written: what was in force stays, for hours."""
    path = month.folder / f"{PROVIDERS[0]}.yaml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) // 2] + "\n  - {{", encoding="utf-8")
    month.hours(2)
    path.write_text(whole, encoding="utf-8")


def a_mapping_changes_back(month: Month) -> None:
    """As before."""
    for provider in PROVIDERS:
        shutil.copy(SHIPPED / f"{provider}.yaml", month.folder / f"{provider}.yaml")


def a_host_leaves(month: Month) -> None:
    """The host of every booking is no user of the CRM any more."""
    for sandbox in month.sandboxes():
        sandbox.account.user_leaves("john@acme.example")


def a_host_comes_back(month: Month) -> None:
    """And is again."""
    for sandbox in month.sandboxes():
        sandbox.account.left.clear()


def a_host_joins(month: Month) -> None:
    """Somebody new hosts, known to the CRMs since this minute."""
    for sandbox in month.sandboxes():
        sandbox.account.user("nora@acme.example", "Nora Neu")
    month.clock.pass_(60)
    month.webhook(hosts=[{"id": "h9", "email": "nora@acme.example", "fullName": "Nora Neu"}])
    month.caught_up()


def a_field_comes(month: Month) -> None:
    """An admin adds fields that no mapping uses."""
    kinds = {"hubspot": ("deals", "string"), "pipedrive": ("deals", str),
             "salesforce": ("Opportunity", "flag")}  # fmt: skip
    for sandbox in month.sandboxes():
        object_, type_ = kinds[sandbox.name]
        sandbox.account.adds(object_, region_code__c=type_)


def a_secret_rotates(month: Month) -> None:
    """A new secret first, the older one beside it, and then alone."""
    month.secrets = f"another-webhook-secret-2,{month.secrets}"
    month.restart()
    month.hours(1)
    month.secrets = month.secrets.partition(",")[0]
    month.restart()


def a_key_rotates(month: Month) -> None:
    """The key that tokens are encrypted with."""
    new, old = month.keys.swapcase(), month.keys
    month.keys = f"{new},{old}"
    month.restart()
    month.hours(1)
    runner = month.bridge.app.test_cli_runner()
    assert "re-encrypted" in runner.invoke(args=["keys", "rotate"]).output
    month.keys = new
    month.restart()


def processes_restart(month: Month) -> None:
    """Web and worker begin anew."""
    month.restart()


def crms_are_down(month: Month) -> None:
    """All CRMs are under maintenance for three hours."""
    with faulty(month, status=503, body="maintenance"):
        month.out_of_order(3 * HOUR)


def crms_talk_nonsense(month: Month) -> None:
    """All CRMs answer with a page of a firewall for an hour."""
    with faulty(month, status=200, body="<html>Please sign in</html>"):
        month.out_of_order(HOUR)


def accounts_are_refused(month: Month) -> None:
    """Every account is switched off for six hours, and on again."""
    with faulty(month, status=402, body="{}"):
        month.out_of_order(6 * HOUR)


def a_day_is_used_up(month: Month) -> None:
    """Limits say: come back in two hours."""
    with faulty(month, status=429, body="{}", headers={"Retry-After": str(2 * 3600)}):
        month.out_of_order(2 * HOUR)
    month.clock.pass_(600)


def the_clock_jumps_ahead(month: Month) -> None:
    """Somebody sets the machine's clock an hour ahead."""
    month.clock.set(HOUR)


def the_clock_jumps_back(month: Month) -> None:
    """Somebody sets it back, while bookings wait."""
    month.webhook()
    month.clock.set(-HOUR)


def consent_is_withdrawn(month: Month) -> None:
    """Every consent ends; bookings come; somebody connects anew."""
    for sandbox in month.sandboxes():
        sandbox.kill_grants()
    month.webhook()
    month.work()
    month.clock.pass_(HOUR)
    month.webhook()
    month.work()
    month.bridge.connect_all(warm=False)


def webhooks_get_lost(month: Month) -> None:
    """Five bookings never come; reconcile finds them."""
    for _ in range(5):
        payload = month.payload()
        month.posted[payload["id"]] = payload
        month.meetergo.sandbox.book(payload)
    now = utcnow()
    found = month.bridge.services.catch_up
    number = found.begin("default", Kind.RECONCILE, now - timedelta(days=7), now + timedelta(days=60))
    assert found.run(number)


def bookings_move_and_end(month: Month) -> None:
    """Bookings of long ago are moved, and cancelled."""
    start = utcnow() + timedelta(days=4)
    month.change("booking_rescheduled", 3, start=iso(start), end=iso(start + timedelta(minutes=30)))
    month.change("booking_cancelled", 5, isCancelled=True)


def a_move_by_booking_anew(month: Month) -> None:
    """A booking is moved by making another one and cancelling the first."""
    month.webhook(rescheduledFromId="m7")
    month.clock.pass_(5)
    month.change("booking_cancelled", 7, isCancelled=True,
                 cancel={"reason": "Rescheduled", "actionAt": iso(utcnow())})  # fmt: skip


def nothing_comes(month: Month) -> None:
    """Three days without a webhook: tokens of idle accounts end meanwhile."""
    for _ in range(24):
        month.clock.pass_(3 * HOUR)
        month.work()


EVENTS: list[Callable[[Month], None]] = [
    tokens_end, a_mapping_changes, a_mapping_changes_back, a_mapping_is_broken, a_host_leaves,
    a_host_comes_back, a_host_joins, a_field_comes, a_secret_rotates, a_key_rotates,
    processes_restart, crms_are_down, crms_talk_nonsense, accounts_are_refused, a_day_is_used_up,
    the_clock_jumps_ahead, the_clock_jumps_back, consent_is_withdrawn, webhooks_get_lost,
    bookings_move_and_end, a_move_by_booking_anew, nothing_comes,
]  # fmt: skip
AFTER = {"accounts_are_refused": 11 * 60.0, "crms_are_down": 90.0, "crms_talk_nonsense": 90.0}
"""Where the next try is further away than a minute: seconds to it (docs/reliability.md)."""


@pytest.fixture
def month(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Month]:
    """The service with all CRMs, and the clock of the process in the test's hand."""
    # Windows of calls are tested elsewhere, in real time; the waits that a CRM asks for stay.
    monkeypatch.setattr(BudgetGate, "enter", lambda self, allowance: self.may_go_on())
    monkeypatch.setattr(Window, "take", lambda _: True)
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "mappings"))
    meetergo = Served(MeetergoSandbox())
    with time_machine.travel(START, tick=True) as traveller:
        made = Month(database_url, folder, Clock(traveller, monkeypatch), meetergo)
        yield made
        made.bridge.close()
    meetergo.stop()


def right(month: Month) -> None:
    """Every CRM holds what meetergo says, once each."""
    gone = {"m7"}
    bookings = {key: value for key, value in month.posted.items() if key not in gone}
    for sandbox in month.sandboxes():
        there = sandbox.view()
        assert len(there.contacts) == 12, sandbox.name
        assert len(there.deals) == len(bookings), sandbox.name
        assert len(there.meetings) == len(bookings), sandbox.name
        cancelled = [payload for payload in bookings.values() if payload.get("isCancelled")]
        assert sum(meeting.cancelled for meeting in there.meetings) == len(cancelled)
        starts = sorted(payload["start"][:16] for payload in bookings.values())
        assert sorted(meeting.start[:16] for meeting in there.meetings) == starts, sandbox.name


@pytest.mark.long
def test_a_month_goes_by(month: Month) -> None:
    """Each hour a booking, each day something happens: synced within a minute, right at the end."""
    begun = utcnow()
    month.hours(2)
    for day, happens in enumerate(EVENTS + EVENTS[: DAYS - len(EVENTS)]):
        happens(month)
        month.webhook()
        month.caught_up(AFTER.get(happens.__name__, CHANCE))
        # Each account is read anew each ten minutes: these hours are more than enough of that.
        month.hours(3 if day % 5 else 6)
        ahead = begun + timedelta(days=day + 1) - utcnow()
        while ahead > timedelta(hours=1):
            month.clock.pass_(HOUR)
            month.work()
            ahead -= timedelta(hours=1)
    assert utcnow() - begun > timedelta(days=DAYS - 1)
    right(month)
