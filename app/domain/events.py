"""Reads meetergo's messages, in both dialects and the REST form, into an Event and its Booking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.domain.booking import Booking, BookingStatus, MeetingType, zone_of
from app.domain.errors import UnfitPayload
from app.domain.limits import BOOKING_KEY, EVENT_TYPE
from app.domain.message_json import Json, Place, as_object, first_text, says
from app.domain.participants import check_attendees, read_attendee, read_attendees, read_hosts
from app.domain.text import clean_text, one_line

FORM_EVENT = "form_submission"
BOOKING_EVENTS = frozenset({"booking_created", "booking_rescheduled", "booking_cancelled"})
CANCELLED = "booking_cancelled"
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
"""Places of values that differ between meetergo's messages: webhooks in both dialects, an
appointment of the API, a page of appointments. https://developer.meetergo.com"""
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
"""The same for the meeting type."""


@dataclass(frozen=True)
class Event:
    """One message of meetergo, without the credential that it contains."""

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
        """Equal for two deliveries of one message, in any serialisation; kept for ever."""
        canonical = json.dumps(
            {"type": self.type, "payload": self.payload}, sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(f"{self.source}\0{canonical}".encode("utf-8", "replace")).hexdigest()


def read_event(source: str, document: object, received_at: datetime) -> Event:
    """Make an Event from a parsed body in either dialect. Raises UnfitPayload if it is neither."""
    if not isinstance(document, Mapping):
        raise UnfitPayload("the body is JSON but not an object")
    safe = without_secret(document)
    data = safe.get("data")
    if isinstance(safe.get("event"), str) and isinstance(data, Mapping):
        return Event(source, _kind(safe["event"]), data, received_at)
    if not isinstance(safe.get("webhookType"), str):
        raise UnfitPayload("the body has neither webhookType nor event and data")
    payload = {key: value for key, value in safe.items() if key != "webhookType"}
    return Event(source, _kind(safe["webhookType"]), payload, received_at)


def _kind(name: str) -> str:
    kind = one_line(name)
    if not kind:
        raise UnfitPayload("the body has neither webhookType nor event and data")
    if len(kind) > EVENT_TYPE:
        raise UnfitPayload(f"the event's name is longer than {EVENT_TYPE} characters")
    return kind


def without_secret(value: Any) -> Any:
    """Drop every `secret`: it lets anyone cancel the booking, so it is never stored.

    A lone surrogate, which JavaScript leaves if it cuts an emoji in two, becomes a question mark:
    no database and no API accepts it.
    """
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, dict):
        return {_whole(str(k)): without_secret(v) for k, v in value.items() if k != "secret"}
    return [without_secret(item) for item in value] if isinstance(value, list) else value


