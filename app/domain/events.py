"""Reads meetergo's messages, both dialects and the REST shape, into an Event and its Booking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from app.domain.booking import Attendee, Booking, BookingStatus, Host, MeetingType
from app.domain.errors import UnfitPayload
from app.domain.limits import BOOKING_KEY, EVENT_TYPE
from app.domain.people import normalise_email, normalise_phone
from app.domain.text import clean_text, one_line

FORM_EVENT = "form_submission"
BOOKING_EVENTS = frozenset({"booking_created", "booking_rescheduled", "booking_cancelled"})
_ZONES = available_timezones()
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """One message of meetergo, without the credential that it carries."""

    source: str
    type: str
    payload: Json
    received_at: datetime

    @property
    def concerns_booking(self) -> bool:
        """Whether the message describes a booking."""
        return self.type in BOOKING_EVENTS

    @property
    def dedupe_key(self) -> str:
        """Equal for two deliveries of one message, however it was serialised; kept for ever."""
        canonical = json.dumps(
            {"type": self.type, "payload": self.payload}, sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(f"{self.source}\0{canonical}".encode("utf-8", "replace")).hexdigest()


def read_event(source: str, document: object, received_at: datetime) -> Event:
    """Make an Event of a parsed body in either dialect. Raises UnfitPayload where it is neither."""
    if not isinstance(document, Mapping):
        raise UnfitPayload("the body is JSON but not an object")
    safe = without_secret(document)
    data = safe.get("data")
    if isinstance(safe.get("event"), str) and isinstance(data, Mapping):
        return Event(source, _kind(safe["event"]), data, received_at)
    if not isinstance(safe.get("webhookType"), str):
        raise UnfitPayload("neither webhookType nor event and data are there")
    payload = {key: value for key, value in safe.items() if key != "webhookType"}
    return Event(source, _kind(safe["webhookType"]), payload, received_at)


def _kind(name: str) -> str:
    kind = one_line(name)
    if not kind:
        raise UnfitPayload("neither webhookType nor event and data are there")
    if len(kind) > EVENT_TYPE:
        raise UnfitPayload(f"the event's name is longer than {EVENT_TYPE} characters")
    return kind


def without_secret(value: Any) -> Any:
    """Drop every `secret`: it lets anyone cancel the booking, so it is never kept anywhere.

    Half a character, as JavaScript leaves one where it cuts an emoji in two, becomes a question mark:
    nothing that keeps or sends text takes it.
    """
    if isinstance(value, Mapping):
        return {_whole(str(k)): without_secret(v) for k, v in value.items() if k != "secret"}
    if isinstance(value, list):
        return [without_secret(item) for item in value]
    return _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def kind_of(appointment: Json) -> str:
    """The event that an appointment's present state would have come with, as the API shows it."""
    flag = appointment.get("isCancelled")
    cancelled = flag if isinstance(flag, bool) else bool(_object(appointment.get("cancel")))
    if cancelled:
        return "booking_cancelled"
    return "booking_rescheduled" if appointment.get("rescheduledAt") else "booking_created"


def read_booking(event: Event) -> Booking:
    """Make the Booking that an event describes. Raises UnfitPayload naming the field at fault."""
    data = event.payload
    booking_id = _booking_id(event.source, one_line(data.get("id")))
    start = _required_time(data, "start")
    end = read_time(data.get("end"))
    kind = _object(data.get("meetingType"))
    if end is None or end < start:
        # A booking without a length still has a place in the calendar.
        end = start
    attendees = _attendees(data)
    info = _object(data.get("meetingInfo")) or _object(data.get("hostingInfo"))
    cancel = _object(data.get("cancel"))
    return Booking(
        source=event.source,
        id=booking_id,
        status=_status(event.type, data),
        start=start,
        end=end,
        received_at=event.received_at,
        updated_at=read_time(data.get("updatedAt")),
        created_at=read_time(data.get("createdAt")),
        rescheduled=event.type == "booking_rescheduled" or bool(data.get("rescheduledAt")),
        timezone=_timezone(attendees),
        location=one_line(data.get("location")),
        link=one_line(info.get("meetingLink")),
        channel=one_line(info.get("channel")),
        company_id=one_line(data.get("companyId")),
        attendees=attendees,
        hosts=tuple(_host(item) for item in _objects(data.get("hosts"))),
        meeting_type=_meeting_type(kind, data),
        cancel_reason=clean_text(cancel.get("reason")),
        cancelled_by=one_line(cancel.get("actionBy")),
        cancelled_at=read_time(cancel.get("actionAt")),
        payload=data,
    )


