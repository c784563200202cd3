"""RETENTION_DAYS: what is deleted, and that no booking is doubled or brought back afterwards."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import event, select, text, update
from time_machine import Traveller

from app.crm.objects import ObjectName, Ref
from app.security.encryption import UnreadableSecret
from app.services.bookings import resync_all, sync_again
from app.services.retention import LEAST_REST, Retention
from app.store.access_models import AuditLog
from app.store.boxes import place_in
from app.store.engine import Store, utcnow
from app.store.ledger import Ledger
from app.store.models import BookingRow, DeliveryRow, EventRow, Notice, RecordLink, SyncLog
from app.store.rekey import boxes
from app.store.retention import aside_since, count_waiting, over_since
from app.store.states import EventStatus
from app.sync.ledger_entry import LedgerEntry
from tests.bridge import PROVIDERS, Bridge, sample

BEGIN = "2026-11-28T10:00:00Z"
JANE = ("jane.van.der.berg", "van der berg", "15123456789", "151 23456789")
"""Texts that give the person of the sample webhooks away; no encrypted value holds one by chance."""


def decrypted(bridge: Bridge) -> str:
    """Return all that the database holds, in plain text and in small letters."""
    found = []
    with bridge.services.store.engine.connect() as connection:
        for name in bridge.services.store.engine.dialect.get_table_names(connection):
            found += [str(row) for row in connection.execute(text(f"SELECT * FROM {name}"))]
        for table, column in boxes():
            for row in connection.execute(select(table).where(column.is_not(None))).mappings():
                place = place_in(column.info, row)
                try:
                    found.append(bridge.services.cipher.decrypt(row[column.name], place))
                except UnreadableSecret:
                    pytest.fail(f"{place} cannot be read")
    return "\n".join(found).lower()


def seen_of(bridge: Bridge, words: tuple[str, ...] = JANE) -> list[str]:
    """Return the words that the database holds."""
    every = decrypted(bridge)
    return [word for word in words if word in every]


def writes(bridge: Bridge) -> dict[str, int]:
    """Return the number of writes that each CRM got."""
    return {name: bridge.sandbox(name).writes() for name in bridge.served}


def kinds(bridge: Bridge) -> dict[str, tuple[int, ...]]:
    """Return the number of records of each kind in each CRM."""
    views = {name: bridge.sandbox(name).view() for name in bridge.served}
    return {
        name: tuple(len(part) for part in (v.contacts, v.companies, v.deals, v.meetings))
        for name, v in views.items()
    }


@pytest.fixture
def clock() -> Iterator[Traveller]:
    """A clock that the test moves."""
    with time_machine.travel(BEGIN, tick=False) as traveller:
        yield traveller


@pytest.fixture
def bridge(database_url: str, clock: Traveller) -> Iterator[Bridge]:
    """The service with all CRMs, on both databases."""
    made = Bridge(database_url).connect_all()
    yield made
    made.close()


def days(clock: Traveller, number: float) -> None:
    """Let days go by."""
    clock.shift(timedelta(days=number))


def reduce_jane(bridge: Bridge, clock: Traveller) -> dict[str, Any]:
    """Sync the sample booking, and delete its data when its time is over."""
    payload = sample("booking_created")
    bridge.sync(payload)
    days(clock, 35)
    bridge.services.retention.run()
    return payload


def test_the_data_of_a_meeting_is_gone_after_its_time(bridge: Bridge, clock: Traveller) -> None:
    """29 days after the meeting all is there; after 30 no name, address or number is left."""
    bridge.sync(sample("booking_created"))
    with bridge.services.store.write() as session:
        session.execute(
            update(DeliveryRow).values(notes=["Jane is a duplicate"], error_message="Berg")
        )
    days(clock, 31)
    assert "bookings" not in bridge.services.retention.run()
    assert seen_of(bridge) == list(JANE)
    days(clock, 3)
    assert bridge.services.retention.figures().waiting == 1
    assert bridge.services.retention.run()["bookings"] == 1
    assert seen_of(bridge, (*JANE, "jane is a duplicate")) == []
    assert bridge.services.retention.figures().waiting == 0
    with bridge.services.store.read() as session:
        row = session.scalars(select(BookingRow)).one()
        assert row.reduced_at == utcnow() and row.key.endswith("0d2f7f0a11c1")
        assert all(link.record_id for link in session.scalars(select(RecordLink)))
    assert bridge.services.retention.run() == {}
    page = bridge.sign_in().get(f"/bookings/{row.key}").get_data(as_text=True)
    assert 'The data of its people was deleted on <time datetime="2027-01-0' in page


def test_what_comes_later_writes_nothing_and_brings_nothing_back(
    bridge: Bridge, clock: Traveller
) -> None:
    """Repeated and late webhooks, replay, resync: no write, no person, and a sentence."""
    payload = reduce_jane(bridge, clock)
    before, there = writes(bridge), kinds(bridge)
    assert bridge.post(payload).json["status"] == "duplicate"
    late = {**payload, "lateKey": 1}
    assert bridge.post(late).json["status"] == "accepted"
    shown = {key: value for key, value in payload.items() if key != "webhookType"}
    assert bridge.services.intake.adopt("default", shown) is None
    bridge.settle()
    assert seen_of(bridge) == []
    runner = bridge.app.test_cli_runner()
    shown = runner.invoke(args=["events", "replay", "--all"])
    assert "No event was replayed" in shown.output
    assert "2 events cannot be replayed any more" in shown.output
    shown = runner.invoke(args=["events", "replay", "1"])
    assert shown.exit_code == 1 and "its content was deleted" in shown.output
    shown = runner.invoke(args=["events", "show", "1"])
    assert shown.exit_code == 1 and "its content was deleted" in shown.output
    with bridge.services.store.read() as session:
        key = session.scalars(select(BookingRow.key)).one()
        connections = session.scalars(select(DeliveryRow.connection_id)).all()
    sync_again(bridge.services.store, key, "test")
    for number in connections:
        resync_all(bridge.services.store, number, "another", "test")
    bridge.settle()
    assert {d.state for d in bridge.deliveries()} == {"skipped"}
    assert all("RETENTION_DAYS" in (d.error_message or "") for d in bridge.deliveries())
    assert (writes(bridge), kinds(bridge)) == (before, there)
    answer = bridge.sign_in().get(f"/bookings/{key}/preview").get_data(as_text=True)
    assert "RETENTION_DAYS" in answer


def test_a_newer_webhook_brings_a_booking_back_whole(bridge: Bridge, clock: Traveller) -> None:
    """It is moved in the CRMs, not doubled, and its data is deleted again after the new meeting."""
    payload = reduce_jane(bridge, clock)
    there = kinds(bridge)
    moved = copy.deepcopy(payload) | {
        "start": "2027-01-20T09:00:00+01:00",
        "end": "2027-01-20T09:30:00+01:00",
        "updatedAt": "2027-01-05T10:00:00Z",
        "webhookType": "booking_rescheduled",
    }
    bridge.sync(moved)
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    assert kinds(bridge) == there
    for name in PROVIDERS:
        assert "2027-01-20" in bridge.sandbox(name).view().meetings[0].start
    assert seen_of(bridge) == list(JANE)
    before = writes(bridge)
    days(clock, 60)
    bridge.services.retention.run()
    assert seen_of(bridge) == [] and writes(bridge) == before


def test_the_next_booking_of_a_person_finds_the_contact(bridge: Bridge, clock: Traveller) -> None:
    """A new booking has its own deal and meeting; contact and company are those that were made."""
    payload = reduce_jane(bridge, clock)
    before = kinds(bridge)
    new = {**payload, "id": "next", "start": "2027-01-20T09:00:00+01:00", "end": "2027-01-20T09:30:00+01:00",
           "createdAt": "2027-01-05T10:00:00Z", "updatedAt": "2027-01-05T10:00:00Z"}  # fmt: skip
    bridge.sync(new)
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    for name, (contacts, companies, deals, meetings) in kinds(bridge).items():
        assert (contacts, companies, deals, meetings) == (
            before[name][0], before[name][1], before[name][2] + 1, before[name][3] + 1,
        )  # fmt: skip
    with bridge.services.store.read() as session:
        assert all(link.key_encrypted for link in session.scalars(select(RecordLink)))


def test_logs_and_webhooks_of_no_booking_go_too(bridge: Bridge, clock: Traveller) -> None:
    """Set-aside webhooks lose their content 30 days after arrival; the audit log stays for a year."""
    bridge.post({"webhookType": "booking_created", "name": "Jane Berg"})
    bridge.sync(
        sample(
            "booking_created", id="later", start="2027-06-01T09:00:00Z", end="2027-06-01T10:00:00Z"
        )
    )
    with bridge.services.store.write() as session:
        now = utcnow()
        session.add(AuditLog(actor="cli", action="retry", subject="all", at=now))
        session.add(Notice(kind="broken", reason="Jane", created_at=now, connection_id=1))
    days(clock, 31)
    done = bridge.services.retention.run()
    assert done["webhooks"] == 1 and done["sync_log"] > 0 and done["notices"] >= 1
    with bridge.services.store.read() as session:
        aside, live = session.scalars(select(EventRow).order_by(EventRow.id)).all()
        assert aside.payload_encrypted is None and live.payload_encrypted is not None
        assert not session.scalars(select(SyncLog)).all()
        assert session.scalars(select(AuditLog).where(AuditLog.action == "retry")).all()
    assert "later" in decrypted(bridge) and seen_of(bridge) == list(JANE)
    days(clock, 340)
    assert bridge.services.retention.run()["audit_log"] > 0


def test_others_get_to_write_between_two_chunks(
    clock: Traveller, crm: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook is not kept waiting by a long run: it rests after each transaction."""
    for number in range(3):
        crm.sync(sample("booking_created", id=f"b{number}"))
    days(clock, 90)
    monkeypatch.setattr("app.services.retention.CHUNK", 1)
    events: list[str] = []
    store = crm.services.store

    def rest(seconds: float) -> None:
        events.append("rest")
        assert seconds >= LEAST_REST
        # The transaction is over: somebody else writes at once.
        ahead = {"start": "2027-06-01T09:00:00Z", "end": "2027-06-01T10:00:00Z"}
        answer = crm.post(sample("booking_created", id=f"later{len(events)}", **ahead))
        assert answer.status_code == 202

    event.listen(store.engine, "commit", lambda _: events.append("commit"))
    found = Retention(store, crm.services.cipher, 30, rest).run()
    assert found["bookings"] == 3 and events.count("rest") >= 6


