"""Reads meetergo's messages, both dialects and the REST shape, into an Event and its Booking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.domain.booking import Attendee, Booking, BookingStatus, Host, MeetingType, zone_of
from app.domain.errors import UnfitPayload
from app.domain.limits import BOOKING_KEY, EVENT_TYPE
from app.domain.people import normalise_email, normalise_phone, read_email
from app.domain.text import clean_text, cut, one_line
from app.domain.zones import read_zone

FORM_EVENT = "form_submission"
BOOKING_EVENTS = frozenset({"booking_created", "booking_rescheduled", "booking_cancelled"})
CANCELLED = "booking_cancelled"
LONGEST_TYPED = 200
"""Of what was typed in the place of an address, a number or a zone so much is kept."""
Json = Mapping[str, Any]
Place = tuple[str, ...]
"""Keys that lead to a value."""
PLACES: Mapping[str, tuple[Place, ...]] = {
    "location": (("location",), ("meetingInfo", "location"), ("hostingInfo", "location")),
    "link": (
        ("meetingInfo", "meetingLink"),
        ("hostingInfo", "meetingLink"),
        ("meetingInfo", "customChannelLink"),
    ),
    "channel": (("meetingInfo", "channel"), ("hostingInfo", "channel")),
    "company_id": (("companyId",),),
    "created_at": (("createdAt",),),
}
"""Where the values stand that meetergo's messages have at different places: webhooks in both
dialects, an appointment of the API, a page of them. https://developer.meetergo.com"""
TYPE_PLACES: Mapping[str, tuple[Place, ...]] = {
    "id": (("meetingType", "id"), ("meetingTypeId",)),
    "slug": (("meetingType", "slug"),),
    "name": (
        ("meetingType", "meetingInfo", "name"),
        ("meetingType", "name"),
        ("meetingInfo", "name"),
    ),
    "metadata": (("meetingType", "metadata"),),
}
"""The same for what was booked."""


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
        return CANCELLED
    return "booking_rescheduled" if appointment.get("rescheduledAt") else "booking_created"


def read_booking(event: Event) -> Booking:
    """Make the Booking that an event describes. Raises UnfitPayload naming the field at fault."""
    data = event.payload
    booking_id = _booking_id(event.source, one_line(data.get("id")))
    start = _required_time(data, "start")
    end = read_time(data.get("end"))
    if end is None or end < start:
        # A booking without a length still has a place in the calendar.
        end = start
    attendees, companions = _attendees(data)
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
        timezone=zone_of(attendees),
        location=_first(data, PLACES["location"]),
        link=_first(data, PLACES["link"]),
        channel=_first(data, PLACES["channel"]),
        company_id=one_line(data.get("companyId")),
        attendees=attendees,
        companions=companions,
        hosts=_hosts(data),
        meeting_type=_meeting_type(data),
        cancel_reason=clean_text(cancel.get("reason")),
        cancelled_by=one_line(cancel.get("actionBy")),
        cancelled_at=read_time(cancel.get("actionAt")),
        cancel_source=one_line(cancel.get("actionSource")),
        continues=_continues(data, booking_id),
        payload=data,
        conference=_conference(data),
        not_told=_not_told(event, data),
    )


def _not_told(event: Event, data: Json) -> dict[str, None]:
    """The fields of a booking that a message says nothing of."""
    lacking = {name: None for name, places in PLACES.items() if not _says(data, places)}
    if data.get("attendees") is None:
        lacking |= dict.fromkeys(("attendees", "companions"))
    if data.get("hosts") is None and data.get("hostIds") is None:
        lacking["hosts"] = None
    if "hostingInfo" not in data:
        lacking["conference"] = None
    if "cancel" not in data:
        lacking |= dict.fromkeys(("cancel_reason", "cancelled_by", "cancelled_at", "cancel_source"))
        if "isCancelled" not in data and "hostingInfo" in data and event.type != CANCELLED:
            # The API shows an appointment, and says nothing of whether it is on.
            lacking["status"] = None
    return lacking


def _says(data: Json, places: Iterable[Place]) -> bool:
    """Whether a message has one of these places, were it empty."""
    return any(place[-1] in _inside(data, place) for place in places)


def _first(data: Json, places: Iterable[Place]) -> str | None:
    """What stands at the first of these places that is not empty."""
    found = (one_line(_inside(data, place).get(place[-1])) for place in places)
    return next(filter(None, found), None)


def _inside(data: Json, place: Place) -> Json:
    for key in place[:-1]:
        data = _object(data.get(key))
    return data


def _conference(data: Json) -> dict[str, str]:
    """The meeting's ids at those who host it, of the API's `hostingInfo`."""
    hosting = _object(data.get("hostingInfo"))
    return {
        str(name): text
        for name, value in hosting.items()
        if name != "meetingLink" and (text := one_line(value))
    }


def _booking_id(source: str, booking_id: str | None) -> str:
    if not booking_id:
        raise UnfitPayload("id is missing")
    if len(source) + 1 + len(booking_id) > BOOKING_KEY:
        raise UnfitPayload(f"id is longer than {BOOKING_KEY - len(source) - 1} characters")
    return booking_id


def _continues(data: Json, own_id: str) -> str | None:
    """Id of the booking that this one takes the place of. https://developer.meetergo.com"""
    other = one_line(data.get("rescheduledFromId"))
    other = other or one_line(_object(data.get("rescheduledFrom")).get("id"))
    return other if other and other != own_id and len(other) <= BOOKING_KEY // 2 else None


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
    cancelled = flag if isinstance(flag, bool) else kind == CANCELLED
    return BookingStatus.CANCELLED if cancelled else BookingStatus.SCHEDULED


