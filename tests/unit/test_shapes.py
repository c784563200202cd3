"""meetergo's different message shapes give one booking, in any order."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.booking import Booking
from app.domain.events import Event, kind_of, read_booking, read_event, without_secret
from app.domain.merge import is_more_than_said, merge, says_the_same
from sandbox.meetergo import MeetergoSandbox
from tests.bridge import sample

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
WEBHOOKS = (
    "booking_created", "booking_rescheduled", "booking_cancelled", "envelope_dialect_created",
    "group_booking_created", "group_attendee_removed", "phone_only_created",
)  # fmt: skip


def webhook(name: str, at: datetime = NOW, **changes: Any) -> Booking:
    """Return a booking in the shape of a webhook."""
    return read_booking(read_event("default", sample(name, **changes), at))


def appointment(payload: dict[str, Any], at: datetime = NOW, **changes: Any) -> Booking:
    """Return the same booking in the shape of meetergo's API, alone or on a page."""
    meetergo = MeetergoSandbox()
    meetergo.book(payload)
    (shown,) = meetergo.appointments.values()
    safe = without_secret({**shown, **changes})
    return read_booking(Event("default", kind_of(safe), safe, at))


@pytest.mark.parametrize("name", WEBHOOKS)
@pytest.mark.parametrize("without", [(), ("updatedAt",), ("hosts",), ("createdAt", "companyId")])
def test_the_same_state_in_the_apis_shape_is_no_news(name: str, without: tuple[str, ...]) -> None:
    """After a webhook, the same state from the API writes nothing and loses nothing."""
    known = webhook(name)
    payload = sample(name).get("data", sample(name))
    less = {key: value for key, value in payload.items() if key not in without}
    found = appointment(less, NOW + timedelta(minutes=3))
    assert not is_more_than_said(known, found)
    kept = merge(known, found)
    assert says_the_same(kept, known)
    assert kept.meeting_type.slug == "discovery-call"
    assert kept.hosts[0].email == "john@acme.example"


def test_the_api_alone_says_link_name_and_conference() -> None:
    """meetingInfo and hostingInfo are separate, and each value is read from its own place."""
    found = appointment(sample("booking_created"))
    assert found.link == "https://zoom.us/j/99900011122"
    assert (found.channel, found.meeting_type.name) == ("zoom", "Discovery Call")
    assert (found.meeting_type.id, found.meeting_type.slug) == ("mt1", None)
    assert found.conference["zoomMeetingId"] == "99900011122"


def test_a_move_that_only_the_api_tells_loses_nothing() -> None:
    """A move known only from the API keeps type, metadata and the webhook's other values; the new
    time counts.
    """
    moved = {"start": "2026-12-02T14:00:00Z", "end": "2026-12-02T14:30:00Z",
             "updatedAt": "2026-11-25T08:00:00Z"}  # fmt: skip
    kept = merge(webhook("booking_created"), appointment(sample("booking_created", **moved)))
    assert kept.start == datetime(2026, 12, 2, 14, tzinfo=UTC)
    assert (kept.meeting_type.slug, kept.meeting_type.metadata) == (
        "discovery-call", {"source": "website"},
    )  # fmt: skip
    assert kept.link == "https://zoom.us/j/99900011122"
    assert kept.conference["zoomMeetingId"] == "99900011122"
    assert kept.payload["meetingType"]["slug"] == "discovery-call"


def test_said_and_empty_is_something_else() -> None:
    """An empty place in a message empties the place; a message without the key keeps it."""
    known = webhook("booking_created", location="Room 7")
    later = {"updatedAt": "2026-11-25T08:00:00Z"}
    silent = {k: v for k, v in sample("booking_created", **later).items() if k != "location"}
    assert merge(known, read_booking(read_event("default", silent, NOW))).location == "Room 7"
    assert merge(known, webhook("booking_created", location=None, **later)).location is None


def test_held_another_way_it_has_no_old_link() -> None:
    """A change from Zoom to the telephone removes the old link, which the message does not mention."""
    later = {"updatedAt": "2026-11-25T08:00:00Z", "meetingInfo": {"channel": "phone"}}
    assert merge(webhook("booking_created"), webhook("booking_created", **later)).link is None


def test_hosts_that_are_told_by_their_ids_keep_their_names() -> None:
    """A new host with an id only does not get the earlier host's name."""
    same = {k: v for k, v in sample("booking_created").items() if k != "hosts"}
    kept = merge(
        webhook("booking_created"), appointment({**same, "updatedAt": "2026-11-26T00:00:00Z"})
    )
    assert [host.email for host in kept.hosts] == ["john@acme.example"]
    other = {**same, "hostIds": ["h2"], "updatedAt": "2026-11-27T00:00:00Z"}
    assert [(h.id, h.email) for h in merge(kept, appointment(other)).hosts] == [("h2", None)]


def test_no_word_on_a_cancel_leaves_it_cancelled() -> None:
    """An API answer without the cancel flag leaves a cancelled booking cancelled."""
    shown = {
        k: v for k, v in sample("booking_cancelled").items() if k not in ("isCancelled", "cancel")
    }
    found = appointment({**shown, "updatedAt": "2026-11-26T00:00:00Z"})
    kept = merge(webhook("booking_cancelled"), found)
    assert kept.cancelled and kept.cancel_reason == "Conflict"


FIELDS: dict[str, Any] = {
    "location": st.sampled_from([None, "Room 7", "Hall"]),
    "meetingInfo": st.sampled_from([{"channel": "zoom"}, {"channel": "zoom", "meetingLink": "https://z.example/1"}, None]),
    "hostingInfo": st.sampled_from([{"meetingLink": "https://z.example/2", "zoomMeetingId": 7}, {}]),
    "meetingType": st.sampled_from([{"id": "mt1", "slug": "demo"}, {"id": "mt1", "metadata": {"a": "b"}}]),
    "meetingTypeId": st.sampled_from(["mt1"]),
    "hostIds": st.sampled_from([["h1"]]),
    "hosts": st.sampled_from([[{"id": "h1", "email": "john@acme.example"}]]),
    "cancel": st.sampled_from([None, {"reason": "ill"}]),
    "attendees": st.sampled_from([
        [{"email": "a@x.example", "firstname": "A", "lastname": "B", "notes": {"Q": "1"}}],
        [{"email": "a@x.example", "firstname": "A", "lastname": "B", "phone": "+4915123456789"}],
    ]),
}  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> list[Booking]:
    """Draw messages about one booking, each newer than the one before, each with some keys missing."""
    found = []
    for step in range(draw(st.integers(2, 4))):
        told = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True))
        body: dict[str, Any] = {name: draw(FIELDS[name]) for name in told}
        at = (NOW + timedelta(minutes=step)).isoformat()
        body |= {"id": "b1", "start": "2026-12-01T09:00:00Z", "end": "2026-12-01T09:30:00Z",
                 "updatedAt": at, "webhookType": "booking_created"}  # fmt: skip
        found.append(read_booking(read_event("default", body, NOW)))
    return found


@given(messages())
def test_whatever_order_they_come_in_it_ends_the_same(states: list[Booking]) -> None:
    """In any order, each field comes from the newest message that has it."""

    def put_together(order: tuple[Booking, ...]) -> Booking:
        kept = order[0]
        for state in order[1:]:
            kept = merge(kept, state)
        return kept

    ends = [put_together(order) for order in itertools.permutations(states)]
    assert all(says_the_same(ends[0], end) for end in ends)
    assert all(end.conference == ends[0].conference for end in ends)
    assert all(end.payload == ends[0].payload for end in ends)