def test_a_booking_that_a_crm_has_yet_to_get_stays_whole(crm: Bridge, provider: str) -> None:
    """Parked work keeps its booking; 0 days keep everything."""
    crm.sync(sample("booking_created"))
    with crm.services.store.write() as session:
        session.execute(update(DeliveryRow).values(state="parked"))
    with time_machine.travel(utcnow() + timedelta(days=60), tick=False):
        assert "bookings" not in crm.services.retention.run()
        shown = crm.app.test_cli_runner().invoke(args=["retention", "show"]).output
        assert "1 older bookings still hold data" in shown
        with crm.services.store.write() as session:
            session.execute(update(DeliveryRow).values(state="synced"))
        shown = crm.app.test_cli_runner().invoke(args=["retention", "run"]).output
        assert "1 bookings" in shown
    crm.services.retention.days = 0
    assert crm.services.retention.run() == {}


def plans(store: Store, queries: list[Any]) -> list[str]:
    """Return how the database finds the rows of queries, as if the tables were large."""
    found = []
    with store.read() as session:
        if store.engine.dialect.name == "postgresql":
            session.execute(text("SET LOCAL enable_seqscan = off"))
        for query in queries:
            words: list[tuple[str, Any]] = []

            def note(
                conn: Any, cursor: Any, statement: str, values: Any, *_: Any, words: Any = words
            ) -> None:
                words.append((statement, values))

            event.listen(store.engine, "before_cursor_execute", note)
            session.execute(query)
            event.remove(store.engine, "before_cursor_execute", note)
            statement, values = words[-1]
            explain = "EXPLAIN QUERY PLAN " if store.engine.dialect.name == "sqlite" else "EXPLAIN "
            rows = session.connection().exec_driver_sql(explain + statement, values).all()
            found.append("\n".join(str(row) for row in rows))
    return found


