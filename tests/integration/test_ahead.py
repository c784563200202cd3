"""While one batch is written, the service already does the next batch's lookups: the work is faster
and the records are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.crm.lookup import LookupKey, Match, MatchKey
from app.crm.objects import ObjectName, Ref
from app.store.engine import utcnow
from app.sync.desired import DesiredBooking, DesiredRecord
from config.settings import CONFIG_DIR
from sandbox.faults import Fault
from tests.bridge import ASKED_AHEAD, Bridge, sample
from tests.contract.desk import desk_in
from tests.contract.test_adapters import only, person
from workers.batch import Batch
from workers.lane import Lane
from workers.marks import Marks, marks_of

PATIENCE = 10.0
"""The seconds that two threads wait for each other before the test fails."""


@pytest.fixture(params=ASKED_AHEAD)
def ahead(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bridge]:
    """The service with a CRM whose next batch is looked up ahead, in batches of two."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", (request.param,)).connect_all()
    monkeypatch.setattr(type(made.services.adapter(1)), "batch_size", 2)
    yield made
    made.close()


def post(crm: Bridge, number: int, email: str) -> None:
    """Post a booking of a person."""
    crm.post(sample("booking_created", id=f"b{number}", attendees=[person(email)]))


def overlapping(crm: Bridge, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Hold the first write until the next batch's lookups ran; return whether they ran in time."""
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
    """A batch is written while the next batch's lookups run."""
    for number in range(6):
        post(ahead, number, f"p{number}@corp{number}.example")
    seen = overlapping(ahead, monkeypatch)
    ahead.settle()
    assert seen == [True]
    view = only(ahead).view()
    assert (len(view.contacts), len(view.companies), len(view.deals)) == (6, 6, 6)
    assert sum(d.calls for d in ahead.deliveries()) == only(ahead).total_calls


@pytest.mark.parametrize("shared", ["person", "company"])
def test_what_two_batches_share_is_made_once(
    ahead: Bridge, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two neighbouring batches that share a person or a company create it once."""
    for number in range(8):
        email = f"p{number}@corp{number}.example"
        if shared == "person":
            email = f"p{number % 3}@corp{number % 3}.example"
        elif shared == "company":
            email = f"p{number}@corp.example"
        post(ahead, number, email)
    asked_first = ask_before_each_write(monkeypatch)
    ahead.drain()
    assert True in asked_first
    assert {row.state for row in ahead.deliveries()} == {"synced"}
    view = only(ahead).view()
    assert len(view.deals) == len(view.meetings) == 8
    assert len(view.contacts) == {"person": 3, "company": 8}[shared]
    assert len(view.companies) == {"person": 3, "company": 1}[shared]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LookupKey(MatchKey.PHONE, "+4930901820"), LookupKey(MatchKey.PHONE, "+4930901820")),
        (LookupKey(MatchKey.FIELD, "Acme", "tag"), LookupKey(MatchKey.FIELD, "acme", "tag")),
        (LookupKey(MatchKey.RECORD_ID, "an id"), LookupKey(MatchKey.RECORD_ID, "its address")),
    ],
    ids=["phone", "case", "record"],
)
def test_two_bookings_meet_where_one_may_be_found_as_the_other(
    ahead: Bridge, one: LookupKey, other: LookupKey
) -> None:
    """Two bookings of different people count as related if a lookup could find the same record for
    both.
    """
    adapter = ahead.services.adapter(1)
    if other.value == "its address":
        one = one._replace(value=desk_in(ahead).made_up_id("contact", 17))
        other = other._replace(value=adapter.url_for(ObjectName.CONTACT, one.value))

    def marks(email: str, key: LookupKey) -> Marks:
        match = Match((LookupKey(MatchKey.EMAIL, email), key))
        record = DesiredRecord(Ref(ObjectName.CONTACT, f"email:{email}"), {}, {}, match=match)
        return marks_of(DesiredBooking(email, utcnow(), (record,)), adapter)

    assert marks("a@x.example", one).meets(marks("b@x.example", other))
    apart = LookupKey(MatchKey.PHONE, "+4930901821")
    assert not marks("a@x.example", one).meets(marks("b@x.example", apart))


@pytest.mark.long
def test_a_write_that_fails_leaves_the_next_batch_as_it_was(
    ahead: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails on a CRM outage neither charges nor suspects the batch that was looked up
    ahead.
    """
    for number in range(6):
        post(ahead, number, f"p{number}@corp{number}.example")
    seen = overlapping(ahead, monkeypatch)
    sandbox = only(ahead)
    sandbox.faults.append(Fault(writes=True, status=503, times=10**9))
    ahead.drain()
    assert seen == [True]
    rows = ahead.deliveries()
    assert {row.claimed_by for row in rows} == {None}
    assert {(row.state, row.attempts) for row in rows} == {("due", 0)}
    assert sorted(row.inconclusive_batches for row in rows) == [0, 0, 0, 0, 1, 1]
    sandbox.faults.clear()
    ahead.settle()
    view = sandbox.view()
    assert (len(view.contacts), len(view.companies), len(view.deals)) == (6, 6, 6)


def files(folder: Path, **changes: str) -> Path:
    """Copy the default mapping files, with some words of Pipedrive's file replaced."""
    for path in (CONFIG_DIR / "mappings").glob("*.yaml"):
        text = path.read_text("utf-8")
        if path.stem == "pipedrive":
            for old, new in changes.items():
                assert WORDS[old] in text
                text = text.replace(WORDS[old], new)
        (folder / path.name).write_text(text, "utf-8")
    return folder


WORDS = {
    "deals": "per: booking",
    "company": "name: {from: attendee.company_domain, write: on_create}",
    "subject": 'attendee.display_name }}"}\n    type',
}


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that starts the service with Pipedrive, lookups ahead, batches of two and a
    changed mapping.
    """
    made: list[Bridge] = []

    def make(**changes: str) -> Bridge:
        folder = files(tmp_path, **changes)
        url = f"sqlite:///{tmp_path}/bridge.sqlite3"
        made.append(Bridge(url, ("pipedrive",), mappings_dir=folder).connect_all())
        monkeypatch.setattr(type(made[-1].services.adapter(1)), "batch_size", 2)
        return made[-1]

    yield make
    for bridge in made:
        bridge.close()


def ask_before_each_write(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Hold each write, even its intents, until the next batch's lookups ran; return a list with one
    entry for each batch that was looked up ahead.
    """
    asked, seen = threading.Event(), []
    ask, write, end = Batch.prepare, Batch.apply, Lane.end

    def asks(batch: Batch, rows: Any, beside: Batch | None = None, turn: Any = None) -> None:
        ask(batch, rows, beside, turn)
        if beside:
            seen.append(True)
            asked.set()

    def ends(lane: Lane) -> None:
        # No further lookup starts before this write has ended.
        asked.set()
        end(lane)
        asked.clear()

    def writes(batch: Batch) -> None:
        assert asked.wait(PATIENCE)
        write(batch)

    monkeypatch.setattr(Batch, "prepare", asks)
    monkeypatch.setattr(Lane, "end", ends)
    monkeypatch.setattr(Batch, "apply", writes)
    return seen


def ask_between_write_and_note(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """Run the first lookups ahead when the previous batch is in the CRM but not yet in the ledger."""
    wrote, asked = threading.Event(), threading.Event()
    ask, apply = Batch.prepare, kind.apply

    def asks(batch: Batch, rows: Any, beside: Batch | None = None, turn: Any = None) -> None:
        if beside:
            wrote.wait(PATIENCE)
        ask(batch, rows, beside, turn)
        if beside:
            asked.set()

    def applies(adapter: Any, plan: Any, report: Any) -> None:
        apply(adapter, plan, report)
        if not wrote.is_set():
            wrote.set()
            asked.wait(PATIENCE)

    monkeypatch.setattr(Batch, "prepare", asks)
    monkeypatch.setattr(kind, "apply", applies)


def test_a_meeting_that_was_just_made_is_nobody_elses(
    settled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup for a meeting of two people, one of whom left, does not take the meeting that the
    other's next booking has just created.
    """
    crm = settled(deals="per: none", subject="'call' }}\"}\n    type")
    sandbox = only(crm)
    sandbox.faults.append(
        Fault(method="POST", path="activities", status=400, body='{"error":"no"}')
    )
    both = [person("xaver@one.example"), person("yves@two.example")]
    crm.post(sample("booking_created", id="B", updatedAt="2030-01-01T00:00:00Z", attendees=both))
    crm.settle()
    assert [row.state for row in crm.deliveries()] == ["failed"]
    ask_between_write_and_note(monkeypatch, type(crm.services.adapter(1)))
    post(crm, 1, "xaver@one.example")
    post(crm, 2, "f@f.example")
    crm.post(
        sample("booking_created", id="B", updatedAt="2030-01-02T00:00:00Z", attendees=both[1:])
    )
    post(crm, 3, "g@g.example")
    crm.settle()
    assert {row.state for row in crm.deliveries()} == {"synced"}
    assert len(sandbox.view().meetings) == 4


def test_a_company_that_goes_by_its_name_is_made_once(settled: Any) -> None:
    """Two domains with the same company name create one company in Pipedrive, which searches by name."""
    crm = settled(company="name: {value: Acme Group, write: on_create}")
    only(crm).faults.append(Fault(method="POST", path="organizations", latency=1.0))
    for number, domain in enumerate(("acme.com", "gmail.com", "acme.de", "gmail.com")):
        post(crm, number, f"p{number}@{domain}")
    crm.settle()
    assert len(only(crm).view().companies) == 1


def test_a_database_that_fails_in_a_write_casts_no_suspicion(
    ahead: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database failure in a write leaves the batch looked up ahead unchanged, and is the error
    raised.
    """
    for number in range(6):
        post(ahead, number, f"p{number}@corp{number}.example")
    seen = overlapping(ahead, monkeypatch)
    save, struck = Batch._save, []

    def fails_once(batch: Batch, session: Any) -> None:
        if not struck:
            struck.append(True)
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))
        save(batch, session)

    monkeypatch.setattr(Batch, "_save", fails_once)
    with pytest.raises(OperationalError):
        ahead.drain()
    assert seen == [True]
    # No worker has died: the next worker suspects none of the bookings.
    assert {
        (row.claimed_by, row.inconclusive_batches, row.worker_crashes) for row in ahead.deliveries()
    } == {(None, 0, 0)}
    ahead.settle()
    view = only(ahead).view()
    assert (len(view.contacts), len(view.companies), len(view.deals)) == (6, 6, 6)


def test_a_pause_is_kept_whatever_else_happens(
    ahead: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRM's pause is kept, although the database fails for the batch that is looked up ahead."""
    for number in range(6):
        post(ahead, number, f"p{number}@corp{number}.example")
    only(ahead).faults.append(Fault(method="POST", status=429, headers={"Retry-After": "300"}))
    plan = Batch._plan

    def fails_ahead(batch: Batch, beside: Batch | None) -> Any:
        if beside:
            raise OperationalError("SELECT", {}, Exception("locked"))
        return plan(batch, beside)

    monkeypatch.setattr(Batch, "_plan", fails_ahead)
    ahead.drain()
    (name,) = ahead.served
    assert ahead.connection(name).pause_until


def test_bookings_that_somebody_left_are_written_ahead_too(
    ahead: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of bookings that a person left do not wait for each other without need."""
    for number in range(8):
        pair = [
            person(f"a{number}@corp{number}.example"),
            person(f"z{number}@corp{number}.example"),
        ]
        ahead.post(sample("booking_created", id=f"b{number}", attendees=pair))
    ahead.settle()
    later = "2026-11-25T12:00:00.000Z"
    for number in range(8):
        alone = [person(f"a{number}@corp{number}.example")]
        changes = {"updatedAt": later, "rescheduledAt": later, "attendees": alone}
        ahead.post(sample("booking_rescheduled", id=f"b{number}", **changes))
    asked, ask = [], Batch.prepare

    def asks(batch: Batch, rows: Any, beside: Batch | None = None, turn: Any = None) -> None:
        asked.append(len(rows))
        ask(batch, rows, beside, turn)

    monkeypatch.setattr(Batch, "prepare", asks)
    monkeypatch.setattr("workers.drain.HAND_OVER", PATIENCE)
    ahead.drain()
    assert {row.state for row in ahead.deliveries()} == {"synced"}
    assert len(asked) < 8