def _booking_id(source: str, booking_id: str | None) -> str:
    if not booking_id:
        raise UnfitPayload("id is missing")
    if len(source) + 1 + len(booking_id) > BOOKING_KEY:
        raise UnfitPayload(f"id is longer than {BOOKING_KEY - len(source) - 1} characters")
    return booking_id


def with_details(booking: Booking, appointment: Json) -> Booking:
    """The same state of a booking with the answers that meetergo's API has and the webhook lacks.

    Raises UnfitPayload where the appointment is none.
    """
    event = Event(booking.source, "booking_created", appointment, booking.received_at)
    told = {person.identity: person for person in read_booking(event).attendees}
    people = []
    for person in booking.attendees:
        other = told.get(person.identity)
        lacking = other is not None and not person.answers
        people.append(
            replace(person, answers=other.answers, choices=other.choices)
            if other and lacking
            else person
        )
    return replace(booking, attendees=tuple(people))


def read_form(event: Event) -> Booking | None:
    """Make a Booking without a meeting of a submitted form; None where it names nobody.

    Only the event's name is documented, so everything is read where it may stand.
    """
    data = event.payload
    contact = _object(data.get("contact")) or _object(data.get("attendee")) or data
    answers = _object(data.get("answers")) or _object(data.get("fields"))
    person = _attendee(0, {**contact, "notes": answers or contact.get("notes")})
    booking_id = one_line(data.get("id")) or person.identity
    if person.identity is None or booking_id is None:
        return None
    at = read_time(data.get("createdAt")) or event.received_at
    return Booking(
        source=event.source,
        id=_booking_id(event.source, f"form-{booking_id}"),
        status=BookingStatus.SCHEDULED,
        start=at,
        end=at,
        received_at=event.received_at,
        updated_at=read_time(data.get("updatedAt")) or at,
        created_at=at,
        timezone=person.timezone or "UTC",
        company_id=one_line(data.get("companyId")),
        attendees=(person,),
        meeting_type=MeetingType(name=one_line(data.get("formName"))),
        form=True,
        payload=data,
    )


