"""A person who is erased on request is gone from the database, and does not come back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.store.access_models import AuditLog
from app.store.engine import utcnow
from app.store.models import BookingRow, DeliveryRow, ErasedPerson, Notice
from app.store.retention import reduce_bookings
from tests.bridge import PROVIDERS, Bridge, sample
from tests.integration.test_retention import JANE, decrypted, kinds, seen_of, writes

EMAIL = "jane.van.der.berg@example.com"
BOB = "bob@other.example"


def group() -> dict[str, Any]:
    """Return a booking of Jane and Bob."""
    payload = sample("booking_created", id="group")
    bob = {**payload["attendees"][0], "id": "b", "email": BOB, "firstname": "Bob", "lastname": "Stone",
           "fullname": "Bob Stone", "phone": None}  # fmt: skip
    return {**payload, "attendees": [payload["attendees"][0], bob]}


@pytest.fixture
def bridge(database_url: str) -> Iterator[Bridge]:
    """The service with all CRMs, on both databases, with a booking of Jane and one of two people."""
    made = Bridge(database_url).connect_all()
    made.sync(sample("booking_created"), group())
    yield made
    made.close()


def erase(bridge: Bridge, *options: str) -> str:
    """Run the command; return what it says."""
    result = bridge.app.test_cli_runner().invoke(
        args=["erase", "--email", "Jane.van.der.Berg@example.com", "--yes", *options],
        env={"COLUMNS": "250"},
    )
    assert result.exit_code == 0, result.output
    return result.output


def in_files(bridge: Bridge) -> list[str]:
    """Return the words about Jane in the bytes of a SQLite database and of its files."""
    path = Path(bridge.settings.database_url.partition(":///")[2])
    files = path.parent.glob(f"{path.name}*")
    every = b"".join(file.read_bytes() for file in files).lower()
    return [word for word in JANE if word.encode() in every]


def test_the_person_is_gone(bridge: Bridge) -> None:
    """Nothing that tells of the person is in any row or, on SQLite, in any byte of the files."""
    with bridge.services.store.write() as session:
        session.execute(
            update(DeliveryRow).values(
                notes=["Jane van der Berg is there twice"],
                error_message=f"{EMAIL.upper()} is taken",
                error_fields={"phone": "+4915123456789 is no number"},
            )
        )
        session.add(
            Notice(kind="broken", reason=f"{EMAIL} failed", created_at=utcnow(), connection_id=1)
        )
    sqlite = bridge.settings.database_url.startswith("sqlite")
    assert seen_of(bridge) == list(JANE)
    if sqlite:
        assert in_files(bridge)
    told = erase(bridge)
    assert "Erased from 2 bookings and 2 webhooks" in told and "Backups" in told
    assert "stays there: check it yourself" in told
    assert seen_of(bridge) == []
    if sqlite:
        assert in_files(bridge) == []
    assert "bob stone" in decrypted(bridge)
    with bridge.services.store.read() as session:
        line = session.scalars(select(AuditLog).where(AuditLog.action == "erase")).one()
        assert line.subject == "a person: 2 bookings" and line.actor == "cli"
        assert len(session.scalars(select(ErasedPerson)).all()) == 3
        notice = session.scalars(select(Notice.reason).where(Notice.reason.is_not(None))).all()
        assert "an erased person failed" in notice


def test_nothing_brings_the_person_back(bridge: Bridge) -> None:
    """Repeated and newer webhooks, replay, resync and reconcile: the person stays away."""
    erase(bridge)
    there = kinds(bridge)
    for payload in (sample("booking_created"), group()):
        assert bridge.post(payload).json["status"] == "duplicate"
        newer = copy.deepcopy(payload) | {
            "start": "2026-12-02T09:00:00+01:00",
            "end": "2026-12-02T09:30:00+01:00",
            "updatedAt": "2026-11-27T10:00:00Z",
        }
        bridge.sync(newer)
        assert seen_of(bridge) == []
        shown = {**newer, "updatedAt": "2026-11-27T11:00:00Z", "isCancelled": False}
        shown.pop("webhookType")
        bridge.services.intake.adopt("default", shown)
        # An old booking that this service never saw comes from a backfill.
        bridge.services.intake.adopt("default", {**shown, "id": f"older {payload['id']}"})
        bridge.settle()
        assert seen_of(bridge) == []
    runner = bridge.app.test_cli_runner()
    assert "cannot be replayed" in runner.invoke(args=["events", "replay", "--all"]).output
    bridge.settle()
    assert seen_of(bridge) == []
    for name, (contacts, *_) in kinds(bridge).items():
        assert contacts == there[name][0]
    # The booking of two people goes on for the one who stays.
    for name in PROVIDERS:
        (meeting,) = [m for m in bridge.sandbox(name).view().meetings if "2026-12-02" in m.start][
            :1
        ]
        assert meeting
    with bridge.services.store.read() as session:
        row = session.scalars(select(BookingRow).where(BookingRow.key == "default:group")).one()
        assert row.reduced_at is None
    before = writes(bridge)
    bridge.settle()
    assert writes(bridge) == before


def test_a_new_booking_is_a_new_relation(bridge: Bridge) -> None:
    """Who books after having been erased is synced again, as anybody who books."""
    erase(bridge)
    moment = (utcnow() + timedelta(seconds=5)).isoformat()
    new = sample("booking_created", id="new", createdAt=moment, updatedAt=moment)
    bridge.sync(new)
    assert seen_of(bridge) == list(JANE)
    for name in PROVIDERS:
        found = [c for c in bridge.sandbox(name).view().contacts if c.email == EMAIL]
        assert len(found) == 1
    erase(bridge)
    assert seen_of(bridge) == []


def test_the_records_are_deleted_by_choice(bridge: Bridge) -> None:
    """Contact and own meeting are deleted in each CRM; what others take part in stays, and deals."""
    before = kinds(bridge)
    told = erase(bridge, "--crm-records", "delete")
    assert "is deleted there" in told and "was not deleted" not in told
    for name, (contacts, companies, deals, meetings) in kinds(bridge).items():
        assert contacts == before[name][0] - 1, name
        assert meetings == before[name][3] - 1, name
        assert (companies, deals) == before[name][1:3]
        assert [c.email for c in bridge.sandbox(name).view().contacts] == [BOB]
    bridge.settle()
    assert seen_of(bridge) == []


def test_the_api_erases_and_exports(bridge: Bridge) -> None:
    """The API answers with what it found and did; the address stands in the body only."""
    assert bridge.client
    key = {"Authorization": f"Bearer {bridge.key}"}
    client = bridge.app.test_client()
    found = client.post("/api/v1/privacy/export", json={"email": EMAIL}, headers=key)
    assert found.status_code == 200
    export = found.json
    assert export["person"]["identity"] == f"email:{EMAIL}"
    assert len(export["bookings"]) == 2 and len(export["crm_records"]) >= 9
    assert export["bookings"][0]["attendees"][0]["last_name"] == "van der Berg"
    # Other people of a booking are none of her business.
    assert "bob" not in json.dumps(export).lower()
    shown = bridge.app.test_cli_runner().invoke(args=["export", "--email", EMAIL])
    assert json.loads(shown.output)["bookings"] == export["bookings"]
    for body in ({}, {"email": 1}, {"email": "no address"}, {"email": EMAIL, "crm_records": "x"}):
        assert client.post("/api/v1/privacy/erase", json=body, headers=key).status_code == 400
    assert client.post("/api/v1/privacy/erase", json={"email": EMAIL}).status_code == 401
    done = client.post("/api/v1/privacy/erase", json={"email": EMAIL}, headers=key)
    assert done.status_code == 200 and done.json["bookings"] == 2 and not done.json["deleted"]
    assert seen_of(bridge) == []
    empty = client.post("/api/v1/privacy/export", json={"email": EMAIL}, headers=key).json
    assert empty["bookings"] == [] and empty["crm_records"] == []


def test_a_longer_address_is_another_person(bridge: Bridge) -> None:
    """Whose address ends or begins like the erased one, and who has the name of a field, keep all."""
    for number, email in enumerate((f"x.{EMAIL}", f"{EMAIL}.de", f"x{EMAIL}")):
        other = {**sample("booking_created")["attendees"][0], "email": email, "phone": None,
                 "firstname": "Attendee", "lastname": "Meeting", "fullname": "Attendee Meeting",
                 "id": f"o{number}"}  # fmt: skip
        bridge.sync(sample("booking_created", id=f"other-{number}", attendees=[other]))
    before = writes(bridge)
    found = bridge.services.erasure.export(EMAIL)
    assert len(found["bookings"]) == 2 and len(found["webhooks"]) == 2
    assert "Erased from 2 bookings and 2 webhooks" in erase(bridge)
    bridge.settle()
    assert writes(bridge) == before
    with bridge.services.store.read() as session:
        rows = session.scalars(select(BookingRow).where(BookingRow.key.like("%other-%"))).all()
        assert [row.reduced_at for row in rows] == [None] * 3
    # A person whose name is a word of this service can be erased too.
    result = bridge.app.test_cli_runner().invoke(args=["erase", "--email", f"x.{EMAIL}", "--yes"])
    assert result.exit_code == 0 and "Erased from 1 bookings" in result.output


def test_a_shared_meeting_stays_when_its_booking_is_reduced(
    bridge: Bridge,
) -> None:
    """Erased after the meeting's data was reduced: what others take part in is not deleted."""
    before = {name: kind[3] for name, kind in kinds(bridge).items()}
    with bridge.services.store.write() as session:
        rows = session.scalars(select(BookingRow).order_by(BookingRow.start)).all()
        far = utcnow() + timedelta(days=4000)
        reduce_bookings(session, bridge.services.cipher, rows, far, utcnow())
        assert all(row.reduced_at for row in rows)
    erase(bridge, "--crm-records", "delete")
    assert {name: kind[3] for name, kind in kinds(bridge).items()} == {
        name: number - 1 for name, number in before.items()
    }


