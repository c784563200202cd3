"""From the inbox to the bookings: what a worker does with the webhooks that were stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from app.domain.booking import Booking
from app.domain.events import Event
from app.store.inbox import next_stored
from app.store.models import BookingRow, EventRow
from tests.bridge import Bridge, sample
from tests.integration.test_cli import run
from workers.pool import DrainPool


@pytest.fixture
def bridge(tmp_path: Path, database_url: str) -> Iterator[Bridge]:
    """The service with three CRMs; its workers sleep, so that webhooks wait in the inbox."""
    made = Bridge(database_url).connect_all()
    made.workers_sleep = True
    yield made
    made.close()


def person(number: int) -> dict[str, Any]:
    """A webhook about a booking of its own person."""
    attendee = {"email": f"p{number}@gmail.com", "firstname": "P", "lastname": str(number)}
    return sample("booking_created", id=f"b{number}", attendees=[attendee])


def statuses(bridge: Bridge) -> list[str]:
    """The status of every webhook."""
    return [row.status for row in bridge.events()]


def test_an_answer_means_on_disk_and_no_more(bridge: Bridge) -> None:
    """A webhook is answered before anything follows from it; the worker does all of it."""
    assert bridge.post(person(1)).get_json()["status"] == "accepted"
    assert bridge.post(person(1)).get_json()["status"] == "duplicate"
    assert statuses(bridge) == ["stored"]
    assert bridge.deliveries() == []
    bridge.settle()
    assert statuses(bridge) == ["applied"]
    assert [row.state for row in bridge.deliveries()] == ["synced"] * 3


def test_many_webhooks_take_one_transaction_of_few_statements(bridge: Bridge) -> None:
    """Fifty webhooks need hardly more statements than one."""
    counts = []
    for numbers in (range(1), range(100, 150)):
        for number in numbers:
            bridge.post(person(number))
        seen: list[str] = []

        def note(*args: Any, seen: list[str] = seen) -> None:
            seen.append(args[2])

        engine = bridge.services.store.engine
        event.listen(engine, "before_cursor_execute", note)
        bridge.services.processor.run()
        event.remove(engine, "before_cursor_execute", note)
        counts.append(len(seen))
    assert len(bridge.deliveries()) == 3 * 51
    assert counts[1] <= counts[0] + 5, counts


def test_messages_of_one_booking_in_one_batch(bridge: Bridge) -> None:
    """Created, moved and cancelled, and a moved booking's two halves, end as one after another."""
    cancelled = sample("booking_cancelled", id="old", cancel={"reason": "rescheduled"})
    anew = sample("booking_created", id="anew", rescheduledFromId="old")
    for payload in (
        sample("booking_rescheduled", id="one"),
        anew,
        sample("booking_created", id="one"),
        cancelled,
        sample("booking_created", id="old"),
    ):
        assert bridge.post(payload).status_code == 202
    bridge.settle()
    with bridge.services.store.read() as session:
        rows = {row.key: row for row in session.query(BookingRow)}
    assert rows["default:one"].start.isoformat() == "2026-12-02T13:00:00+00:00"
    assert rows["default:anew"].story == "default:old"
    for provider in bridge.served:
        view = bridge.sandbox(provider).view()
        assert (len(view.contacts), len(view.deals)) == (1, 2)


def test_one_that_cannot_be_processed_stops_no_other(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set aside with the reason, without a person's data, and can be replayed."""
    for number in range(5):
        bridge.post(person(number))
    read = bridge.services.processor._read

    def fails_for_one(found: Event) -> Booking | None:
        if found.payload["id"] == "b2":
            raise KeyError("p2@gmail.com")
        return read(found)

    monkeypatch.setattr(bridge.services.processor, "_read", fails_for_one)
    bridge.settle()
    assert statuses(bridge) == ["applied", "applied", "quarantined", "applied", "applied"]
    why = bridge.events()[2].error
    assert why and why.startswith("it could not be processed: KeyError at ")
    assert "gmail" not in why
    run(bridge, "events", "replay", "3")
    bridge.settle()
    assert statuses(bridge) == ["applied"] * 5
    assert [row.state for row in bridge.deliveries()] == ["synced"] * 15


def test_one_that_nobody_can_read_is_told(bridge: Bridge) -> None:
    """A webhook whose box was swapped for another column's is set aside in words."""
    bridge.post(person(1))
    box = bridge.services.cipher.encrypt("{}", "another purpose")
    with bridge.services.store.write() as session:
        session.execute(update(EventRow).values(payload_encrypted=box))
    bridge.settle()
    (row,) = bridge.events()
    assert (row.status, "ENCRYPTION_KEYS" in (row.error or "")) == ("quarantined", True)


def test_two_workers_process_each_webhook_once(bridge: Bridge) -> None:
    """What two workers read at the same moment is marked as due by one of them only."""
    bridge.post(person(1))
    processor = bridge.services.processor
    with bridge.services.store.read() as session:
        rows = next_stored(session, 10)
    woken: list[list[int]] = []
    processor._process(rows, woken.append)
    bridge.settle()
    processor._process(rows, woken.append)
    assert woken == [[1, 2, 3]]
    assert {row.state for row in bridge.deliveries()} == {"synced"}


def test_a_wake_up_at_the_end_of_a_run_is_made_up_for(bridge: Bridge) -> None:
    """What is stored right after a worker's last look is found by its next one, at once."""
    pool, ran = DrainPool(bridge.services), []
    first, go, twice = threading.Event(), threading.Event(), threading.Event()

    def look() -> None:
        ran.append(len(ran))
        first.set()
        assert go.wait(20)
        if len(ran) == 2:
            twice.set()

    pool.aside("inbox", look, again=True)
    assert first.wait(20)
    pool.aside("inbox", look, again=True)
    pool.aside("inbox", look, again=True)
    go.set()
    assert twice.wait(20)
