"""From the inbox to the bookings: what a worker does with the webhooks that were stored."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from app.domain.booking import Booking
from app.domain.events import Event
from app.services import processing
from app.store.engine import utcnow
from app.store.inbox import next_stored
from app.store.models import BookingRow, ConnectionRow
from tests.bridge import KEY, PROVIDERS, Bridge, sample
from tests.integration.test_cli import run
from workers.pool import DrainPool


@pytest.fixture
def bridge(tmp_path: Path, database_url: str) -> Iterator[Bridge]:
    """The service with every CRM; its workers sleep, so that webhooks wait in the inbox."""
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
    assert [row.state for row in bridge.deliveries()] == ["synced"] * len(PROVIDERS)


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
    assert len(bridge.deliveries()) == len(PROVIDERS) * 51
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
    read = processing.read_booking

    def fails_for_one(found: Event) -> Booking:
        if found.payload["id"] == "b2":
            raise KeyError("p2@gmail.com")
        return read(found)

    monkeypatch.setattr(processing, "read_booking", fails_for_one)
    bridge.settle()
    assert statuses(bridge) == ["applied", "applied", "quarantined", "applied", "applied"]
    why = bridge.events()[2].error
    assert why and why.startswith("it could not be processed: KeyError at ")
    assert "gmail" not in why
    run(bridge, "events", "replay", "3")
    bridge.settle()
    assert statuses(bridge) == ["applied"] * 5
    assert [row.state for row in bridge.deliveries()] == ["synced"] * 5 * len(PROVIDERS)


def test_one_whose_key_is_not_here_waits_and_holds_nobody_up(bridge: Bridge) -> None:
    """While keys are changed, a worker may lack the newest one: the webhook waits for the key."""
    newer = Bridge(bridge.settings.database_url, (), encryption_keys=f"{KEY.swapcase()},{KEY}")
    newer.workers_sleep = True
    assert newer.post(person(1)).status_code == 202
    for number in (2, 3):
        bridge.post(person(number))
    bridge.settle()
    assert statuses(bridge) == ["stored", "applied", "applied"]
    newer.services.processor.run()
    assert statuses(bridge) == ["applied"] * 3
    newer.close()


def messages(dice: random.Random) -> list[dict[str, Any]]:
    """What meetergo says of some bookings of one person, of which some replace others."""
    told = []
    for number, name in enumerate("abcd"):
        made = f"2026-11-2{number}T09:00:00Z"
        before = dice.choice([None, *"abcd"[:number]])
        told.append(sample("booking_created", id=name, createdAt=made, updatedAt=made, **(
            {"rescheduledFromId": before} if before and dice.random() < 0.6 else {}
        )))  # fmt: skip
        if dice.random() < 0.6:
            gone = f"2026-11-2{number + 1}T08:59:30Z"
            cancel = {"reason": "rescheduled", "actionAt": gone}
            told.append(
                sample("booking_cancelled", id=name, createdAt=made, updatedAt=gone, cancel=cancel)
            )
    dice.shuffle(told)
    return told


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_ends_as_one_after_the_other(tmp_path: Path, seed: int) -> None:
    """Bookings of one person that replace one another are one story however they come in batches,
    and whatever a batch changes is due.
    """
    told = messages(random.Random(seed))
    ended = []
    for size in (1, 3, len(told)):
        one = Bridge(f"sqlite:///{tmp_path}/{size}.sqlite3", ())
        one.workers_sleep, now = True, utcnow()
        with one.services.store.write() as session:
            made = {"api_base": "", "status": "active", "status_since": now, "created_at": now}
            session.add(ConnectionRow(provider="hubspot", **made))
        for start in range(0, len(told), size):
            for message in told[start : start + size]:
                assert one.post(message).status_code == 202
            one.services.processor.run()
        with one.services.store.read() as session:
            rows = session.scalars(select(BookingRow).order_by(BookingRow.key)).all()
            due = {row.booking_id: row.wanted_revision for row in one.deliveries()}
            assert due == {row.id: row.revision for row in rows}
            roots = {row.key: row.story or row.key for row in rows}
            assert all(roots.get(root, root) == root for root in roots.values()), roots
            ended.append((roots, {row.key: row.status for row in rows}))
        one.close()
    assert ended[0] == ended[1] == ended[2], told


def test_two_workers_process_each_webhook_once(bridge: Bridge) -> None:
    """What two workers read at the same moment is marked as due by one of them only."""
    bridge.post(person(1))
    processor = bridge.services.processor
    with bridge.services.store.read() as session:
        rows = next_stored(session, 10)
    woken: list[list[int]] = []
    processor._process(processor._read(rows, set()), woken.append)
    bridge.settle()
    processor._process(processor._read(rows, set()), woken.append)
    assert woken == [[*range(1, len(PROVIDERS) + 1)]]
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


def test_a_thread_that_could_not_start_is_started_by_the_next_wake_up(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a free thread for a moment does not end the work of a process."""
    pool, ran = DrainPool(bridge.services), threading.Event()

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        for start in (lambda: pool.aside("inbox", ran.set, again=True), lambda: pool.submit(1)):
            with pytest.raises(RuntimeError):
                start()
    pool.aside("inbox", ran.set, again=True)
    assert ran.wait(20)
    assert pool.at_work() == 0
