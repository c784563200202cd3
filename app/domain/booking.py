"""A booking in this service: plain, immutable, with times in UTC and its own time zone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.people import company_domain


class BookingStatus(StrEnum):
    """Whether the meeting is planned to take place."""

    SCHEDULED = "scheduled"
    CANCELLED = "cancelled"


NotTold = Mapping[str, datetime | None]
"""Field that a message does not mention -> the time of the other message that its value comes from;
None: no message mentioned it. A field that a message sends as empty is not in here."""


@dataclass(frozen=True)
class Attendee:
    """A person who booked or was added; e-mail lower-cased, phone in E.164."""

    position: int
    id: str | None = None
    email: str | None = None
    email_as_given: str | None = field(default=None, compare=False)
    """The address as typed, made harmless; two spellings of one address are the same booking state."""
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
    """Answers with several choices, as separate texts; `answers` has them joined as one text."""
    no_company: bool = False
    """The domain belongs to a mail relay or is listed in the settings: it does not name a company."""
    not_told: NotTold = field(default_factory=dict, compare=False)

    @property
    def email_domain(self) -> str | None:
        """The part after the @, also for free mail."""
        return self.email.rpartition("@")[2] if self.email else None

    @property
    def is_booker(self) -> bool:
        """Whether this attendee made the booking: the first attendee did."""
        return self.position == 0

    @property
    def identity(self) -> str | None:
        """The value that identifies a person: the e-mail, or else the phone; None without either."""
        if self.email:
            return f"email:{self.email}"
        return f"phone:{self.phone}" if self.phone else None

    @property
    def company_domain(self) -> str | None:
        """Domain of the attendee's company; None for free mail, relays and domains in the settings."""
        return None if self.no_company else company_domain(self.email)

    @property
    def display_name(self) -> str:
        """The name to show: the person's name, or else the address or number, if need be as typed."""
        typed = self.phone_as_given or self.email_as_given
        return self.full_name or self.email or self.phone or typed or "Unknown"


@dataclass(frozen=True)
class Host:
    """The member of the company who holds the meeting."""

    id: str | None = None
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    full_name: str | None = None
    not_told: NotTold = field(default_factory=dict, compare=False)

    @property
    def email_domain(self) -> str | None:
        """The part after the @."""
        return self.email.rpartition("@")[2] if self.email else None


class MeetingOutcome(StrEnum):
    """How a meeting went, if a person set it on the page, through the API or by command."""

    HELD = "held"
    NO_SHOW = "no_show"


@dataclass(frozen=True)
class MeetingType:
    """The kind of meeting that was booked."""

    id: str | None = None
    slug: str | None = None
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    not_told: NotTold = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Booking:
    """The state of one appointment, as one message from meetergo describes it."""

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
    """People who share an attendee's address or number: they get no contact, but the text names
    them. `position` is the attendee's."""
    hosts: tuple[Host, ...] = ()
    meeting_type: MeetingType = field(default_factory=MeetingType)
    cancel_reason: str | None = None
    cancelled_by: str | None = None
    cancelled_at: datetime | None = None
    cancel_source: str | None = None
    """The place where it was cancelled, in meetergo's words."""
    continues: str | None = None
    """Id of the booking that this one replaces, if somebody moved it by booking again."""
    story: str | None = None
    """Our key for the records of bookings that continue one another; None: this one stands alone."""
    story_keys: tuple[str, ...] = ()
    """Our keys for the other bookings of the story: records may exist under them."""
    replaced_by: str | None = None
    """Id of the booking that replaces this one."""
    counts_from: datetime | None = None
    """The time from which this state counts, if that is later than its version (UTC)."""
    form: bool = False
    """A form that was filled in, without a meeting: `start` is the time of that."""
    previous_starts: tuple[datetime, ...] = ()
    """The earlier starts of a moved booking, as far as this service saw them (UTC)."""
    former_attendees: tuple[str, ...] = ()
    """Identities of people who took part before, as far as this service saw them."""
    outcome: MeetingOutcome | None = None
    """It belongs to the present start only: a moved meeting has not taken place yet."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """The whole message, without its credential: mapping files reach keys that have no field here.
    Keys that only other messages about this booking have are included."""
    payload_from: Mapping[str, datetime] = field(default_factory=dict, compare=False)
    """Key of `payload` from another message -> the version of that message (UTC)."""
    conference: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The meeting's ids in the video services, by meetergo's names (`zoomMeetingId`)."""
    not_told: NotTold = field(default_factory=dict, compare=False)
    reduced_at: datetime | None = field(default=None, compare=False)
    """When the data of its people was deleted (UTC); None: the state is whole."""

    @property
    def key(self) -> str:
        """The booking's id over all sources; ids are text, so 4711 and "4711" are one."""
        return f"{self.source}:{self.id}"

    @property
    def record_key(self) -> str:
        """Our key for the deal and the meeting: the key of the first booking of the story."""
        return self.story or self.key

    @property
    def version(self) -> datetime:
        """The time of this state: meetergo's updatedAt, or else the time of arrival (UTC)."""
        return self.updated_at or self.received_at

    @property
    def cancelled(self) -> bool:
        """Whether the meeting is cancelled."""
        return self.status is BookingStatus.CANCELLED

    @property
    def state(self) -> str:
        """The state in one word: created, rescheduled or cancelled."""
        if self.cancelled:
            return "cancelled"
        return "rescheduled" if self.rescheduled else "created"

    @property
    def minutes(self) -> int:
        """The length of the meeting in whole minutes."""
        return int((self.end - self.start).total_seconds() // 60)


def zone_of(attendees: Iterable[Attendee]) -> str:
    """Return the time zone of a booking: the zone of its first attendee who has one."""
    return next((person.timezone for person in attendees if person.timezone), "UTC")


def rank(booking: Booking) -> tuple[datetime, bool, datetime]:
    """Return a sort key for the states of one booking: the largest is the newest.

    The larger updatedAt wins (without one, the arrival time counts); if both are equal, a cancel
    wins, or else the later arrival.
    """
    return (booking.version, booking.cancelled, booking.received_at)


def is_newer(candidate: Booking, known: Booking) -> bool:
    """Whether a state that just arrived replaces the known one."""
    return rank(candidate) > rank(known)
