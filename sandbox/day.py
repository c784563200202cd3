"""A day of bookings at an invented company, as signed webhooks in the order of their arrival."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

Payload = dict[str, Any]
JOHN = {"id": "h1", "email": "john@acme.example", "givenName": "John", "familyName": "Smith", "fullName": "John Smith"}  # fmt: skip
MARY = {"id": "h2", "email": "mary@acme.example", "givenName": "Mary", "familyName": "Major", "fullName": "Mary Major"}  # fmt: skip
PEOPLE = [
    (
        "Jane",
        "van der Berg",
        "jane.van.der.berg@globex.example",
        "+49 151 23456789",
        "Europe/Berlin",
    ),
    ("Omar", "Haddad", "omar@globex.example", "+33 6 12 34 56 78", "Europe/Paris"),
    ("Anna Maria", "Schmidt", "anna.schmidt@gmail.com", "0151 23456780", "Europe/Berlin"),
    ("Kenji", "Sato", "sato@initech.example", "+81 90-1234-5678", "Asia/Tokyo"),
    ("Chloé", "Dubois", "chloe@umbrella.example", "", "Europe/Paris"),
    ("Tom", "O'Neill", "tom@oneill.example", "+1 415 555 2671", "America/Los_Angeles"),
    ("Lena", "Weiß", "lena@web.de", "", "Europe/Berlin"),
    ("Piotr", "Nowak", "piotr@hooli.example", "", "Europe/Warsaw"),
]


def day(now: datetime | None = None) -> list[Payload]:
    """Return the webhooks of one day: created, moved, cancelled, duplicate, out of order, a group."""
    now = now or datetime.now(UTC)
    events: list[Payload] = []
    plain = [_booking(now, number, [number]) for number in range(len(PEOPLE))]
    group = _booking(now, 20, [0, 1, 3])
    phone = _booking(now, 21, [2])
    phone["attendees"] = [
        {"id": "p", "email": None, "firstname": None, "lastname": None, "language": "de",
         "fullname": "Ελένη Παπαδοπούλου", "phone": "+49 30 901820", "timezone": "Europe/Berlin"},
    ]  # fmt: skip
    events += plain[:5]
    events.append(plain[0])  # the same delivery again
    events.append(_moved(plain[1]))
    events.append(_cancelled(_moved(plain[2])))  # the cancel overtakes the move
    events.append(_moved(plain[2]))
    events.append(group)
    events.append(_cancelled(plain[5]))  # only the cancel of this booking arrives early
    events += plain[5:]
    events.append(phone)
    left = {**group, "webhookType": "booking_cancelled", "attendees": group["attendees"][:2]}
    events.append({**left, "updatedAt": _iso(now + timedelta(minutes=9))})  # one guest left
    moved = _moved(plain[3])
    events.append({**moved, "hosts": [MARY], "hostIds": ["h2"]})  # with another host
    events.append(_cancelled(plain[4]))
    return events


def _booking(now: datetime, number: int, people: list[int]) -> Payload:
    tomorrow = (now + timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    start = tomorrow + timedelta(hours=number % 10)
    return {
        "webhookType": "booking_created",
        "id": str(uuid.uuid4()),
        "secret": "cancel-token-do-not-store",
        "start": _iso(start),
        "end": _iso(start + timedelta(minutes=30)),
        "location": None,
        "isCancelled": False,
        "rescheduledAt": None,
        "meetingInfo": {"channel": "zoom", "meetingLink": f"https://zoom.us/j/9990001{number:04d}"},
        "attendees": [_attendee(index) for index in people],
        "hosts": [JOHN],
        "hostIds": ["h1"],
        "meetingType": {"id": "mt1", "slug": "discovery-call",
                        "meetingInfo": {"name": "Discovery Call", "duration": 30},
                        "metadata": {"source": "website"}},
        "meetingTypeId": "mt1",
        "companyId": "c1",
        "createdAt": _iso(now),
        "updatedAt": _iso(now),
    }  # fmt: skip


def _attendee(index: int) -> Payload:
    first, last, email, phone, zone = PEOPLE[index]
    return {"id": f"a{index}", "email": email, "firstname": first, "lastname": last,
            "fullname": f"{first} {last}", "phone": phone or None, "timezone": zone,
            "language": "de", "notes": {"Team size": "50-100"}}  # fmt: skip


def _moved(payload: Payload) -> Payload:
    shift = timedelta(days=1, hours=2)
    start, end = (datetime.fromisoformat(payload[key]) + shift for key in ("start", "end"))
    at = _iso(datetime.fromisoformat(payload["createdAt"]) + timedelta(minutes=5))
    return {**payload, "webhookType": "booking_rescheduled", "start": _iso(start),
            "end": _iso(end), "rescheduledAt": at, "updatedAt": at}  # fmt: skip


def _cancelled(payload: Payload) -> Payload:
    at = _iso(datetime.fromisoformat(payload["createdAt"]) + timedelta(minutes=30))
    cancel = {"actionSource": "attendee", "actionAt": at, "actionBy": "the attendee",
              "reason": "Something came up"}  # fmt: skip
    return {**payload, "webhookType": "booking_cancelled", "isCancelled": True, "updatedAt": at,
            "cancel": cancel}  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
