"""A booking without a person who was erased on request. Pure functions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from app.domain.booking import Booking, zone_of
from app.domain.reduced import reduced


def without_people(booking: Booking, gone: Collection[str], now: datetime) -> Booking:
    """Return a booking without some people, given by identity; it goes on for the others.

    Texts that may name them go too: the message itself, and the reason of a cancel. If nobody is
    left, the booking is reduced.
    """
    staying = tuple(person for person in booking.attendees if person.identity not in gone)
    if not staying:
        return replace(reduced(booking), reduced_at=now)
    return replace(
        booking,
        attendees=staying,
        companions=tuple(p for p in booking.companions if p.identity not in gone),
        former_attendees=tuple(each for each in booking.former_attendees if each not in gone),
        timezone=booking.timezone if booking.form else zone_of(staying),
        payload={},
        payload_from={},
        cancel_reason=None,
        cancelled_by=None,
        location=None,
    )


def words_of(booking: Booking, identity: str) -> set[str]:
    """Return the texts by which a person can be told in a booking: address, number, whole name."""
    people = (*booking.attendees, *booking.companions)
    mine = [person for person in people if person.identity == identity]
    found = {
        text
        for person in mine
        for text in (
            person.email,
            person.email_as_given,
            person.full_name,
            " ".join(filter(None, (person.first_name, person.last_name))),
            person.phone,
            person.phone_as_given,
        )
        if text
    }
    return {text for text in found if len(text) >= SHORTEST}


SHORTEST = 6
"""A shorter text is not looked for in other texts: "Li" is a part of many words."""