def test_no_big_table_is_scanned(database_url: str) -> None:
    """Retention finds old bookings and webhooks by an index, on both databases."""
    store = Store(database_url)
    store.migrate()
    now = utcnow()
    place = (now, 1)
    queries = [
        over_since(now, None, 100),
        over_since(now, place, 100),
        aside_since(EventStatus.IGNORED, now, 100),
    ]
    for plan in plans(store, queries):
        assert "ix_bookings_to_reduce" in plan or "ix_events_to_reduce" in plan, plan
        assert "SCAN" not in plan.replace("Index Scan", "") or "USING" in plan, plan
    with store.read() as session:
        assert count_waiting(session, now) == (0, None)
    store.close()


def test_the_scheduler_knows_the_job() -> None:
    """The job stands in the closed table of jobs and is scheduled."""
    from app.services.wake import RETENTION_JOB
    from workers.jobs import ALONE
    from workers.schedule import build_scheduler

    assert RETENTION_JOB in ALONE
    scheduler = build_scheduler(None, 0)  # type: ignore[arg-type]
    assert [job.func_name for job in scheduler.get_jobs()] == [RETENTION_JOB]
    assert json.dumps(RETENTION_JOB)


def test_a_forgotten_person_stays_linked(crm: Bridge, provider: str) -> None:
    """A record whose person's address was deleted keeps its link when it is written again."""
    person, deal = Ref(ObjectName.CONTACT, "email:a@b.example"), Ref(ObjectName.DEAL, "default:b1")
    now = utcnow()
    with crm.services.store.write() as session:
        ledger = Ledger(session, crm.services.cipher, 1)
        ledger.save({person: LedgerEntry("1"), deal: LedgerEntry("2", links=(person,))}, now)
        ledger.forget_keys([person.key])
    with crm.services.store.write() as session:
        ledger = Ledger(session, crm.services.cipher, 1)
        entry = ledger.read([deal])[deal]
        assert entry.links != (person,) and len(entry.links) == 1
        assert "a@b.example" not in str(entry)
        ledger.save({deal: entry}, now)
    with crm.services.store.read() as session:
        again = Ledger(session, crm.services.cipher, 1).read([person, deal])
        assert again[deal].links == (person,) and again[person].record_id == "1"


