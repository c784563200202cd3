"""A day of unsigned webhooks: only meetergo's API counts, and its failures never reach a CRM."""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from rich.console import Console
from sqlalchemy import select

from app.domain.errors import CrmError
from app.services.catch_up import WalkKind
from app.store.models import EventRow, Notice
from app.store.states import EventStatus
from sandbox.limits import Window
from tests.bridge import PROVIDERS, SECRET, Bridge
from tests.chaos.system import lift_limits
from tests.contract.test_convergence import picture
from tests.month import LOOK, START, Clock, Hands, World, own_time
from tests.thorough import some
from workers import jobs

BOOKINGS = int(os.environ.get("DAY_BOOKINGS", "24"))
SEED = int(os.environ.get("DAY_SEED", "3"))
DAY = 24 * 3600.0
"""The seconds in which all bookings are made, moved and cancelled."""
PATH = f"/webhooks/meetergo/default/{SECRET}"
LOST, DOUBLED, LATE = 0.03, 0.1, 0.1
"""The shares of webhooks that are lost, that come twice, and that come before meetergo's API shows
the state.
"""
MOST_READS = 1.1
"""The maximum number of reads per state that a webhook announced."""
NONSENSE = [
    (200, "<html>busy</html>"), (200, "null"), (200, "[]"), (200, "{}"), (204, ""), (502, "<html>"),
    (500, "{}"), (429, "{}"), (200, '{"id": "another"}'),
]  # fmt: skip
RENEWED = "ak_live:renewed"
END = 3 * DAY
"""The seconds after which everything must have ended well."""


