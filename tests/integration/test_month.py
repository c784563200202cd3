"""A month in which every kind of trouble happens to the service: time passes, and no work stays
behind.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import time_machine

from tests.month import START, Clock, Hands, World, own_time
from tests.thorough import some
from tests.troubles import KINDS, Trouble
from workers import jobs

DAYS = 30
SEED = int(os.environ.get("MONTH_SEED", "7"))
HOURS = tuple(range(24)) if os.environ.get("MONTH_EACH_HOUR") else (0, 6)
"""The hours of a day with events; in between there are no bookings, and all data grows old.

`make month` has events in each hour; the test suite has no time for that.
"""


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The service with all CRMs on the first day."""
    random.seed(SEED)
    with time_machine.travel(START, tick=False) as traveller:
        clock = Clock(traveller)
        own_time(monkeypatch, clock)
        made = World(database_url, tmp_path, clock, random.Random(SEED))
        monkeypatch.setattr(jobs, "process_services", lambda: made.bridge.services)
        monkeypatch.setattr(jobs, "process_pool", lambda: Hands(made.bridge.drainer.drain))
        yield made
        made.close()


@pytest.mark.long
@pytest.mark.parametrize("database_url", some(["sqlite", "postgresql"], 2), indirect=True)
def test_a_month(world: World) -> None:
    """In thirty days of bookings and troubles, due work is synced within a minute and nothing
    fails; each booking ends as one record of its newest state, and a replay writes nothing.
    """
    plan = calendar(world.dice)
    under_way: list[tuple[str, Trouble]] = []
    struck: Counter[str] = Counter()
    last = 0.0
    for day in range(DAYS):
        for hour in HOURS if day % 7 < 5 else HOURS[:1]:
            world.clock.forward(max(0.0, (day * 24 + hour - last) * 3600))
            last = day * 24 + hour
            for name in plan.pop((day, hour), []):
                trouble = KINDS[name](world)
                if next(trouble, "over") != "over":
                    under_way.append((name, trouble))
                struck[name] += 1
            names = [f"day {day}, {hour}:00", *(name for name, _ in under_way)]
            for _ in range(world.dice.choice([1, 1, 2])):
                world.post(world.something_happens())
            if world.dice.random() < 0.1:
                world.post(world.dice.choice(world.old))
            world.work(names)
            over = [entry for entry in under_way if world.dice.random() < 0.5]
            for name, trouble in over:
                assert next(trouble, "over") == "over"
                under_way.remove((name, trouble))
            if over:
                world.work([*names, "some of it is over"])
    for _, trouble in under_way:
        next(trouble, None)
    world.command("reconcile")
    world.work(["the end"])
    world.clock.forward(2 * 86_400)
    world.work(["two days after the end"])
    assert not plan and min(struck[name] for name in KINDS) >= 2, struck
    look_at_everything(world)
    replay(world)


def calendar(dice: random.Random) -> dict[tuple[int, int], list[str]]:
    """Return (day, hour) -> the troubles that begin then; each kind occurs at least twice."""
    names = list(KINDS) * 2
    dice.shuffle(names)
    places = [(day, hour) for day in range(DAYS) if day % 7 < 5 for hour in HOURS]
    plan: dict[tuple[int, int], list[str]] = {}
    for name in names:
        plan.setdefault(dice.choice(places), []).append(name)
    return plan


def look_at_everything(world: World) -> None:
    """Check that each CRM has one deal and one meeting for each booking's newest state and one
    contact per person, and that no page reports a problem.
    """
    assert {d.state for d in world.bridge.deliveries()} == {"synced"}
    for provider in world.bridge.served:
        view = world.bridge.sandbox(provider).view()
        emails = {contact.id: contact.email for contact in view.contacts}
        twice = [e for e, number in Counter(emails.values()).items() if number > 1]
        assert not twice, (provider, twice)
        assert set(emails.values()) <= world.people
        keys = {deal.id: deal.booking.removeprefix("default:") for deal in view.deals}
        assert sorted(keys.values()) == sorted(world.newest), provider
        assert len(view.meetings) == len(world.newest), provider
        for meeting in view.meetings:
            wanted = world.newest[keys[meeting.deal_id]]
            seen = sorted(emails[i] for i in meeting.contact_ids)
            assert seen == sorted(p["email"] for p in wanted["attendees"]), (provider, wanted["id"])
            assert meeting.cancelled == bool(wanted.get("isCancelled")), (provider, wanted["id"])
            assert meeting.start[:16] == wanted["start"][:16], (provider, wanted["id"])
    for row in world.rows():
        assert (row.status, row.mapping_problem, row.overdue_since, row.stalls) == (
            "active", None, None, 0,
        ), (row.provider, row.last_error)  # fmt: skip


def replay(world: World) -> None:
    """Replay every webhook and check that nothing is written."""
    for served in world.bridge.served.values():
        served.sandbox.calls.clear()
        served.sandbox.written.clear()
    world.command("events", "replay", "--all")
    world.work(["the replay"])
    for provider, served in world.bridge.served.items():
        assert served.sandbox.writes() == 0, (provider, list(served.sandbox.written)[-3:])
