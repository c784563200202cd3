"""A webhook is stored while a connection returns or is made: two transactions at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.services import processing
from app.store.connections import set_status
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from app.store.states import ConnectionStatus
from tests.bridge import Bridge, sample
from tests.postgres import postgres_url
from workers import jobs


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    """The service on PostgreSQL; SQLite runs one transaction at a time, so this cannot happen there."""
    with postgres_url() as url:
        bridge = Bridge(url, ("hubspot",))
        monkeypatch.setattr(jobs, "process_services", lambda: bridge.services)
        yield bridge
        bridge.close()


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> None:
    """Run `do` completely between a webhook's look at the connections and its commit."""
    want = processing.mark_due

    def look_first(*args: Any) -> list[int]:
        wake = want(*args)
        other = threading.Thread(target=do)
        other.start()
        other.join(30)
        assert not other.is_alive()
        return wake

    monkeypatch.setattr(processing, "mark_due", look_first)


def sweep(bridge: Bridge) -> None:
    """Wake the due connections, as the scheduler does."""
    jobs.wake_due(bridge.drainer.drain)


def test_a_connection_comes_back_meanwhile(two: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep syncs a booking that was parked while its connection came back."""
    two.connect_all()

    def turn(status: ConnectionStatus) -> None:
        with two.services.store.write() as session:
            set_status(session, session.get_one(ConnectionRow, 1), status, utcnow())

    turn(ConnectionStatus.EXPIRED)
    meanwhile(monkeypatch, lambda: turn(ConnectionStatus.ACTIVE))
    two.post(sample("booking_created"))
    assert two.delivery("hubspot").state == "parked"
    sweep(two)
    assert two.delivery("hubspot").state == "synced"


def test_a_connection_is_made_meanwhile(two: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep makes the delivery that a booking lacks because its connection was made meanwhile;
    a past booking gets none.
    """
    over = {"start": "2026-01-01T08:00:00Z", "end": "2026-01-01T08:30:00Z"}
    two.post(sample("booking_created", id="over", **over))
    meanwhile(monkeypatch, two.connect_all)
    two.post(sample("booking_created"))
    assert two.deliveries() == []
    sweep(two)
    (delivery,) = two.deliveries()
    assert (delivery.booking_id, delivery.state) == (2, "synced")