def _whole(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def kind_of(appointment: Json) -> str:
    """Return the event type that fits the present state of an appointment from the API."""
    flag = appointment.get("isCancelled")
    cancelled = flag if isinstance(flag, bool) else bool(as_object(appointment.get("cancel")))
    if cancelled:
        return CANCELLED
    return "booking_rescheduled" if appointment.get("rescheduledAt") else "booking_created"


@dataclass(frozen=True)
class Outline:
    """What has to be known of an event before it is stored: a fraction of the work to read it all."""

    booking_key: str
    company_id: str | None
    form: bool = False


def outline(event: Event) -> Outline:
    """Check a booking's event; return its outline. Raises UnfitPayload, as `read_booking` does."""
    booking_id = _booking_id(event.source, one_line(event.payload.get("id")))
    _required_time(event.payload, "start")
    check_attendees(event.payload)
    return Outline(f"{event.source}:{booking_id}", _company(event.payload))


def _company(data: Json) -> str | None:
    return one_line(data.get("companyId"))


def read_booking(event: Event) -> Booking:
    """Make the Booking that an event describes. Raises UnfitPayload that names the bad field."""
    data = event.payload
    booking_id = _booking_id(event.source, one_line(data.get("id")))
    start = _required_time(data, "start")
    end = read_time(data.get("end"))
    if end is None or end < start:
        # A booking without a length still has a place in the calendar.
        end = start
    attendees, companions = read_attendees(data)
    cancel = as_object(data.get("cancel"))
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
        location=first_text(data, PLACES["location"]),
        link=first_text(data, PLACES["link"]),
        channel=first_text(data, PLACES["channel"]),
        company_id=_company(data),
        attendees=attendees,
        companions=companions,
        hosts=read_hosts(data),
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
    """Return the fields of a booking that a message does not mention."""
    lacking = {name: None for name, places in PLACES.items() if not says(data, places)}
    if data.get("attendees") is None:
        lacking |= dict.fromkeys(("attendees", "companions"))
    if data.get("hosts") is None and data.get("hostIds") is None:
        lacking["hosts"] = None
    if "hostingInfo" not in data:
        lacking["conference"] = None
    if "cancel" not in data:
        lacking |= dict.fromkeys(("cancel_reason", "cancelled_by", "cancelled_at", "cancel_source"))
        if "isCancelled" not in data and "hostingInfo" in data and event.type != CANCELLED:
            # The API's appointment does not say whether it is cancelled.
            lacking["status"] = None
    return lacking


def _conference(data: Json) -> dict[str, str]:
    """Return the meeting's ids in the video services, from the API's `hostingInfo`."""
    hosting = as_object(data.get("hostingInfo"))
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
    """Return the id of the booking that this one replaces. https://developer.meetergo.com"""
    other = one_line(data.get("rescheduledFromId"))
    other = other or one_line(as_object(data.get("rescheduledFrom")).get("id"))
    return other if other and other != own_id and len(other) <= BOOKING_KEY // 2 else None


def read_form(event: Event) -> Booking | None:
    """Make a Booking without a meeting from a submitted form; None if it identifies nobody.

    Only the event's name is documented, so each value is read at every possible place.
    """
    data = event.payload
    contact = as_object(data.get("contact")) or as_object(data.get("attendee")) or data
    answers = as_object(data.get("answers")) or as_object(data.get("fields"))
    person = read_attendee(0, {**contact, "notes": answers or contact.get("notes")})
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
        company_id=_company(data),
        attendees=(person,),
        meeting_type=MeetingType(name=one_line(data.get("formName"))),
        form=True,
        payload=data,
    )


def read_time(value: object) -> datetime | None:
    """Read an ISO 8601 time as UTC; a time without an offset counts as UTC. None if unreadable."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if not 2 <= moment.year <= 9998:
        return None  # close to the calendar's ends, other zones have no such time
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    return moment if 1000 <= moment.year <= 9000 else None


def _required_time(data: Json, key: str) -> datetime:
    moment = read_time(data.get(key))
    if moment is None:
        raise UnfitPayload(f"{key} is missing or not a time")
    return moment


def _status(kind: str, data: Json) -> BookingStatus:
    # booking_cancelled also comes when one attendee leaves a group: isCancelled, if it is present,
    # says whether the meeting itself is cancelled.
    flag = data.get("isCancelled")
    cancelled = flag if isinstance(flag, bool) else kind == CANCELLED
    return BookingStatus.CANCELLED if cancelled else BookingStatus.SCHEDULED


def _meeting_type(data: Json) -> MeetingType:
    metadata = as_object(as_object(data.get("meetingType")).get("metadata"))
    return MeetingType(
        id=first_text(data, TYPE_PLACES["id"]),
        slug=first_text(data, TYPE_PLACES["slug"]),
        name=first_text(data, TYPE_PLACES["name"]),
        metadata={str(k): text for k, v in metadata.items() if (text := _metadata(v))},
        not_told={name: None for name, places in TYPE_PLACES.items() if not says(data, places)},
    )


def read_meeting_type(item: Json) -> MeetingType:
    """Read a meeting type from meetergo's API."""
    return _meeting_type({"meetingType": item})


def _metadata(value: object) -> str | None:
    return str(value).lower() if isinstance(value, bool) else clean_text(value)
