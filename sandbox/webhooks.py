"""Webhooks as meetergo makes them: a booking is made, moved, cancelled."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

Payload = dict[str, Any]
JOHN = {"id": "h1", "email": "john@acme.example", "givenName": "John", "familyName": "Smith", "fullName": "John Smith"}  # fmt: skip
MARY = {"id": "h2", "email": "mary@acme.example", "givenName": "Mary", "familyName": "Major", "fullName": "Mary Major"}  # fmt: skip
DISCOVERY = ("mt1", "discovery-call", "Discovery Call")
"""Id, slug and name of a meeting type."""


def guest(
    first: str, last: str, email: str, *, number: int = 0, phone: str = "",
    zone: str = "Europe/Berlin", answers: dict[str, str] | None = None,
) -> Payload:  # fmt: skip
    """Return an attendee; `answers`: question -> answer."""
    return {"id": f"a{number}", "email": email, "firstname": first, "lastname": last,
            "fullname": f"{first} {last}".strip(), "phone": phone or None, "timezone": zone,
            "language": "de", "notes": answers or {}}  # fmt: skip


def booked(
    now: datetime, start: datetime, guests: Sequence[Payload],
    meeting_type: tuple[str, str, str] = DISCOVERY, number: int = 0,
) -> Payload:  # fmt: skip
    """Return the webhook of a new booking of half an hour; `number` makes its link its own."""
    type_id, slug, name = meeting_type
    return {
        "webhookType": "booking_created",
        "id": str(uuid.uuid4()),
        "secret": "cancel-token-do-not-store",
        "start": iso(start),
        "end": iso(start + timedelta(minutes=30)),
        "location": None,
        "isCancelled": False,
        "rescheduledAt": None,
        "meetingInfo": {"channel": "zoom", "meetingLink": f"https://zoom.us/j/9990001{number:04d}"},
        "attendees": list(guests),
        "hosts": [JOHN],
        "hostIds": ["h1"],
        "meetingType": {"id": type_id, "slug": slug,
                        "meetingInfo": {"name": name, "duration": 30},
                        "metadata": {"source": "website"}},
        "meetingTypeId": type_id,
        "companyId": "c1",
        "createdAt": iso(now),
        "updatedAt": iso(now),
    }  # fmt: skip


def moved(payload: Payload, at: datetime, shift: timedelta) -> Payload:
    """Return the webhook of a booking that is moved by `shift` at a time."""
    start, end = (datetime.fromisoformat(payload[key]) + shift for key in ("start", "end"))
    return {**payload, "webhookType": "booking_rescheduled", "start": iso(start),
            "end": iso(end), "rescheduledAt": iso(at), "updatedAt": iso(at)}  # fmt: skip


def cancelled(payload: Payload, at: datetime) -> Payload:
    """Return the webhook of a booking that an attendee cancels at a time."""
    cancel = {"actionSource": "attendee", "actionAt": iso(at), "actionBy": "the attendee",
              "reason": "Something came up"}  # fmt: skip
    return {**payload, "webhookType": "booking_cancelled", "isCancelled": True,
            "updatedAt": iso(at), "cancel": cancel}  # fmt: skip


def iso(moment: datetime) -> str:
    """Return a time as meetergo writes it."""
    return moment.isoformat(timespec="milliseconds")
