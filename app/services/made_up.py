"""A booking that a person makes up for a preview: it is read as a webhook is, and never stored."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from app.domain.booking import Booking
from app.domain.events import read_booking, read_event, read_time
from app.domain.text import quoted
from app.mapping.paths import plain_label

SOURCE = "default"
KEY = "made-up"
ZONE = "Europe/Berlin"
"""The zone of a made-up attendee who is given none."""
LONGEST_DAY = 24 * 60


@dataclass(frozen=True)
class MadeUp:
    """What a person entered."""

    slug: str = ""
    type_name: str = ""
    first_name: str = "Anna"
    last_name: str = "Example"
    email: str = "anna@globex.example"
    phone: str = ""
    timezone: str = ZONE
    language: str = ""
    host: str = ""
    """The e-mail address of the host."""
    start: str = ""
    minutes: str = "30"
    cancelled: bool = False
    answers: tuple[tuple[str, str], ...] = ()
    """Question and answer; several choices have a semicolon between them."""


def make_booking(made: MadeUp, several: Collection[str], now: datetime) -> Booking:
    """Return the booking that a webhook with these data describes.

    `several`: the questions, as `plain_label`, that take several choices. Raises ValueError with a
    message for people.
    """
    start = _start(made, now)
    minutes = int(made.minutes) if re.fullmatch(r"[0-9]{1,4}", made.minutes) else 0
    if not 0 < minutes <= LONGEST_DAY:
        raise ValueError(f"{quoted(made.minutes)} is no length in minutes, such as 30.")
    notes: dict[str, object] = {}
    for label, answer in made.answers:
        if not label.strip() or not answer.strip():
            continue
        parts = [part.strip() for part in answer.split(";") if part.strip()]
        notes[label.strip()] = parts if plain_label(label) in several else answer.strip()
    payload = {
        "webhookType": "booking_cancelled" if made.cancelled else "booking_created",
        "id": KEY,
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=minutes)).isoformat(),
        "isCancelled": made.cancelled,
        "attendees": [
            {
                "id": "a1", "email": made.email, "firstname": made.first_name,
                "lastname": made.last_name, "phone": made.phone, "timezone": made.timezone,
                "language": made.language, "notes": notes,
            }
        ],
        "hosts": [{"id": "h1", "email": made.host}] if made.host else [],
        "meetingType": {"id": KEY, "slug": made.slug, "meetingInfo": {"name": made.type_name}},
        "createdAt": now.isoformat(),
        "updatedAt": now.isoformat(),
    }  # fmt: skip
    booking = read_booking(read_event(SOURCE, payload, now))
    if not any(person.identity for person in booking.attendees):
        raise ValueError("The attendee needs an e-mail address or a phone number that can be read.")
    return booking


def _start(made: MadeUp, now: datetime) -> datetime:
    """The start that was entered, on UTC's clock if it names no zone; else tomorrow at ten."""
    if not made.start:
        local = (now + timedelta(days=1)).astimezone(ZoneInfo(ZONE))
        return local.replace(hour=10, minute=0, second=0, microsecond=0)
    found = read_time(made.start)
    if found is None:
        raise ValueError(f"{quoted(made.start)} is no time, such as 2027-01-14T10:00.")
    return found
