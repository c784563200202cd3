"""An invented company's bookings: all their states, and the order in which meetergo posts them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.bridge import sample

KINDS = ("booking_created", "booking_rescheduled", "booking_cancelled")
LEAVER = "nora@acme.example"
"""A user who is deactivated and comes back while faults strike."""
USERS = {"john@acme.example": "John Smith", "mary@acme.example": "Mary Major", LEAVER: "Nora Null"}
"""The users of every CRM: e-mail -> name."""
HOSTS = ([{"email": "john@acme.example"}], [{"email": "mary@acme.example"}], [{"email": LEAVER}])
"""Every host is a CRM user: an owner is never removed, so a missing owner would depend on the way
there.
"""
PULSE = "pulse"
"""The id of the booking that changes all the time while faults strike, so that there is always work."""
BASE = datetime(2026, 12, 1, 9, tzinfo=UTC)
MOVED_ANEW = 0.25
"""The share of bookings that are moved by a new booking and a cancel of the old one."""
MADE = BASE - timedelta(days=30)
"""The creation time of all other bookings: long before these moves, so that none looks like one."""
APART = timedelta(minutes=20)
"""The time between two such moves, so that they are not confused."""


@dataclass(frozen=True)
class History:
    """All that happened, and the expected result."""

    posts: list[dict[str, Any]]
    """The webhooks in the order of sending: late, duplicated, out of order."""
    last: list[dict[str, Any]]
    """Webhooks sent after the last fault: newer states of the leaver's bookings, whose owner is
    undefined while she is away, and of the booking that changes all the time.
    """
    newest: list[dict[str, Any]]
    """The last state of each booking."""
    people: set[str]
    """All people who ever took part."""
    replaced: int
    """The number of bookings that another one replaced: the two share a deal and a meeting."""

    @property
    def stories(self) -> int:
        """Return the final number of deals and meetings."""
        return len(self.newest) - self.replaced


def make(seed: int, bookings: int) -> History:
    """Return the history of this many bookings; the same seed gives the same history."""
    dice = random.Random(seed)
    crowd = [_person(number) for number in range(bookings // 8 + 10)]
    states: list[list[dict[str, Any]]] = []
    for number in range(bookings):
        states.append([_state(dice, number, step, crowd) for step in range(dice.randint(1, 3))])
    moves = [mine for mine in states if _is_on(mine[-1]) and dice.random() < MOVED_ANEW]
    for place, mine in enumerate(moves):
        cancelled, successor = _anew(dice, mine[-1], BASE - timedelta(days=8) + place * APART)
        mine.append(cancelled)
        states.append([successor])
    # Every post has a time: its state's time plus a delay of some hours or days.
    timed: list[tuple[float, int, dict[str, Any]]] = []
    for mine in states:
        begun = dice.uniform(0, bookings)
        for step, state in enumerate(mine):
            copies = 2 if dice.random() < 0.15 else 1
            for _ in range(copies):
                late = dice.choice([0, 0, 0, dice.uniform(0, 60)])
                timed.append((begun + step * dice.uniform(0, 20) + late, len(timed), state))
    posts = [state for _, _, state in sorted(timed, key=lambda entry: entry[:2])]
    newest = [mine[-1] for mine in states]
    end = (BASE + timedelta(days=1)).isoformat()
    last = [{**s, "updatedAt": end} for s in newest if s["hosts"][0]["email"] == LEAVER]
    last.append({**pulse(0), "updatedAt": end})
    final = {state["id"]: state for state in [*newest, *last]}
    every = [*(state for mine in states for state in mine), *last]
    people = {p["email"] for state in every for p in state["attendees"]}
    return History(posts, last, list(final.values()), people, len(moves))


def _is_on(state: dict[str, Any]) -> bool:
    return bool(state["webhookType"] != "booking_cancelled")


def _anew(
    dice: random.Random, before: dict[str, Any], at: datetime
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the cancel of a booking and the booking that replaces it; half of these name the old one."""
    cancelled = sample(
        "booking_cancelled",
        **{
            name: before[name]
            for name in ("id", "start", "end", "attendees", "hosts", "location", "createdAt")
        },
        isCancelled=True,
        updatedAt=(at + timedelta(seconds=5)).isoformat(),
        cancel={
            "reason": "Rescheduled by the attendee", "actionSource": "booking_page",
            "actionAt": (at + timedelta(seconds=5)).isoformat(),
        },
    )  # fmt: skip
    start = BASE + timedelta(hours=dice.randrange(400))
    successor = sample(
        "booking_created",
        **{name: before[name] for name in ("attendees", "hosts")},
        id=f"{before['id']}-anew",
        start=start.isoformat(),
        end=(start + timedelta(minutes=30)).isoformat(),
        createdAt=at.isoformat(),
        updatedAt=at.isoformat(),
        rescheduledFromId=dice.choice([None, before["id"]]),
        location=None,
    )
    return cancelled, successor


def pulse(beat: int) -> dict[str, Any]:
    """Return one more state of the busy booking; a larger beat is newer and moves the meeting."""
    start = BASE + timedelta(hours=beat % 400)
    return sample(
        "booking_created" if beat == 0 else "booking_rescheduled",
        id=PULSE,
        start=start.isoformat(),
        end=(start + timedelta(minutes=30)).isoformat(),
        attendees=[_person(0)],
        hosts=HOSTS[beat % 2 + 1],
        updatedAt=(BASE - timedelta(days=9) + timedelta(seconds=beat)).isoformat(),
        location=None,
    )


def _person(number: int) -> dict[str, Any]:
    domain = "gmail.com" if number % 3 == 0 else f"corp{number // 6}.example"
    phone = f"+49151234{number:05d}" if number % 2 else None
    return {"email": f"p{number}@{domain}", "firstname": f"P{number}", "lastname": "Test",
            "phone": phone, "timezone": "Europe/Berlin"}  # fmt: skip


def _state(
    dice: random.Random, number: int, step: int, crowd: list[dict[str, Any]]
) -> dict[str, Any]:
    start = BASE + timedelta(hours=dice.randrange(400))
    kind = "booking_created" if step == 0 else dice.choice(KINDS[1:])
    return sample(
        kind,
        id=f"b{number}",
        start=start.isoformat(),
        end=(start + timedelta(minutes=dice.choice([15, 30, 60]))).isoformat(),
        attendees=dice.sample(crowd, dice.choice([1, 1, 1, 2, 3])),
        hosts=dice.choice(HOSTS),
        createdAt=MADE.isoformat(),
        updatedAt=(BASE - timedelta(days=9) + timedelta(minutes=step)).isoformat(),
        location=dice.choice([None, "Room 7"]),
    )
