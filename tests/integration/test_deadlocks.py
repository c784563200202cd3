"""Two transactions that change the same bookings on PostgreSQL do not block each other for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import select, text

from app.store import newest
from app.store.models import BookingRow, DeliveryRow
from tests.bridge import Bridge, sample
from tests.postgres import postgres_url

MOVED = "booking-moved"


@pytest.fixture
def crm() -> Iterator[Bridge]:
    """The service on PostgreSQL with one CRM, and a booking that the guest moved by a new booking."""
    with postgres_url() as url:
        bridge = Bridge(url, ("hubspot",))
        bridge.connect("hubspot")
        first = sample("booking_created")
        bridge.sync(first, {**first, "id": MOVED, "rescheduledFromId": first["id"]})
        yield bridge
        bridge.close()


@pytest.mark.parametrize("way", ["webhook", "replay"])
def test_a_deadlock_is_tried_again(crm: Bridge, way: str) -> None:
    """A transaction that locks a story's two bookings in the opposite order causes no failure."""
    with crm.services.store.read() as session:
        rows = session.execute(
            select(DeliveryRow.id)
            .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
            .order_by(BookingRow.id.desc())
        )
        later, first = rows.scalars().all()
    has_one, stuck = threading.Event(), threading.Event()

    def other_way_round() -> None:
        with crm.services.store.write() as session:
            # PostgreSQL must end the service's transaction, not this one.
            session.execute(text("SET LOCAL deadlock_timeout = '60s'"))
            session.get_one(DeliveryRow, later, with_for_update=True)
            has_one.set()
            assert stuck.wait(20)
            session.get_one(DeliveryRow, first, with_for_update=True)

    thread = threading.Thread(target=other_way_round)
    thread.start()
    assert has_one.wait(20)
    watcher = threading.Thread(target=_watch, args=(crm, stuck))
    watcher.start()
    if way == "webhook":
        moved = sample("booking_rescheduled", id=MOVED)
        assert crm.post(moved).status_code == 202
    else:
        event = crm.events()[-1]
        assert crm.services.intake.replay(event.id) == [1]
    thread.join(20)
    watcher.join(20)
    crm.settle()


def _watch(crm: Bridge, stuck: threading.Event) -> None:
    """Set the event when a transaction waits for a lock."""
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(2000):
        with crm.services.store.read() as session:
            if session.scalar(query):
                stuck.set()
                return
        threading.Event().wait(0.01)


def test_two_that_belong_together_are_stored_one_after_the_other(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel of a booking and the booking that replaces it arrive at the same moment, joined by
    the circumstances alone: they still become one story.
    """
    old = sample("booking_created", id="old", createdAt="2026-11-01T09:00:00Z")
    crm.sync(old)
    cancelled = sample("booking_cancelled", id="old", updatedAt="2026-11-24T09:00:00Z",
                       cancel={"reason": "rescheduled", "actionAt": "2026-11-24T09:00:00Z"})  # fmt: skip
    anew = sample("booking_created", id="anew", createdAt="2026-11-24T09:00:30Z",
                  updatedAt="2026-11-24T09:00:30Z")  # fmt: skip
    join, met = newest.join_story, threading.Event()
    first = threading.Lock()

    def meets_the_other(*args: object) -> list[BookingRow]:
        changed = join(*args)  # type: ignore[arg-type]
        if first.acquire(blocking=False):
            met.wait(20)
        return changed

    monkeypatch.setattr(newest, "join_story", meets_the_other)
    one = threading.Thread(target=crm.post, args=(cancelled,))
    one.start()
    while not first.locked():
        assert one.is_alive()
    watcher = threading.Thread(target=_watch, args=(crm, met))
    watcher.start()

    def other() -> None:
        crm.post(anew)
        met.set()

    two = threading.Thread(target=other)
    two.start()
    for thread in (one, two, watcher):
        thread.join(30)
    crm.settle()
    with crm.services.store.read() as session:
        stories = {row.key: row.story for row in session.scalars(select(BookingRow))}
    assert stories["default:anew"] == "default:old", stories
