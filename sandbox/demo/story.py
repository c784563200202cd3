"""The second half of the demo's day: bookings that meet a fault, and what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.core import Sandbox
from sandbox.day import tomorrow
from sandbox.demo.mishaps import (
    APPROVAL,
    LOCK,
    LOCKED,
    NAME,
    NEW_OPTION,
    NO_OPTION,
    OPTIONS,
    QUESTION,
    REFUSED_NAME,
    RIVAL,
    Mishap,
    mishaps_of,
)
from sandbox.webhooks import DISCOVERY, Payload, booked, guest

PRODUCT_DEMO = ("mt2", "product-demo", "Product demo")
TEAM = ("mt3", "team-meeting", "Team meeting")
"""A meeting type that the demo's mapping files skip."""
WHY_SKIPPED = "Team meetings stay out of the CRM"
LISTENERS = (
    ("Ava", "Brandt"), ("Ben", "Costa"), ("Cora", "Dahl"), ("David", "Eriksen"), ("Ella", "Fischer"),
    ("Finn", "Garcia"), ("Greta", "Hansen"), ("Hugo", "Ivanov"), ("Ida", "Jansen"),
    ("Jonas", "Keller"), ("Klara", "Lindt"), ("Luca", "Moretti"),
)  # fmt: skip
"""Twelve people who heard of the company in a podcast: one cause, twelve failed bookings."""
LATE = (("Mila", "Novak"), ("Noah", "Olsen"), ("Olga", "Petrova"))
UNREADABLE: tuple[Any, ...] = (
    {"webhookType": "booking_created", "id": "without-a-start", "attendees": []},
    {"event": "test", "note": "somebody tried the address"},
)
PARKED_IN = "pipedrive"
"""The CRM whose app is removed in the evening."""


@dataclass(frozen=True)
class Scene:
    """A webhook, and the states that differ from `synced` in the end."""

    payload: Payload
    states: Mapping[str, str] = field(default_factory=dict)
    """CRM -> state of the booking's delivery."""


def prepare(crms: Mapping[str, Sandbox]) -> None:
    """Set up the CRMs for the story, before they are connected."""
    for mishap in (NO_OPTION, APPROVAL, LOCK):
        for crm in crms.values():
            if mishap in mishaps_of(crm):
                mishap.begins(crm)
    _begin(NAME, "hubspot", crms)


def _begin(mishap: Mishap, name: str, crms: Mapping[str, Sandbox]) -> None:
    if name in crms:
        mishap.begins(crms[name])


def afternoon(crms: Mapping[str, Sandbox], now: datetime | None = None) -> list[Scene]:
    """Return the bookings that meet a fault of their own."""
    now = now or datetime.now(UTC)
    locked = _scene(now, 30, ("Lea", LOCKED), {"salesforce": "retrying"})
    twelve = [_scene(now, 40 + number, name, {"hubspot": "failed"}, answer=NEW_OPTION)
              for number, name in enumerate(LISTENERS)]  # fmt: skip
    own = [
        _scene(now, 60, ("Rita", RIVAL), {"salesforce": "failed"}),
        _scene(now, 61, ("Rolf", REFUSED_NAME), {"hubspot": "failed"}),
        *(_scene(now, 62 + number, name, dict.fromkeys(crms, "skipped"), kind=TEAM)
          for number, name in enumerate((("Nora", "Major"), ("Paul", "Smith")))),
    ]  # fmt: skip
    return [locked, *twelve, *own]


def evening(now: datetime | None = None) -> list[Scene]:
    """Return the bookings that come after the app was removed in one CRM."""
    now = now or datetime.now(UTC)
    return [_scene(now, 70 + number, name, {PARKED_IN: "parked"}, kind=PRODUCT_DEMO)
            for number, name in enumerate(LATE)]  # fmt: skip


def _scene(
    now: datetime, number: int, name: tuple[str, str], states: Mapping[str, str], *,
    answer: str = OPTIONS[0], kind: tuple[str, str, str] = DISCOVERY,
) -> Scene:  # fmt: skip
    first, last = name
    email = f"{first}@{last}-industries.example".lower()
    attendee = guest(first, last, email, number=number, answers={QUESTION: answer})
    start = tomorrow(now, number % 9) + timedelta(days=1 + number % 3)
    return Scene(booked(now, start, [attendee], kind, number), states)