def read_time(value: object) -> datetime | None:
    """Read an ISO 8601 time as UTC; a time without an offset counts as UTC. None where unreadable."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if not 1000 <= moment.year <= 9000:
        return None  # at the ends of the calendar no other zone has such a time
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _required_time(data: Json, key: str) -> datetime:
    moment = read_time(data.get(key))
    if moment is None:
        raise UnfitPayload(f"{key} is missing or not a time")
    return moment


def _status(kind: str, data: Json) -> BookingStatus:
    # booking_cancelled also comes when one attendee leaves a group: isCancelled, where it is
    # there, says whether the meeting itself is off.
    flag = data.get("isCancelled")
    cancelled = flag if isinstance(flag, bool) else kind == "booking_cancelled"
    return BookingStatus.CANCELLED if cancelled else BookingStatus.SCHEDULED


def _timezone(attendees: tuple[Attendee, ...]) -> str:
    return next((a.timezone for a in attendees if a.timezone), "UTC")


def _attendees(data: Json) -> tuple[Attendee, ...]:
    """Everybody who takes part, in order; a person named twice counts once, with one name.

    Raises UnfitPayload for what is no list of objects.
    """
    given = data.get("attendees")
    if given is not None and (not isinstance(given, list) or len(_objects(given)) < len(given)):
        # Read as nobody it would unlink everybody of a booking that is known.
        raise UnfitPayload("attendees is not a list of objects")
    people: list[Attendee] = []
    seen: set[str] = set()
    for item in _objects(data.get("attendees")):
        person = _attendee(len(people), item)
        if person.identity and person.identity in seen:
            continue
        seen.add(person.identity or "")
        people.append(person)
    # Somebody with an address is known by it, also where he is named once more by his number alone.
    phones = {person.phone for person in people if person.email}
    return tuple(
        replace(person, position=position)
        for position, person in enumerate(p for p in people if p.email or p.phone not in phones)
    )


def _attendee(position: int, item: Json) -> Attendee:
    zone = one_line(item.get("timezone"))
    language = one_line(item.get("language"))
    first, last, full = _names(item)
    given = one_line(item.get("phone"))
    return Attendee(
        position=position,
        id=one_line(item.get("id")),
        email=normalise_email(item.get("email")),
        first_name=first,
        last_name=last,
        full_name=full,
        phone=normalise_phone(given, zone, language),
        phone_as_given=given,
        timezone=zone if zone in _ZONES else None,
        language=language,
        answers=_answers(item.get("notes")),
        choices=_choices(item.get("notes")),
    )


def _names(item: Json) -> tuple[str | None, str | None, str | None]:
    """First, last and full name as meetergo gives them; nothing is split at a blank.

    A full name that says more than its parts stands whole as the last name, the field that every
    CRM shows and one demands.
    """
    first, last = one_line(item.get("firstname")), one_line(item.get("lastname"))
    parts = " ".join(filter(None, (first, last))) or None
    full = one_line(item.get("fullname")) or parts
    if full and full != parts and not (first and last):
        first, last = None, full
    return first, last, full


def _answers(notes: object) -> dict[str, str]:
    """Question label -> answer as text; several choices are joined with commas."""
    if not isinstance(notes, Mapping):
        return {}
    answers = {}
    for label, value in notes.items():
        parts = value if isinstance(value, list) else [value]
        texts = ["yes" if p is True else "no" if p is False else clean_text(p) for p in parts]
        name, text = one_line(label), ", ".join(t for t in texts if t)
        if name and text:
            answers[name] = text
    return answers


def _choices(notes: object) -> dict[str, tuple[str, ...]]:
    """Question label -> the choices, where there are several."""
    if not isinstance(notes, Mapping):
        return {}
    return {
        name: texts
        for label, value in notes.items()
        if isinstance(value, list)
        and (name := one_line(label))
        and (texts := tuple(text for part in value if (text := clean_text(part))))
    }


def _host(item: Json) -> Host:
    first, last = one_line(item.get("givenName")), one_line(item.get("familyName"))
    return Host(
        id=one_line(item.get("id")),
        email=normalise_email(item.get("email")),
        first_name=first,
        last_name=last,
        full_name=one_line(item.get("fullName")) or " ".join(filter(None, (first, last))) or None,
    )


def _meeting_type(kind: Json, data: Json) -> MeetingType:
    metadata = _object(kind.get("metadata"))
    return MeetingType(
        id=one_line(kind.get("id")) or one_line(data.get("meetingTypeId")),
        slug=one_line(kind.get("slug")),
        name=one_line(_object(kind.get("meetingInfo")).get("name")) or one_line(kind.get("name")),
        metadata={str(k): text for k, v in metadata.items() if (text := _metadata(v))},
    )


def _metadata(value: object) -> str | None:
    return str(value).lower() if isinstance(value, bool) else clean_text(value)


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def local(moment: datetime, zone: str) -> datetime:
    """A UTC time as the clock on the wall of a zone shows it."""
    return moment.astimezone(ZoneInfo(zone))
