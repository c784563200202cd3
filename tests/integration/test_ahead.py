"""A CRM that is asked about the next batch while one is written: faster, and the records the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.records import DesiredBooking, DesiredRecord, Key, Match, MatchKey, ObjectName, Ref
from app.store.engine import utcnow
from sandbox.core import Fault
from tests.bridge import ASKED_AHEAD, Bridge, sample
from tests.contract.test_adapters import only, person

PATIENCE = 10.0
"""Seconds that two threads wait for each other before the test has failed."""


@pytest.fixture(params=ASKED_AHEAD)
def ahead(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bridge]:
    """The service with a CRM that is asked ahead, in batches of two."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", (request.param,)).connect_all()
    monkeypatch.setattr(type(made.services.adapter(1)), "batch_size", 2)
    yield made
    made.close()


def post(crm: Bridge, number: int, email: str) -> None:
    """Post a booking of somebody."""
    crm.post(sample("booking_created", id=f"b{number}", attendees=[person(email)]))


def overlapping(crm: Bridge, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Hold the first write up until the next batch was asked about; whether each was."""
    kind = type(crm.services.adapter(1))
    find, apply = kind.find, kind.apply
    asked, seen, writing = threading.Event(), [], threading.Event()

    def looked(adapter: Any, questions: Any, ids: Any) -> Any:
        found = find(adapter, questions, ids)
        if writing.is_set():
            asked.set()
        return found

    def wrote(adapter: Any, plan: Any, report: Any) -> None:
        if not writing.is_set():
            writing.set()
            seen.append(asked.wait(PATIENCE))
        apply(adapter, plan, report)

    monkeypatch.setattr(kind, "find", looked)
    monkeypatch.setattr(kind, "apply", wrote)
    return seen


def test_the_next_batch_is_asked_about_while_one_is_written(
    ahead: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write waits for the question of the batch after it: they do go on together."""
    for number in range(6):
        post(ahead, number, f"p{number}@corp{number}.example")
    seen = overlapping(ahead, monkeypatch)
    ahead.settle()
    assert seen == [True]
    view = only(ahead).view()
    assert (len(view.contacts), len(view.companies), len(view.deals)) == (6, 6, 6)
    assert sum(d.calls for d in ahead.deliveries()) == only(ahead).total_calls


@pytest.mark.parametrize("shared", ["person", "company"])
def test_what_two_batches_share_is_made_once(ahead: Bridge, shared: str) -> None:
    """Bookings of one person or company, next to each other in different batches."""
    for number in range(8):
        email = f"p{number}@corp{number}.example"
        if shared == "person":
            email = f"p{number % 3}@corp{number % 3}.example"
        elif shared == "company":
            email = f"p{number}@corp.example"
        post(ahead, number, email)
    # Long enough for the batch after it to be planned: it must not even begin what this one makes.
    only(ahead).faults.append(Fault(method="POST", latency=1.0))
    ahead.drain()
    assert {row.state for row in ahead.deliveries()} == {"synced"}
    view = only(ahead).view()
    assert len(view.deals) == len(view.meetings) == 8
    assert len(view.contacts) == {"person": 3, "company": 8}[shared]
    assert len(view.companies) == {"person": 3, "company": 1}[shared]


def test_two_bookings_meet_where_one_may_be_found_as_the_other() -> None:
    """Another e-mail address and the same phone number: in some mappings that is one person."""

    def booking(email: str) -> DesiredBooking:
        keys = (Key(MatchKey.EMAIL, email), Key(MatchKey.PHONE, "+4930901820"))
        ref = Ref(ObjectName.CONTACT, f"email:{email}")
        record = DesiredRecord(ref, {}, {}, match=Match(keys))
        return DesiredBooking(email, utcnow(), (record,))

    assert booking("a@x.example").marks & booking("b@x.example").marks == {"+4930901820"}


def test_a_write_that_fails_leaves_the_next_batch_as_it_was(
    ahead: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRM goes down in a write: what was asked about meanwhile is neither charged nor suspected."""
    for number in range(6):
        post(ahead, number, f"p{number}@corp{number}.example")
    seen = overlapping(ahead, monkeypatch)
    sandbox = only(ahead)
    sandbox.faults.append(Fault(method="POST", status=503, times=10**9))
    ahead.drain()
    assert seen == [True]
    rows = ahead.deliveries()
    assert {row.held_by for row in rows} == {None}
    assert {(row.state, row.attempts) for row in rows} == {("due", 0)}
    assert sorted(row.doubts for row in rows) == [0, 0, 0, 0, 1, 1]
    sandbox.faults.clear()
    ahead.settle()
    view = sandbox.view()
    assert (len(view.contacts), len(view.companies), len(view.deals)) == (6, 6, 6)
