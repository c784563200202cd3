"""A made-up company's bookings: every state of each, and the order in which meetergo posts them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.bridge import sample

KINDS = ("booking_created", "booking_rescheduled", "booking_cancelled")
HOSTS = ([{"email": "john@acme.example"}], [{"email": "mary@acme.example"}])
"""Always a user of the CRM: an owner is never wiped, so that where none is, the way there shows."""
BASE = datetime(2026, 12, 1, 9, tzinfo=UTC)


@dataclass(frozen=True)
class History:
    """What happened, and what is to be seen of it in the end."""

    posts: list[dict[str, Any]]
    """Webhooks in the order in which they are sent: late, doubled, out of order."""
    newest: list[dict[str, Any]]
    """The last state of each booking."""
    people: set[str]
    """Everybody who ever took part."""


def make(seed: int, bookings: int) -> History:
    """The history of so many bookings; the same for the same seed."""
    dice = random.Random(seed)
    crowd = [_person(number) for number in range(bookings // 8 + 10)]
    states: list[list[dict[str, Any]]] = []
    for number in range(bookings):
        states.append([_state(dice, number, step, crowd) for step in range(dice.randint(1, 3))])
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
    people = {p["email"] for mine in states for state in mine for p in state["attendees"]}
    return History(posts, [mine[-1] for mine in states], people)


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
        updatedAt=(BASE - timedelta(days=9) + timedelta(minutes=step)).isoformat(),
        location=dice.choice([None, "Room 7"]),
    )