class Day:
    """A day's events and their times."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.api: Any = world.meetergo.sandbox
        self.told: set[tuple[str, str]] = set()
        """The states of bookings that a webhook announced."""
        self.begun = world.clock.ticks()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def plan(self, at: float, what: Callable[[], None]) -> None:
        """Schedule an event this many seconds after the start of the day."""
        self._count += 1
        heapq.heappush(self._agenda, (at, self._count, what))

    @property
    def now(self) -> float:
        """Return the seconds since the start of the day."""
        return self.world.clock.ticks() - self.begun

    def something_happens(self) -> None:
        """Change a booking at meetergo; its webhook comes once, twice, late or never."""
        world, dice = self.world, self.world.dice
        state = world.something_happens()
        if dice.random() < LATE:
            self.api.late[state["id"]] = world.clock.ticks() + dice.uniform(10, 90)
        if dice.random() < LOST:
            return
        self.told.add((state["id"], state["updatedAt"]))
        for _ in range(2 if dice.random() < DOUBLED else 1):
            delay = dice.choice([0.0, 0.0, dice.uniform(0, 120)])
            self.plan(self.now + delay, partial(self.post, state))

    def post(self, state: dict[str, Any]) -> None:
        """Post an unsigned webhook."""
        answer = self.world.bridge.post(state, path=PATH)
        assert answer.status_code == 202, answer.get_data(as_text=True)

    def waits(self) -> bool:
        """Whether a webhook waits for meetergo's confirmation or a delivery for a CRM."""
        query = select(EventRow.id).where(EventRow.status == EventStatus.RECEIVED).limit(1)
        with self.world.bridge.services.store.read() as session:
            held = session.scalar(query) is not None
        return held or bool(self.world.due())

    def live(self, progress: Callable[[str], None]) -> None:
        """Run the day; while there is work, the workers look every LOOK seconds."""
        world, shown = self.world, 0.0
        while self._agenda or self.waits():
            while self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
            world.look()
            assert self.now < END, "it does not come to an end"
            ahead = self._agenda[0][0] - self.now if self._agenda else LOOK
            world.clock.forward(max(0.1, min(ahead, LOOK) if self.waits() else ahead))
            if self.now - shown > DAY / 12:
                shown = self.now
                progress(f"  {shown / 3600:.0f} h, {len(world.newest)} bookings")

    # Failures of meetergo

    def busy(self, minutes: float) -> None:
        """Other apps use up meetergo's rate limit."""
        self.api.window = Window(1, 30.0)
        self.plan(self.now + 60 * minutes, partial(lift_limits, self.api))

    def down(self, minutes: float) -> None:
        """meetergo answers 503."""
        self.api.down = True
        self.plan(self.now + 60 * minutes, lambda: setattr(self.api, "down", False))

    def nonsense(self) -> None:
        """meetergo's next answers are nonsense."""
        self.api.answers = self.world.dice.choices(NONSENSE, k=4)

    def unshown(self, minutes: float) -> None:
        """meetergo cannot show one appointment, nor any page with it."""
        one = self.world.dice.choice(sorted(self.world.newest))
        self.api.broken.add(one)
        self.plan(self.now + 60 * minutes, partial(self.api.broken.discard, one))

    def key_ends(self) -> None:
        """meetergo refuses the key for an hour, until a person enters a new one."""
        self.api.key = RENEWED
        self.plan(self.now + 3600, self._renew)

    def _renew(self) -> None:
        self.world.values["meetergo_api_key"] = RENEWED
        self.world.restart()

    # Other work of the service

    def reconcile(self) -> None:
        """Run the scheduled look."""
        jobs.reconcile_source("default")

    def backfill(self, number: int = 0) -> None:
        """Read all bookings; if meetergo fails, continue ten minutes later."""
        catch_up = self.world.bridge.services.catch_up
        since = START - timedelta(days=1)
        number = number or catch_up.begin("default", WalkKind.BACKFILL, since, None)
        try:
            ended = catch_up.run(number)
        except CrmError:
            ended = False
        if not ended:
            self.plan(self.now + 600, partial(self.backfill, number))


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The service with all CRMs; its webhooks are known only by the token in their address."""
    random.seed(SEED)
    with time_machine.travel(START, tick=False) as traveller:
        clock = Clock(traveller)
        own_time(monkeypatch, clock)
        made = World(database_url, tmp_path, clock, random.Random(SEED), scheme="url-token")
        pool: Any = SimpleNamespace(
            stopping=SimpleNamespace(is_set=lambda: False, wait=clock.forward),
            aside=Hands(made.bridge.drainer.drain).aside,
        )
        monkeypatch.setattr(jobs, "process_services", lambda: made.bridge.services)
        monkeypatch.setattr(jobs, "process_pool", lambda: pool)
        yield made
        made.close()


@pytest.mark.long
@pytest.mark.parametrize("database_url", some(["postgresql", "sqlite"], 2), indirect=True)
def test_a_day_of_webhooks_that_nobody_signs(world: World, tmp_path: Path) -> None:
    """The CRMs end as with signed webhooks alone, few states are read twice, and the refused key
    was reported.
    """
    day, dice, console = Day(world), world.dice, Console()
    for number in range(2 * BOOKINGS):
        day.plan(DAY * number / (2 * BOOKINGS), day.something_happens)
    for hour in range(1, 25):
        day.plan(hour * 3600, day.reconcile)
    day.plan(DAY * 0.4, day.backfill)
    day.plan(DAY * 0.55, day.key_ends)
    for part in (0.1, 0.3, 0.8):
        day.plan(DAY * part, partial(day.busy, dice.uniform(3, 15)))
        day.plan(DAY * (part + 0.05), partial(day.down, dice.uniform(3, 40)))
        day.plan(DAY * (part + 0.1), partial(day.unshown, dice.uniform(10, 100)))
    for _ in range(12):
        day.plan(dice.uniform(0, DAY), day.nonsense)
    day.plan(DAY + 3600, day.reconcile)
    day.live(lambda words: console.print(words, highlight=False))

    assert {d.state for d in world.bridge.deliveries()} == {"synced"}
    assert not [e.error for e in world.bridge.events() if e.status == EventStatus.QUARANTINED]
    seen = {provider: picture(world.bridge, provider) for provider in PROVIDERS}
    assert seen == signed_alone(world, tmp_path)
    with world.bridge.services.store.read() as session:
        told = {(notice.kind, notice.source) for notice in session.scalars(select(Notice))}
    assert told >= {("broken", "default"), ("restored", "default")}, told
    reads, states = day.api.shown.total(), len(day.told)
    words = f"{len(world.newest)} bookings, {states} states told of, {reads} reads"
    console.print(f"{words}, {reads / states:.2f} a state", highlight=False)
    assert reads <= MOST_READS * states, words


def signed_alone(world: World, folder: Path) -> dict[str, Any]:
    """Return each CRM's records if only the newest states arrive, by signed webhooks."""
    bridge = Bridge(f"sqlite:///{folder}/signed.sqlite3", mappings_dir=world.mappings)
    for served in bridge.served.values():
        lift_limits(served.sandbox)
        served.sandbox.account.user("kim@acme.example", "Kim Long")
    bridge.connect_all()
    for state in world.newest.values():
        assert bridge.post(state).status_code == 202
    bridge.settle(600)
    seen = {provider: picture(bridge, provider) for provider in PROVIDERS}
    bridge.close()
    return seen
