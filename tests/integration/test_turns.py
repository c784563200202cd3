"""Live bookings go between the calls of a backlog; no backlog work is lost or read again for ever."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidRecord
from app.domain.rate_limits import MakeWay
from app.store.models import DeliveryRow, RecordLink
from crm_adapters.finder import number_at_end
from sandbox.serve import load_sandbox
from tests.between import Asked, Between, Right
from tests.bridge import PROVIDERS, Bridge, sample
from tests.contract.desk import desk_in
from tests.contract.test_adapters import only, person
from workers import drain
from workers.turn import LONG, PARTS, SHORT, Turn

A_NODE = 0.015
"""The extra seconds per record in a call that writes many records, each with a name of its own."""
LONGEST_WAIT = 3.0
"""The seconds that the service promises."""
LIVE = "somebody.example"
"""The text in every call about the live booking; the @ of an address has another form in paths."""


class Slow:
    """A CRM with slow calls, on a simulated clock."""

    def __init__(self, a_call: float) -> None:
        self.now, self._a_call = 0.0, a_call
        self.asked: list[tuple[float, Asked]] = []
        self._lock = threading.Lock()

    def clock(self) -> float:
        """Return the seconds that all calls took so far."""
        return self.now

    def __call__(self, asked: Asked, _right: Right) -> None:
        with self._lock:
            self.now += self._a_call + A_NODE * asked.body.count(b'"referenceId"')
            self.asked.append((self.now, asked))


@pytest.fixture(params=PROVIDERS)
def crm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bridge]:
    """The service with one CRM behind a server that counts."""
    between = Between(load_sandbox(request.param)())
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", served={request.param: between})
    bridge.connect(request.param)
    bridge.drain(warm_only=True)
    yield bridge
    bridge.close()


@pytest.fixture
def slow(crm: Bridge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """Make the CRM's calls slow."""
    desk = desk_in(crm)
    slow = Slow(desk.seconds_a_call)
    monkeypatch.setattr(drain, "Turn", partial(Turn, clock=slow.clock))
    for name in desk.clocks:
        monkeypatch.setattr(name, slow.clock)
    between = next(iter(crm.served.values()))
    assert isinstance(between, Between)
    with between.answering(slow):
        yield slow


def fill(crm: Bridge, number: int) -> None:
    """Store bookings of strangers as backlog."""
    for n in range(number):
        stranger = [person(f"p{n}@gmail.com")]
        crm.post(sample("booking_created", id=f"old{n}", attendees=stranger))
    with crm.services.store.write() as session:
        session.query(DeliveryRow).update({"backlog": True})


def book(crm: Bridge, name: str = "live", email: str = f"live@{LIVE}") -> None:
    """Post a live booking."""
    crm.post(sample("booking_created", id=name, attendees=[person(email)]))


def test_a_live_booking_gets_in_between_the_calls_of_a_backlog(crm: Bridge, slow: Slow) -> None:
    """A live booking posted as a batch begins reaches the CRM before the rest of that batch."""
    number = desk_in(crm).backlog
    fill(crm, number)
    between, begun = next(iter(crm.served.values())), []

    def booked_meanwhile(asked: Asked, right: Right) -> None:
        slow(asked, right)
        if not begun:
            begun.append(slow.now)
            book(crm)

    between.instead = booked_meanwhile
    crm.settle()
    about = [at for at, asked in slow.asked if LIVE.encode() in asked.body + asked.path.encode()]
    assert about[0] - begun[0] <= LONGEST_WAIT
    assert slow.now - begun[0] > 1.5 * LONGEST_WAIT, "the backlog was too short to be in the way"
    view = only(crm).view()
    assert len(view.meetings) == len(view.deals) == len(view.contacts) == number + 1
    assert {d.state for d in crm.deliveries()} == {"synced"}
    assert not any(d.inconclusive_batches for d in crm.deliveries())


def test_a_backlog_comes_to_its_end_among_live_bookings(crm: Bridge, slow: Slow) -> None:
    """A backlog is finished although live bookings cut its batches again and again."""
    number = desk_in(crm).backlog
    fill(crm, number)
    between, booked = next(iter(crm.served.values())), [0.0]

    def booked_often(asked: Asked, right: Right) -> None:
        slow(asked, right)
        if slow.now - booked[-1] > 2 * SHORT and len(booked) < 6:
            booked.append(slow.now)
            book(crm, f"live{len(booked)}", f"l{len(booked)}@gmail.com")

    between.instead = booked_often
    crm.settle()
    made = number + len(booked) - 1
    view = only(crm).view()
    assert len(view.meetings) == len(view.deals) == len(view.contacts) == made
    assert len(booked) > 2, "nobody booked meanwhile"