def test_a_host_is_not_erased_by_mistake(bridge: Bridge) -> None:
    """The address of a host finds no booking: hosts are your staff, and their bookings go on."""
    host = sample("booking_created")["hosts"][0]["email"]
    result = bridge.app.test_cli_runner().invoke(args=["erase", "--email", host, "--yes"])
    assert "Erased from 0 bookings" in result.output
    with bridge.services.store.read() as session:
        assert not any(row.reduced_at for row in session.scalars(select(BookingRow)))


def test_words_in_places_of_others_go_and_names_of_columns_stay(bridge: Bridge) -> None:
    """Notes of another booking that quote the person lose the words; nothing else changes."""
    bridge.sync(sample("booking_created", id="bobs", attendees=[group()["attendees"][1]]))
    with bridge.services.store.write() as session:
        bobs = select(BookingRow.id).where(BookingRow.key == "default:bobs")
        session.execute(
            update(DeliveryRow)
            .where(DeliveryRow.booking_id.in_(bobs))
            .values(
                notes=[f"It met {EMAIL}.", "Bob is fine."], error_fields={"email": f"as {EMAIL}"}
            )
        )
    erase(bridge)
    with bridge.services.store.read() as session:
        query = select(DeliveryRow).where(DeliveryRow.booking_id.in_(bobs))
        for row in session.scalars(query):
            assert row.notes == ["It met an erased person.", "Bob is fine."]
            assert row.error_fields == {"email": "as an erased person"}