def _attendees(data: Json) -> tuple[tuple[Attendee, ...], tuple[Attendee, ...]]:
    """Everybody who takes part, in order, each person once; and who is one of them by address alone.

    Raises UnfitPayload for what is no list of objects.
    """
    given = data.get("attendees")
    if given is not None and (not isinstance(given, list) or len(_objects(given)) < len(given)):
        # Read as nobody it would unlink everybody of a booking that is known.
        raise UnfitPayload("attendees is not a list of objects")
    people: dict[str, Attendee] = {}
    doubles: list[tuple[str, Attendee]] = []
    for number, item in enumerate(_objects(data.get("attendees"))):
        person = _attendee(number, item)
        key = person.identity or f"nobody:{number}"
        if key in people:
            doubles.append((key, person))
        people.setdefault(key, person)
    # Somebody with an address is known by it, also where he is named once more by his number alone.
    by_phone = {p.phone: key for key, p in reversed(people.items()) if p.email and p.phone}
    for key, person in list(people.items()):
        if not person.email and person.phone in by_phone:
            doubles.append((by_phone[person.phone], people.pop(key)))
            # Who was folded into this one goes with it.
            doubles = [(by_phone[person.phone] if k == key else k, d) for k, d in doubles]
    places = {key: place for place, key in enumerate(people)}
    attendees = tuple(replace(p, position=places[key]) for key, p in people.items())
    folded = sorted(doubles, key=lambda double: double[1].position)
    return attendees, tuple(
        replace(double, position=places[key])
        for key, double in folded
        if _says_more(double, people[key])
    )


def _says_more(double: Attendee, person: Attendee) -> bool:
    """Whether somebody who is folded into another's contact is or says anything else than that one."""
    named = double.full_name not in (None, person.full_name)
    typed = (double.phone_as_given, double.phone, person.phone_as_given)
    other_phone = bool(typed[0]) and typed[0] != typed[2] and typed[1] != person.phone
    unread = double.email_as_given if not double.email else None
    other_address = bool(unread) and unread != person.email_as_given
    return (
        named
        or other_phone
        or other_address
        or not double.answers.items() <= person.answers.items()
    )


def _attendee(position: int, item: Json) -> Attendee:
    zone = _typed(item.get("timezone"))
    language = one_line(item.get("language"))
    email, beside = read_email(item.get("email"))
    first, last, full = _names(item)
    if beside and not full:
        first, last, full = _names({"fullname": beside})
    given = _typed(item.get("phone"))
    return Attendee(
        position=position,
        id=one_line(item.get("id")),
        email=email,
        email_as_given=_typed(item.get("email")),
        first_name=first,
        last_name=last,
        full_name=full,
        phone=normalise_phone(given, zone, language),
        phone_as_given=given,
        timezone=read_zone(zone),
        timezone_as_given=zone,
        language=language,
        answers=_answers(item.get("notes")),
        choices=_choices(item.get("notes")),
        not_told=_person_lacks(item),
    )


def _person_lacks(item: Json) -> dict[str, None]:
    """The fields of an attendee that a message says nothing of."""
    fields = {
        ("notes",): ("answers", "choices"),
        ("phone",): ("phone", "phone_as_given"),
        ("timezone",): ("timezone", "timezone_as_given"),
        ("language",): ("language",),
        ("fullname", "firstname", "lastname"): ("first_name", "last_name", "full_name"),
    }
    return {
        name: None
        for keys, names in fields.items()
        if not any(key in item for key in keys)
        for name in names
    }


def _typed(value: object) -> str | None:
    """What somebody typed, on one line; of what is far too long the beginning."""
    text = one_line(value)
    return cut(text, LONGEST_TYPED) if text else None


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


def _hosts(data: Json) -> tuple[Host, ...]:
    """Who holds the meeting; where only ids are told, nothing but those is known of them."""
    if data.get("hosts") is not None:
        return tuple(_host(item) for item in _objects(data["hosts"]))
    ids = data.get("hostIds")
    names = [one_line(item) for item in ids] if isinstance(ids, list) else []
    lacking = dict.fromkeys(("email", "first_name", "last_name", "full_name"))
    return tuple(Host(id=name, not_told=lacking) for name in names if name)


def _host(item: Json) -> Host:
    first, last = one_line(item.get("givenName")), one_line(item.get("familyName"))
    return Host(
        id=one_line(item.get("id")),
        email=normalise_email(item.get("email")),
        first_name=first,
        last_name=last,
        full_name=one_line(item.get("fullName")) or " ".join(filter(None, (first, last))) or None,
        not_told={} if "email" in item else {"email": None},
    )


def _meeting_type(data: Json) -> MeetingType:
    metadata = _object(_object(data.get("meetingType")).get("metadata"))
    return MeetingType(
        id=_first(data, TYPE_PLACES["id"]),
        slug=_first(data, TYPE_PLACES["slug"]),
        name=_first(data, TYPE_PLACES["name"]),
        metadata={str(k): text for k, v in metadata.items() if (text := _metadata(v))},
        not_told={name: None for name, places in TYPE_PLACES.items() if not _says(data, places)},
    )


def read_meeting_type(item: Json) -> MeetingType:
    """A meeting type as meetergo's API shows it."""
    return _meeting_type({"meetingType": item})


def _metadata(value: object) -> str | None:
    return str(value).lower() if isinstance(value, bool) else clean_text(value)


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def local(moment: datetime, zone: str) -> datetime:
    """A UTC time as the clock on the wall of a zone shows it."""
    return moment.astimezone(ZoneInfo(zone))
