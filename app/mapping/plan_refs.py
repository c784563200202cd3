"""Lists the records that a booking may have: a plan has to know which of them exist."""

from __future__ import annotations

from app.crm.objects import PEOPLE, ObjectName, Ref
from app.domain.booking import Booking
from app.mapping.meetings import meeting_keys

OF_BOOKING = (ObjectName.DEAL, ObjectName.CASE, ObjectName.MEETING)
"""The objects that represent a booking itself, by its own key."""


def refs_of(booking: Booking) -> list[Ref]:
    """Return every record that the booking may have, own_refs first, with people who left it."""
    meetings = [Ref(ObjectName.MEETING, key) for key in meeting_keys(booking).values()]
    here = [person.identity for person in booking.attendees if person.identity]
    everybody = (*booking.former_attendees, *here)
    people = [Ref(name, identity) for name in PEOPLE for identity in everybody]
    domains = [person.company_domain for person in booking.attendees if person.company_domain]
    companies = [Ref(ObjectName.COMPANY, domain) for domain in domains]
    refs = (*own_refs(booking), *meetings, *people, *companies, *superseded_refs(booking))
    return list(dict.fromkeys(refs))


def own_refs(booking: Booking) -> list[Ref]:
    """Return the records that represent the booking itself, by its own key."""
    return [Ref(name, booking.record_key) for name in OF_BOOKING]


def superseded_refs(booking: Booking) -> list[Ref]:
    """Return records that the booking may have got before it was known to continue another one."""
    return [Ref(name, key) for key in booking.story_keys for name in OF_BOOKING]
