"""The summary of all bookings of one person, for summary fields of a contact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from app.domain.booking import Booking


@dataclass(frozen=True)
class History:
    """A person's bookings in numbers, at one point in time."""

    booked: int = 0
    cancelled: int = 0
    moved: int = 0
    last_meeting: datetime | None = None
    """Start of the newest meeting that has begun and was not cancelled (UTC)."""
    next_meeting: datetime | None = None
    """Start of the nearest meeting to come (UTC)."""
    last_status: str | None = None
    """State of the booking that changed last."""


def tell(bookings: Iterable[Booking], now: datetime) -> History:
    """Sum up the newest states of a person's bookings."""
    found = [booking for booking in bookings if not booking.form]
    # A booking that was moved by booking again counts once.
    replaced = {(b.source, b.continues) for b in found if b.continues}
    every = sorted(
        (b for b in found if (b.source, b.id) not in replaced), key=lambda b: (b.version, b.key)
    )
    begun = [b.start for b in every if not b.cancelled and b.start <= now]
    ahead = [b.start for b in every if not b.cancelled and b.start > now]
    return History(
        booked=len(every),
        cancelled=sum(booking.cancelled for booking in every),
        moved=sum(booking.rescheduled or bool(booking.continues) for booking in every),
        last_meeting=max(begun, default=None),
        next_meeting=min(ahead, default=None),
        last_status=every[-1].state if every else None,
    )