def test_who_left_loses_the_link_also_after_that(bridge: Bridge, clock: Traveller) -> None:
    """A newer webhook without one of the people: contact stays, the link to the meeting goes."""
    payload = sample("group_booking_created")
    bridge.sync(payload)
    days(clock, 35)
    bridge.services.retention.run()
    there = kinds(bridge)
    moved = copy.deepcopy(payload) | {
        "start": "2027-01-20T09:00:00+01:00",
        "end": "2027-01-20T09:30:00+01:00",
        "updatedAt": "2027-01-05T10:00:00Z",
        "attendees": payload["attendees"][:1],
    }
    bridge.sync(moved)
    assert kinds(bridge) == there
    for name in PROVIDERS:
        view = bridge.sandbox(name).view()
        jane = next(c.id for c in view.contacts if c.email == "jane.van.der.berg@example.com")
        assert view.meetings[0].contact_ids == [jane], name


def test_an_older_version_knows_no_reduced_booking(bridge: Bridge, clock: Traveller) -> None:
    """A downgrade takes reduced bookings along: the older version would empty their records. After
    the next upgrade a newer webhook finds the same deal and meeting.
    """
    bridge.sync(sample("booking_created"))
    days(clock, 34)
    assert bridge.services.retention.run()["bookings"] == 1
    before, there = kinds(bridge), writes(bridge)
    store, cipher = bridge.services.store, bridge.services.cipher
    store.schema.downgrade("0015", cipher)
    with store.engine.connect() as connection:
        for table in ("bookings", "booking_people", "deliveries", "sync_log"):
            number = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()
            assert number == 0, table
    store.migrate(cipher)
    bridge.services.prepare()
    bridge.settle()
    assert writes(bridge) == there
    bridge.sync(sample("booking_created", updatedAt=utcnow().isoformat()))
    assert kinds(bridge) == before


def test_a_message_about_nobody_brings_no_booking_back(bridge: Bridge, clock: Traveller) -> None:
    """A newer webhook that names nobody would empty the records: the booking stays reduced."""
    bridge.sync(sample("booking_created"))
    days(clock, 34)
    bridge.services.retention.run()
    there = writes(bridge)
    newer = sample("booking_created", updatedAt=utcnow().isoformat(), end="2027-01-01T10:00:00Z")
    del newer["attendees"]
    bridge.sync(newer)
    assert writes(bridge) == there
    with bridge.services.store.read() as session:
        assert session.scalars(select(BookingRow.reduced_at)).one() is not None


def test_an_unreadable_booking_holds_up_no_other(bridge: Bridge, clock: Traveller) -> None:
    """Retention passes a booking that nobody can read, and goes on with the next one."""
    bridge.sync(sample("booking_created"), sample("booking_created", id="second"))
    with bridge.services.store.write() as session:
        first = session.scalars(select(BookingRow).order_by(BookingRow.id)).first()
        assert first is not None
        first.state_encrypted = first.state_encrypted[:-8] + "AAAAAAAA"
    days(clock, 34)
    assert bridge.services.retention.run()["bookings"] == 1
