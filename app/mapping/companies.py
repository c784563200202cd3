"""Decides whose address says nothing of a company, beside free mail: relays and what settings name."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from app.domain.booking import Booking
from app.domain.people import is_under


def of_no_company(booking: Booking, domains: Set[str]) -> Booking:
    """The booking with those attendees marked whose address lies in one of these domains or below."""
    people = tuple(
        replace(person, no_company=is_under(person.email_domain or "", domains))
        for person in booking.attendees
    )
    return replace(booking, attendees=people)
