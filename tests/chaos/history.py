"""A made-up company's bookings: every state of each, and the order in which meetergo posts them."""

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
"""Who works with every CRM: e-mail -> name."""
HOSTS = ([{"email": "john@acme.example"}], [{"email": "mary@acme.example"}], [{"email": LEAVER}])
"""Always a user of the CRM: an owner is never wiped, so that where none is, the way there shows."""
PULSE = "pulse"
"""Id of the booking that changes each moment while faults strike, so that there is always work."""
BASE = datetime(2026, 12, 1, 9, tzinfo=UTC)
MOVED_ANEW = 0.25
"""Part of the bookings that are moved by booking anew and cancelling the old one."""
MADE = BASE - timedelta(days=30)
"""When all others are made: long before any of these moves, so that none seems to be one."""
APART = timedelta(minutes=20)
"""Between two such moves: nobody takes the one for the other."""


@dataclass(frozen=True)
class History:
    """What happened, and what is to be seen of it in the end."""

    posts: list[dict[str, Any]]
    """Webhooks in the order in which they are sent: late, doubled, out of order."""
    last: list[dict[str, Any]]
    """Webhooks that are sent once no fault strikes any more: newer states of the leaver's bookings,
    of which nobody can say who owns them while she is away, and of the one that never rests."""
    newest: list[dict[str, Any]]
    """The last state of each booking."""
    people: set[str]
    """Everybody who ever took part."""
    replaced: int
    """Bookings in whose place another one came: the two share a deal and a meeting."""

    @property
    def stories(self) -> int:
        """How many deals and meetings there are in the end."""
        return len(self.newest) - self.replaced


def make(seed: int, bookings: int) -> History:
    """The history of so many bookings; the same for the same seed."""
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
    # Every post has a time: that of its state, and for some hours or days of delay.
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
    """The cancel of a booking, and the booking in its place; half of those say so themselves."""
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
    """One more state of the booking that never rests; a larger beat is newer, and moves it."""
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