def test_what_made_way_is_not_looked_for_as_if_it_had_been_begun(crm: Bridge, slow: Slow) -> None:
    """A batch is cut before a call, never within it: no record is in doubt, and no booking waits
    for one.
    """
    fill(crm, desk_in(crm).backlog)
    between, posts = next(iter(crm.served.values())), Counter[str]()

    def booked_at_a_create(asked: Asked, right: Right) -> None:
        slow(asked, right)
        posts[asked.method] += 1
        if "book" not in posts and ("create" in asked.path or posts["POST"] > 2):
            posts["book"] = 1
            slow.now += SHORT
            book(crm)

    between.instead = booked_at_a_create
    crm.settle(12.0)
    assert posts["book"]
    assert {d.state for d in crm.deliveries()} == {"synced"}


def test_a_batch_without_an_end_notes_what_it_has_done(crm: Bridge, slow: Slow) -> None:
    """Even without a waiting booking, a long batch is cut after a while and saves what it has done."""
    number = desk_in(crm).backlog
    fill(crm, number)
    between, noted = next(iter(crm.served.values())), []

    def very_slow(asked: Asked, right: Right) -> None:
        slow(asked, right)
        slow.now += LONG / 4
        with crm.services.store.read() as session:
            noted.append(
                session.query(RecordLink).filter(RecordLink.record_id.is_not(None)).count()
            )

    between.instead = very_slow
    crm.settle()
    assert len(set(noted)) > 1, "all was noted at once"
    assert len(only(crm).view().meetings) == number


def test_turns_shrink_when_they_are_cut_and_grow_again() -> None:
    """Each cut halves the batch size, down to a twentieth, at which nothing is cut; then it grows
    again.
    """
    now, waits = [0.0], [True]
    turn = Turn(lambda: waits[0], lambda: now[0])
    sizes = []
    for _ in range(8):
        sizes.append(turn.size(400))
        check = turn.begin(sizes[-1], 400, backlog=True)
        check()
        now[0] += SHORT + 0.1
        if sizes[-1] > 400 // PARTS:
            with pytest.raises(MakeWay):
                check()
            with pytest.raises(MakeWay):
                check()
        else:
            now[0] += 2 * LONG
            check()
    assert sizes == [400, 200, 100, 50, 25, 20, 40, 20]
    waits[0] = False
    for _ in range(8):
        turn.begin(turn.size(400), 400, backlog=True)()
    assert turn.size(400) == 400


def test_no_live_batch_is_cut_for_a_live_booking() -> None:
    """A live batch is not cut for a newer live booking unless it takes too long."""
    now = [0.0]
    turn = Turn(lambda: True, lambda: now[0])
    check = turn.begin(400, 400, backlog=False)
    now[0] += LONG - 0.1
    check()
    now[0] += 0.2
    with pytest.raises(MakeWay):
        check()


def test_meetings_without_a_booking_id_field_go_in_batches(tmp_path: Path) -> None:
    """If HubSpot has no booking-id field, the number at the end of the text identifies each meeting."""
    bridge = Bridge(f"sqlite:///{tmp_path}/b.sqlite3", ("hubspot",))
    crm = bridge.sandbox("hubspot")
    bridge.connect("hubspot")
    crm.drop_booking_fields()
    bridge.drain(warm_only=True)
    fill(bridge, 30)
    crm.calls.clear()
    bridge.settle()
    made = [number for call, number in crm.calls.items() if "meetings/batch/create" in call]
    assert made == [1], crm.calls
    view = crm.view()
    people = {contact.id: contact.email for contact in view.contacts}
    told = {
        (people[meeting.contact_ids[0]], number_at_end(meeting.body)) for meeting in view.meetings
    }
    assert told == {(f"p{n}@gmail.com", f"old{n}") for n in range(30)}
    bridge.close()


def test_what_is_refused_in_a_batch_that_is_cut_is_looked_into_later(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal in a batch that is cut before its cause is known (a deleted record) fails no booking."""
    provider = next(iter(crm.served))
    adapter = type(crm.services.adapter(1).inner)
    apply, cuts = adapter.apply, []

    def cut_at_its_end(made: Any, plan: Any, report: Any) -> None:
        if cuts:
            apply(made, plan, report)
            return
        cuts.append(len(plan.changes))
        refused = InvalidRecord("It was linked to something that is not there any more.")
        report.problems[plan.changes[-1].ref] = refused
        raise MakeWay

    monkeypatch.setattr(adapter, "apply", cut_at_its_end)
    book(crm)
    crm.drain()
    assert cuts and {d.state for d in crm.deliveries()} == {"synced"}, provider
