"""The booking as this service knows it: plain, immutable, times in UTC, its time zone kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.people import company_domain


class BookingStatus(StrEnum):
    """Whether the meeting is to take place."""

    SCHEDULED = "scheduled"
    CANCELLED = "cancelled"


NotTold = Mapping[str, datetime | None]
"""Field that a message says nothing of -> when the value is from that it has all the same, of another
message; None: no message said it. Said and empty is something else: such a field is not in here."""


@dataclass(frozen=True)
class Attendee:
    """A person who booked or was added; e-mail lower-cased, phone in E.164."""

    position: int
    id: str | None = None
    email: str | None = None
    email_as_given: str | None = field(default=None, compare=False)
    """What was typed, made harmless; two spellings of one address are the same state of a booking."""
    first_name: str | None = None
    last_name: str | None = None
    full_name: str | None = None
    phone: str | None = None
    phone_as_given: str | None = None
    timezone: str | None = None
    timezone_as_given: str | None = field(default=None, compare=False)
    language: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The answers that are several choices, each for itself; `answers` has them as one text."""
    no_company: bool = False
    """The domain is a relay's, or one that the settings name: it says nothing of a company."""
    not_told: NotTold = field(default_factory=dict, compare=False)

    @property
    def email_domain(self) -> str | None:
        """What stands behind the @, also where it is free mail."""
        return self.email.rpartition("@")[2] if self.email else None

    @property
    def is_booker(self) -> bool:
        """Whether this is who booked: the first attendee."""
        return self.position == 0

    @property
    def identity(self) -> str | None:
        """What makes two attendees one person: the e-mail, else the phone; None for neither."""
        if self.email:
            return f"email:{self.email}"
        return f"phone:{self.phone}" if self.phone else None

    @property
    def company_domain(self) -> str | None:
        """Domain of the attendee's company; None for free mail, relays and what settings name."""
        return None if self.no_company else company_domain(self.email)

    @property
    def display_name(self) -> str:
        """What to call the person: the name, else the address or number, if need be as typed."""
        typed = self.phone_as_given or self.email_as_given
        return self.full_name or self.email or self.phone or typed or "Unknown"


@dataclass(frozen=True)
class Host:
    """The colleague who holds the meeting."""

    id: str | None = None
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    full_name: str | None = None
    not_told: NotTold = field(default_factory=dict, compare=False)

    @property
    def email_domain(self) -> str | None:
        """What stands behind the @."""
        return self.email.rpartition("@")[2] if self.email else None


class MeetingOutcome(StrEnum):
    """How a meeting went, as a person said on the page, in the API or by command."""

    HELD = "held"
    NO_SHOW = "no_show"


@dataclass(frozen=True)
class MeetingType:
    """What was booked."""

    id: str | None = None
    slug: str | None = None
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    not_told: NotTold = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Booking:
    """The state of one appointment that one message from meetergo describes."""

    source: str
    id: str
    status: BookingStatus
    start: datetime
    end: datetime
    received_at: datetime
    updated_at: datetime | None = None
    created_at: datetime | None = None
    rescheduled: bool = False
    timezone: str = "UTC"
    location: str | None = None
    link: str | None = None
    channel: str | None = None
    company_id: str | None = None
    attendees: tuple[Attendee, ...] = ()
    companions: tuple[Attendee, ...] = field(default=(), compare=False)
    """Who shares an attendee's address or number: no contact of their own, but named in the text.
    `position` is that attendee's."""
    hosts: tuple[Host, ...] = ()
    meeting_type: MeetingType = field(default_factory=MeetingType)
    cancel_reason: str | None = None
    cancelled_by: str | None = None
    cancelled_at: datetime | None = None
    cancel_source: str | None = None
    """Where it was cancelled, in meetergo's words."""
    continues: str | None = None
    """Id of the booking that this one takes the place of: moved by booking anew."""
    story: str | None = None
    """Our key for the records of the bookings that continue one another; None: it stands alone."""
    story_keys: tuple[str, ...] = ()
    """Our keys for the other bookings of its story: something may have been made under them."""
    replaced_by: str | None = None
    """Id of the booking that takes the place of this one."""
    counts_from: datetime | None = None
    """When its word counts from, where that is later than its version (UTC)."""
    form: bool = False
    """A form that was filled in, with no meeting: `start` is when."""
    previous_starts: tuple[datetime, ...] = ()
    """The starts that it had before it was moved, as far as this service saw them (UTC)."""
    former_attendees: tuple[str, ...] = ()
    """Identities of those who took part before, as far as this service saw them."""
    outcome: MeetingOutcome | None = None
    """Said of the present start alone: a moved meeting has yet to be held."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """The whole message, without its credential: mapping files reach what no field here has. Keys
    that only other messages about this booking have stand in it too."""
    payload_from: Mapping[str, datetime] = field(default_factory=dict, compare=False)
    """Key of `payload` that another message said -> the version of that one (UTC)."""
    conference: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The meeting's ids at those who host it, by meetergo's names (`zoomMeetingId`)."""
    not_told: NotTold = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """The booking's id over all sources; ids are text, so 4711 and "4711" are one."""
        return f"{self.source}:{self.id}"

    @property
    def record_key(self) -> str:
        """Our key for the deal and the meeting: that of the first of the bookings of its story."""
        return self.story or self.key

    @property
    def version(self) -> datetime:
        """When this state came to be: meetergo's updatedAt, else the time of arrival (UTC)."""
        return self.updated_at or self.received_at

    @property
    def cancelled(self) -> bool:
        """Whether the meeting is off."""
        return self.status is BookingStatus.CANCELLED

    @property
    def state(self) -> str:
        """In one word: created, rescheduled or cancelled."""
        if self.cancelled:
            return "cancelled"
        return "rescheduled" if self.rescheduled else "created"

    @property
    def minutes(self) -> int:
        """Length of the meeting in whole minutes."""
        return int((self.end - self.start).total_seconds() // 60)


def zone_of(attendees: Iterable[Attendee]) -> str:
    """The zone that a booking is thought of in: that of its first attendee who has one."""
    return next((person.timezone for person in attendees if person.timezone), "UTC")


def rank(booking: Booking) -> tuple[datetime, bool, datetime]:
    """Order the states of one booking: the largest is the newest.

    The larger updatedAt wins (arrival stands in where it lacks); where both are equal a cancel
    wins, else the later arrival.
    """
    return (booking.version, booking.cancelled, booking.received_at)


def is_newer(candidate: Booking, known: Booking) -> bool:
    """Whether a state that just arrived replaces the known one."""
    return rank(candidate) > rank(known)
