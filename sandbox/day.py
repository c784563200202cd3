"""A day of bookings at an invented company, as signed webhooks in the order of their arrival."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sandbox.webhooks import MARY, Payload, booked, cancelled, guest, iso, moved

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
    events.append({**left, "updatedAt": iso(now + timedelta(minutes=9))})  # one guest left
    later = _moved(plain[3])
    events.append({**later, "hosts": [MARY], "hostIds": ["h2"]})  # with another host
    events.append(_cancelled(plain[4]))
    return events


def _booking(now: datetime, number: int, people: list[int]) -> Payload:
    guests = []
    for index in people:
        first, last, email, phone, zone = PEOPLE[index]
        answers = {"Team size": "50-100"}
        each = guest(first, last, email, number=index, phone=phone, zone=zone, answers=answers)
        guests.append(each)
    return booked(now, tomorrow(now, number % 10), guests, number=number)


def tomorrow(now: datetime, hour: int) -> datetime:
    """Return a full hour of the next 24 hours from this time tomorrow on."""
    day_after = (now + timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    return day_after + timedelta(hours=hour)


def _moved(payload: Payload) -> Payload:
    at = datetime.fromisoformat(payload["createdAt"]) + timedelta(minutes=5)
    return moved(payload, at, timedelta(days=1, hours=2))


def _cancelled(payload: Payload) -> Payload:
    return cancelled(payload, datetime.fromisoformat(payload["createdAt"]) + timedelta(minutes=30))
