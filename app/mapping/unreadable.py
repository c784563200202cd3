"""Names typed values that could not be read, for the meeting's text and the booking's page."""

from __future__ import annotations

from app.domain.booking import Attendee, Booking
from app.domain.text import cut

SHOWN = 80
"""Most units of a typed text that a note shows; the meeting's text has all that is kept."""
MOST_NAMED = 10
"""Most attendees that the notes of a booking name; a sentence gives the number of the others."""


def unread(person: Attendee) -> list[tuple[str, str]]:
    """Return a person's unreadable values: `e-mail`, `phone` or `time zone`, with the typed text."""
    read = (
        ("e-mail", person.email, person.email_as_given),
        ("phone", person.phone, person.phone_as_given),
        ("time zone", person.timezone, person.timezone_as_given),
    )
    return [(what, typed) for what, value, typed in read if typed and not value]


def unreadable_notes(booking: Booking) -> list[str]:
    """Return a sentence for each attendee with an unreadable value, with the typed text."""
    people = [p for p in (*booking.attendees, *booking.companions) if unread(p)]
    notes = [_note(person) for person in people[:MOST_NAMED]]
    more = len(people) - MOST_NAMED
    if more > 0:
        notes.append(f"The same is true for {more} more people; the meeting's text names them.")
    return notes


def _note(person: Attendee) -> str:
    typed = [f"{what} “{cut(text, SHOWN)}”" for what, text in unread(person)]
    words = f"{cut(person.display_name, SHOWN)}: {' and '.join(typed)} could not be read"
    if person.identity:
        return f"{words} and was left out; the meeting's text shows it as typed."
    return f"{words}, so there is no contact. Ask the attendee, or make the contact by hand."
