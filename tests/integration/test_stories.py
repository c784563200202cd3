"""Bookings that a guest moved by making a new one form one story, in any order of arrival."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.domain.events import read_booking, read_event
from app.domain.story import is_continued, tell
from tests.bridge import Bridge, sample
from workers.batch import Batch

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MOVED = {"reason": "Rescheduled by the attendee", "actionSource": "booking_page"}


def old(**more: Any) -> dict[str, Any]:
    """The first booking."""
    return sample("booking_created", id="old", createdAt="2026-11-20T09:00:00Z",
                  updatedAt="2026-11-20T09:00:00Z", **more)  # fmt: skip


def old_cancelled(**more: Any) -> dict[str, Any]:
    """Return the first booking, cancelled because another one took its place."""
    cancel = {**MOVED, "actionAt": "2026-11-21T10:00:05Z"}
    return sample("booking_cancelled", id="old", createdAt="2026-11-20T09:00:00Z",
                  updatedAt="2026-11-21T10:00:05Z", isCancelled=True, cancel=cancel, **more)  # fmt: skip


def new(**more: Any) -> dict[str, Any]:
    """Return the booking that takes its place, made a moment before the first one's cancel."""
    given = {"rescheduledFromId": "old", "start": "2026-12-08T09:00:00Z",
             "end": "2026-12-08T09:30:00Z", **more}  # fmt: skip
    return sample("booking_created", id="new", **{"createdAt": "2026-11-21T10:00:00Z", **given},
                  updatedAt="2026-11-21T10:00:00Z")  # fmt: skip


ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS, ids=[str(order) for order in ORDERS])
@pytest.mark.parametrize("step", ["each", "together"])
def test_one_deal_one_meeting_whichever_comes_first(
    crm: Bridge, provider: str, order: tuple[int, ...], step: str
) -> None:
    """Old booking, cancel and new booking give, in any order, one deal and one active meeting at
    the new time.
    """
    payloads = [old(), old_cancelled(), new()]
    for place in order:
        crm.post(payloads[place])
        if step == "each":
            crm.settle()
    crm.settle()
    there = crm.sandbox(provider).view()
    assert len(there.deals) == 1, there
    (meeting,) = there.meetings
    assert meeting.start == "2026-12-08T09:00:00Z"
    assert not meeting.cancelled
    states = {delivery.state for delivery in crm.deliveries()}
    assert states == {"synced", "skipped"}
    writes = crm.sandbox(provider).writes()
    for payload in payloads:
        crm.post({**payload, "marker": "again"})
    crm.settle()
    assert crm.sandbox(provider).writes() == writes


def test_the_circumstances_tell_it(crm: Bridge, provider: str) -> None:
    """If no id names the earlier booking, its cancel as moved and the time connect the two."""
    crm.sync(old())
    crm.sync(new(rescheduledFromId=None))
    assert len(crm.sandbox(provider).view().deals) == 2
    crm.sync(old_cancelled())
    there = crm.sandbox(provider).view()
    assert len(there.deals) == 1
    (meeting,) = there.meetings
    assert (meeting.start, meeting.cancelled) == ("2026-12-08T09:00:00Z", False)


def test_a_cancel_of_the_new_one_cancels_the_meeting(crm: Bridge, provider: str) -> None:
    """A cancel of the newest booking in a chain cancels the meeting."""
    for payload in (old(), old_cancelled(), new()):
        crm.sync(payload)
    gone = {"isCancelled": True, "updatedAt": "2026-11-22T10:00:00Z"}
    crm.sync({**new(), **gone, "webhookType": "booking_cancelled"})
    (meeting,) = crm.sandbox(provider).view().meetings
    assert meeting.cancelled


def test_a_chain_of_three_whatever_the_order(bridge: Bridge) -> None:
    """After two moves, the last booking holds the deal and the meeting of the first one."""
    third = sample("booking_created", id="third", createdAt="2026-11-22T10:00:00Z",
                   updatedAt="2026-11-22T10:00:00Z", rescheduledFromId="new",
                   start="2026-12-15T09:00:00Z", end="2026-12-15T09:30:00Z")  # fmt: skip
    for payload in (third, old_cancelled(), new(), old()):
        bridge.sync(payload)
    for provider in bridge.served:
        there = bridge.sandbox(provider).view()
        assert len(there.deals) == 1
        (meeting,) = there.meetings
        assert meeting.start == "2026-12-15T09:00:00Z"


def test_another_meeting_of_the_same_person_is_no_move() -> None:
    """Two bookings of a person are one story only if a cancel says that the meeting was moved."""
    first, second = booking(old_cancelled()), booking(new(rescheduledFromId=None))
    assert is_continued(first, second)
    ill = {"reason": "I am ill", "actionAt": "2026-11-21T10:00:05Z"}
    plain = booking({**old_cancelled(), "cancel": ill})
    assert not is_continued(plain, second)
    late = booking(new(rescheduledFromId=None, createdAt="2026-11-21T11:00:00Z"))
    assert not is_continued(first, late)
    other = booking(new(rescheduledFromId=None, attendees=[{"email": "omar@example.com"}]))
    assert not is_continued(first, other)


def test_two_that_claim_one_booking_stand_apart() -> None:
    """If two active bookings claim the same earlier one, only the first continues it."""
    before, one = booking(old_cancelled()), booking(new())
    two = booking({**new(), "id": "two", "createdAt": "2026-11-21T10:03:00Z"})
    members = [before, one, two]
    root = "default:old"
    assert tell(root, before, members).replaced_by == "new"
    assert tell(root, one, members).record_key == root
    assert tell(root, two, members).record_key == "default:two"


def booking(payload: dict[str, Any]) -> Any:
    """Return a booking as read from a webhook."""
    return read_booking(read_event("default", payload, NOW))


def test_what_is_in_hand_when_another_takes_its_place_is_looked_at_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the new booking arrives while the old one's cancel is being written, the cancel is skipped."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("pipedrive",)).connect_all()
    bridge.sync(old())
    write, came = Batch.apply, []

    def slowly(batch: Batch) -> None:
        if not came:
            came.append(bridge.post(new(rescheduledFromId=None)))
        write(batch)

    monkeypatch.setattr(Batch, "apply", slowly)
    bridge.sync(old_cancelled())
    assert sorted(row.state for row in bridge.deliveries()) == ["skipped", "synced"]
    (meeting,) = bridge.sandbox("pipedrive").view().meetings
    assert (meeting.start, meeting.cancelled) == ("2026-12-08T09:00:00Z", False)
    bridge.close()
