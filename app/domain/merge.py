"""Merges the messages about one booking: if a message cannot mention a field, the value from
another message stays, in any order of arrival. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from app.domain.booking import Attendee, Booking, Host, MeetingType, is_newer, zone_of

WITHOUT_LINK = frozenset(
    ("phone", "phone-incoming", "local", "local-attendee", "in_person", "whatsapp")
)
"""Channels that need no link. https://developer.meetergo.com"""
CANCEL_FIELDS = ("cancel_reason", "cancelled_by", "cancelled_at", "cancel_source")
Part = TypeVar("Part", Booking, Attendee, Host, MeetingType)


def merge(known: Booking, found: Booking) -> Booking:
    """Merge two messages about a booking; the newer one wins in every field that it mentions."""
    older, newest = (known, found) if is_newer(found, known) else (found, known)
    return _put_together(older, newest)


def fill(known: Booking, found: Booking) -> Booking:
    """Add to a known booking the fields that only another message about the same state has."""
    return _put_together(found, known)


def says_the_same(one: Booking, other: Booking) -> bool:
    """Whether two messages describe the same state, in any form."""
    return _content(one) == _content(other)


def is_more_than_said(known: Booking, found: Booking) -> bool:
    """Whether a message has news about a booking."""
    kept = merge(known, found)
    if known.updated_at and kept.updated_at and kept.updated_at > known.updated_at:
        return True
    return not says_the_same(known, kept)


def _put_together(older: Booking, newest: Booking) -> Booking:
    filled = _fill(newest, older, older.version)
    if "link" in newest.not_told and filled.channel in WITHOUT_LINK:
        # The channel has changed to one without a link, so the message need not mention the link.
        filled = replace(filled, link=None)
    if not filled.cancelled:
        # A booking that is not cancelled has no reason for a cancel.
        silent = [name for name in CANCEL_FIELDS if name in newest.not_told]
        nothing: dict[str, Any] = dict.fromkeys(silent)
        filled = replace(filled, **nothing)
    filled = _fill_parts(filled, older, newest)
    starts = {*older.previous_starts, *newest.previous_starts, older.start} - {newest.start}
    people = {*older.former_attendees, *newest.former_attendees, *identities(older)} - identities(
        filled
    )
    missing = {
        key: older.payload_from.get(key, older.version)
        for key in older.payload
        if key not in newest.payload
        or (
            key in newest.payload_from
            and older.payload_from.get(key, older.version) > newest.payload_from[key]
        )
    }
    return replace(
        filled,
        timezone=zone_of(filled.attendees) if not filled.form else filled.timezone,
        previous_starts=tuple(sorted(starts)),
        former_attendees=tuple(sorted(people)),
        # If the newer message does not mention it, the value of the older one stays.
        continues=newest.continues or older.continues,
        rescheduled=newest.rescheduled or older.rescheduled,
        payload={**newest.payload, **{key: older.payload[key] for key in missing}},
        payload_from={**newest.payload_from, **missing},
    )


def _fill_parts(filled: Booking, older: Booking, newest: Booking) -> Booking:
    """Fill in people and meeting type of one message with details from the other one."""
    kind, before = newest.meeting_type, older.meeting_type
    if kind.id == before.id or "id" in kind.not_told:
        filled = replace(filled, meeting_type=_fill(kind, before, older.version))
    lists: dict[str, Callable[[Any], object]] = {
        "attendees": called,
        "companions": called,
        "hosts": lambda host: host.id or host.email,
    }
    values: dict[str, Any] = {}
    for name, key in lists.items():
        at, other_at = _said_at(newest, name), _said_at(older, name)
        base, other = getattr(newest, name), getattr(older, name)
        if other_at is not None and (at is None or other_at > at):
            base, other, other_at = other, base, at
        values[name] = _fill_each(base, other, other_at, key)
    return replace(filled, **values)


def _said_at(booking: Booking, name: str) -> datetime | None:
    """Return the version of the message that a field comes from; None if no message has it."""
    return booking.not_told.get(name, booking.version)


def _fill_each(
    items: Iterable[Part],
    others: Iterable[Part],
    at: datetime | None,
    key: Callable[[Part], object],
) -> tuple[Part, ...]:
    known = {key(other): other for other in others if key(other)}
    return tuple(
        _fill(item, known[key(item)], at) if key(item) in known else item for item in items
    )


def _fill(part: Part, other: Part, at: datetime | None) -> Part:
    """Fill fields that a message does not mention from another one of version `at`; the newest wins."""
    values: dict[str, Any] = {}
    times = dict(part.not_told)
    for name, since in part.not_told.items():
        said = other.not_told.get(name, at)
        if said is not None and (since is None or said > since):
            values[name], times[name] = getattr(other, name), said
    return replace(part, **values, not_told=times)


def called(person: Attendee) -> tuple[str | None, str | None]:
    """Return the value that makes two mentions one person: address or number, or else the name."""
    return person.identity, None if person.identity else person.display_name


def identities(booking: Booking) -> set[str]:
    """Return the identities of the attendees who have an address or a number."""
    return {person.identity for person in booking.attendees if person.identity}


def _content(booking: Booking) -> Booking:
    """Return a booking without the parts that depend on the form and time of the message."""
    return replace(
        booking, received_at=booking.start, updated_at=None, created_at=None, payload={},
        outcome=None, company_id=None, story=None,
        attendees=tuple(map(_plain, booking.attendees)),
        companions=tuple(map(_plain, booking.companions)),
    )  # fmt: skip


def _plain(person: Attendee) -> Attendee:
    """Return a person without id and spelling, which differ between the forms of a message."""
    typed = None if person.phone else person.phone_as_given
    return replace(person, id=None, phone_as_given=typed)
