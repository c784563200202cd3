"""The newest state wins, whatever the order of the states and however many arrive at once."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from app.bootstrap import bootstrap
from app.domain.booking import is_newer, rank
from app.domain.events import read_booking, read_event
from app.services.sources import DEFAULT_SOURCE
from app.store.models import BookingRow, EventRow
from tests.bridge import make_settings, sample

NOW = datetime(2026, 11, 24, tzinfo=UTC)
STATES = [
    sample("booking_created", updatedAt="2026-11-20T10:00:00Z"),
    sample("booking_rescheduled", updatedAt="2026-11-20T11:00:00Z", start="2026-12-03T08:00:00Z"),
    sample("booking_rescheduled", updatedAt="2026-11-20T12:00:00Z", start="2026-12-04T08:00:00Z"),
    # Both at the same moment: the cancel wins.
    sample("booking_cancelled", updatedAt="2026-11-20T12:00:00Z", start="2026-12-04T08:00:00Z"),
]
SIX = [*STATES, STATES[0], STATES[2]]
PROCESSES, THREADS = 4, 16


def test_all_720_orders_of_six_events_two_of_them_doubled() -> None:
    """Every order of arrival leads to the same newest state."""
    ends = set()
    for order in itertools.permutations(range(6)):
        known = None
        for place in order:
            message = read_event("default", SIX[place], NOW)
            found = read_booking(message)
            if known is None or is_newer(found, known):
                known = found
        assert known is not None
        ends.add((known.status, known.start, rank(known)))
    assert len(ends) == 1
    ((status, start, _),) = ends
    assert (status, start) == ("cancelled", datetime(2026, 12, 4, 8, tzinfo=UTC))


def test_a_cancelled_booking_comes_back_only_by_a_newer_event(bridge: Any) -> None:
    """A cancelled booking returns only by a newer event, not by an older or equally old one."""
    bridge.sync(STATES[3])
    for payload in STATES[:3]:
        bridge.sync(payload)
    assert status_of(bridge.services) == "cancelled"
    bridge.sync(sample("booking_rescheduled", updatedAt="2026-11-20T12:00:01Z"))
    assert status_of(bridge.services) == "scheduled"


def status_of(services: Any) -> str:
    with services.store.read() as session:
        return str(session.scalars(select(BookingRow.status)).one())


def write(url: str, number: int) -> None:
    """Run one process: sixteen threads each store the same webhooks."""
    services = bootstrap(make_settings(url), {})
    services.prepare()
    rules = services.sources.rules(DEFAULT_SOURCE)

    def post(turn: int) -> None:
        for place in range(len(STATES)):
            payload = STATES[(place + turn + number) % len(STATES)]
            services.intake.accept(rules, json.dumps(payload).encode())
            services.processor.run()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(post, range(THREADS)))


@pytest.mark.long
def test_sixty_four_writers_in_four_processes(database_url: str) -> None:
    """Sixty-four writers of one booking store each webhook once and keep the newest state."""
    services = bootstrap(make_settings(database_url), {})
    services.prepare()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(database_url, n)) for n in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    with services.store.read() as session:
        assert session.scalar(select(func.count(EventRow.id))) == len(STATES)
        assert session.scalar(select(func.count(BookingRow.id))) == 1
    assert status_of(services) == "cancelled"
    services.store.close()
