"""Marks attendees whose address names no company, besides free mail: relays and domains in settings."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from app.domain.booking import Booking
from app.domain.people import is_under


def of_no_company(booking: Booking, domains: Set[str]) -> Booking:
    """Mark the attendees whose address is in one of these domains or in a subdomain."""
    people = tuple(
        replace(person, no_company=is_under(person.email_domain or "", domains))
        for person in booking.attendees
    )
    return replace(booking, attendees=people)
