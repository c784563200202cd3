"""What is left of a booking after its people's data was deleted. Pure functions."""

from __future__ import annotations

from app.domain.booking import Booking, MeetingType


def reduced(booking: Booking) -> Booking:
    """Return the part of a booking that idempotency and the state of its records need: no person."""
    kind = booking.meeting_type
    return Booking(
        source=booking.source,
        id=booking.id,
        status=booking.status,
        start=booking.start,
        end=booking.end,
        received_at=booking.received_at,
        updated_at=booking.updated_at,
        created_at=booking.created_at,
        rescheduled=booking.rescheduled,
        company_id=booking.company_id,
        meeting_type=MeetingType(kind.id, kind.slug, kind.name),
        cancelled_at=booking.cancelled_at,
        continues=booking.continues,
        form=booking.form,
        previous_starts=booking.previous_starts,
    )


def is_news_of_reduced(known: Booking, found: Booking) -> bool:
    """Whether a message brings a reduced booking back: only a newer state that tells of people does.

    One that names nobody would make the booking one of nobody, and empty its records.
    """
    if not found.attendees:
        return False
    if known.updated_at and found.updated_at:
        cancelled = found.cancelled and not known.cancelled
        return found.updated_at > known.updated_at or (
            found.updated_at == known.updated_at and cancelled
        )
    return (found.status, found.start) != (known.status, known.start)


def everybody(booking: Booking) -> set[str]:
    """Return the identities of all people of a booking, also of those who left."""
    people = (*booking.attendees, *booking.companions)
    return {p.identity for p in people if p.identity} | set(booking.former_attendees)
