"""Bookings that continue one another: moved by booking again and cancelling the old one. Pure.

meetergo's page tells its clients to move a booking like this (`rescheduledFromId`). For a CRM it is
one story: the same deal and the same meeting, moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from app.domain.booking import Booking

WITHIN = timedelta(minutes=10)
"""Longest time between the cancel of the old booking and the creation of the new one."""
_MOVED = re.compile(
    r"re-?schedul|\bmoved\b|new time|verschob|verleg|umgebucht|neuer termin|déplac|reprogram"
    r"|reporté|spostat|riprogramm|verplaatst|flyttad|flyttet|przełożon|remarcad",
    re.IGNORECASE,
)
"""Words in a reason for a cancel that mean that the meeting was moved, in the languages seen so far."""


def is_continued(old: Booking, new: Booking) -> bool:
    """Whether the details show that one booking replaces another.

    First attendee, meeting type and host are the same; the old booking was cancelled as moved,
    within minutes of the creation of the new one.
    """
    if old.key == new.key or old.source != new.source or old.form or new.form:
        return False
    if not old.cancelled or not _MOVED.search(
        f"{old.cancel_reason or ''} {old.cancel_source or ''}"
    ):
        return False
    made, ended = new.created_at or new.version, old.cancelled_at or old.version
    return _same_meeting(old, new) and abs(made - ended) <= WITHIN


def _same_meeting(old: Booking, new: Booking) -> bool:
    person = [b.attendees[0].identity if b.attendees else None for b in (old, new)]
    kinds = [b.meeting_type.id or b.meeting_type.slug or b.meeting_type.name for b in (old, new)]
    hosts = [next((h.email or h.id for h in b.hosts), None) for b in (old, new)]
    return bool(person[0]) and all(a == b for a, b in (person, kinds, hosts))


def tell(root: str, booking: Booking, members: Sequence[Booking]) -> Booking:
    """Return a booking as part of its story; `replaced_by` names the booking that replaces it.

    `root`: our key for the records of the story, which is the key of its first booking. `members`:
    all known bookings of the story, including this one.
    """
    after = {member.continues for member in members if member.continues}
    successors = [m for m in members if m.continues == booking.id and m.key != booking.key]
    if successors:
        return replace(booking, replaced_by=min(successors, key=_age).id)
    ends = sorted((m for m in members if m.id not in after), key=_age)
    # Two bookings may claim to continue the same one: the first that is not cancelled does.
    main = next((m for m in ends if not m.cancelled), ends[0] if ends else booking)
    if main.key != booking.key:
        if booking.cancelled:
            return replace(booking, replaced_by=main.id)
        return replace(booking, story=None)
    others = [member for member in members if member.key != booking.key]
    starts = {start for m in others for start in (m.start, *m.previous_starts)}
    starts |= set(booking.previous_starts)
    people = {p.identity for p in booking.attendees}
    former = {p.identity for m in others for p in m.attendees if p.identity}
    former |= set(booking.former_attendees)
    return replace(
        booking,
        story=root,
        story_keys=tuple(sorted({m.key for m in members} - {root})),
        previous_starts=tuple(sorted(starts - {booking.start})),
        former_attendees=tuple(sorted(identity for identity in former if identity not in people)),
        rescheduled=bool(others) or booking.rescheduled or bool(booking.continues),
        counts_from=_counts_from(booking, others),
    )


def _age(booking: Booking) -> tuple[datetime, str]:
    return booking.created_at or booking.version, booking.key


def _counts_from(booking: Booking, others: Iterable[Booking]) -> datetime | None:
    """Return the time from which this booking's state counts: after the state of those it replaces."""
    latest = max((other.version for other in others), default=None)
    if latest is None or latest < booking.version:
        return None
    return latest + timedelta(seconds=1)
