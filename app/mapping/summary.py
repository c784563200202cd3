"""The text in the meeting's body: all that a sales person needs, without cuts."""

from __future__ import annotations

from collections.abc import Mapping

from app.crm.objects import BOOKING_LINE
from app.domain.booking import Attendee, Booking
from app.domain.zones import local, zone_label
from app.mapping.unreadable import unread


def summarise(booking: Booking, overflow: Mapping[str, str]) -> str:
    """Describe a booking in plain text; `overflow`: texts that were too long for their field."""
    lines = [when_line(booking)]
    if booking.cancelled:
        lines.append(_cancelled_line(booking))
    for label, value in (("Link", booking.link), ("Location", booking.location)):
        if value:
            lines.append(f"{label}: {value}")
    hosts = ", ".join(host.full_name or host.email or "" for host in booking.hosts)
    if hosts:
        lines.append(f"Host: {hosts}")
    if booking.attendees:
        lines += ["", "Attendees:", *(f"- {_person(person)}" for person in booking.attendees)]
        lines += [f"- {_companion(person, booking)}" for person in booking.companions]
    for person in (*booking.attendees, *booking.companions):
        if person.answers:
            lines += ["", f"Answers of {person.display_name}:"]
            lines += [f"- {label}: {text}" for label, text in person.answers.items()]
    for field, text in overflow.items():
        lines += ["", f"{field}, in full:", text]
    number = booking.record_key.partition(":")[2]
    lines += [""] if number == booking.id else ["", f"Booked anew as {booking.id}"]
    lines += [f"{BOOKING_LINE}{number}"]
    return "\n".join(lines)


def list_answers(answers: Mapping[str, str | list[str]]) -> str | None:
    """Return questions and answers, one on each line; None if there are none."""
    lines = [
        f"{label}: {', '.join(text) if isinstance(text, list) else text}"
        for label, text in answers.items()
    ]
    return "\n".join(lines) or None


def when_line(booking: Booking) -> str:
    """Return day, time, zone and length, by the attendee's clock."""
    start, end = local(booking.start, booking.timezone), local(booking.end, booking.timezone)
    day, until = start.strftime("%Y-%m-%d"), end.strftime("%H:%M")
    if end.date() != start.date():
        until = end.strftime("%Y-%m-%d %H:%M")
    zone = zone_label(booking.timezone)
    return f"When: {day} {start:%H:%M}–{until} ({zone}), {booking.minutes} minutes"


def _cancelled_line(booking: Booking) -> str:
    by = f" by {booking.cancelled_by}" if booking.cancelled_by else ""
    reason = f": {booking.cancel_reason}" if booking.cancel_reason else ""
    return f"Cancelled{by}{reason}"


def _person(person: Attendee) -> str:
    parts = [person.display_name, person.email, person.phone]
    parts += [f"{what} (could not be read): {typed}" for what, typed in unread(person)]
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _companion(person: Attendee, booking: Booking) -> str:
    shared = booking.attendees[person.position].display_name
    return f"{_person(person)} (same contact as {shared})"
