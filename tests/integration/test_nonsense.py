"""A CRM that answers nonsense counts as down: its bookings wait, none fails, and other CRMs go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.deliveries import OPEN_AFTER
from app.store.models import ConnectionRow
from sandbox.account import BLOCK_PAGE
from sandbox.serve import load_sandbox
from tests.between import Asked, Between, Right, reply
from tests.bridge import PROVIDERS, Bridge, sample
from tests.integration.test_outages import Clock
from workers.drain import Drainer

KINDS: dict[str, tuple[int, str]] = {
    "object": (200, "{}"),
    "page": (200, BLOCK_PAGE),
    "list": (200, "[]"),
    "null": (200, "null"),
    "redirect": (302, "{}"),
    "teapot": (418, BLOCK_PAGE),
    "teapot in JSON": (418, '{"message": "short and stout"}'),
}
"""Kind -> status and body of the CRM's answer to every call."""
AGAIN = 61.0
"""The seconds within which the service tries the account again by itself."""


@pytest.fixture(scope="module", params=PROVIDERS)
def struck(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[tuple[Bridge, str]]:
    """The service with all CRMs, and the name of the CRM that answers nonsense."""
    folder = tmp_path_factory.mktemp("nonsense")
    crm = Bridge(f"sqlite:///{folder}/bridge.sqlite3").connect_all()
    yield crm, request.param
    crm.close()


def states(crm: Bridge) -> dict[str, set[str]]:
    """Return the states of each CRM's deliveries."""
    found: dict[str, set[str]] = {name: set() for name in PROVIDERS}
    with crm.services.store.read() as session:
        for row in crm.deliveries():
            provider = session.get_one(ConnectionRow, row.connection_id).provider
            found[provider].add(row.state)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_bookings_wait_for_a_crm_that_answers_nonsense(
    struck: tuple[Bridge, str], kind: str
) -> None:
    """After 85 seconds of nonsense no booking has failed and none counts as a worker's death; the
    other CRMs synced at once, and the rest follows after the repair.
    """
    crm, provider = struck
    clock = Clock()
    crm.drainer = Drainer(crm.services, now=clock)
    sandbox = crm.sandbox(provider)
    status, body = KINDS[kind]
    headers = {"Location": "https://elsewhere.example/"} if status == 302 else {}
    sandbox.account.every_call_answers(status, body, headers=headers, times=10**6)
    calls = []
    mine_id = crm.connection(provider).id
    for second in [*range(25), *range(25, 86, 5)]:
        if second in (0, 3, 12, 20):
            who = f"{provider}-{kind}-{second}".replace(" ", "")
            person = {"email": f"{who}@corp.example", "firstname": "A", "lastname": who}
            crm.post(sample("booking_created", id=who, attendees=[person]))
            crm.drain()
            others = set.union(*(found for name, found in states(crm).items() if name != provider))
            assert others == {"synced"}, second
        crm.drainer.drain(mine_id)
        clock.forward(1 if second < 25 else 5)
        calls.append(sum(10**6 - fault.times for fault in sandbox.faults))
    mine = [row for row in crm.deliveries() if row.state != "synced"]
    assert {row.state for row in mine} <= {"due", "parked"} and len(mine) == 4
    assert {(row.worker_crashes, row.attempts) for row in mine} == {(0, 0)}
    assert calls[24] <= OPEN_AFTER + 2
    assert calls[-1] - calls[24] <= 2, "more than two probes in a minute"
    connection = crm.connection(provider)
    assert connection.last_error
    sandbox.account.clears_answers()
    clock.forward(AGAIN)
    crm.drain()
    clock.forward(1)
    crm.drain()
    assert states(crm) == {name: {"synced"} for name in PROVIDERS}
    connection = crm.connection(provider)
    assert (connection.status, connection.outages, connection.last_error) == ("active", 0, None)
    # Each booking has its deal and its single meeting.
    view = sandbox.view()
    assert len(view.deals) == len({deal.title for deal in view.deals}) == len(view.meetings)


@pytest.mark.parametrize("kind", ["object", "page"])
def test_nonsense_in_the_middle_of_a_batch_is_made_up_for(
    provider: str, kind: str, tmp_path: Path
) -> None:
    """If reads succeed and writes get nonsense, the begun records are searched for and stay single."""
    between = Between(load_sandbox(provider)())
    crm = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", served={provider: between}).connect_all()
    clock = Clock()
    crm.drainer = Drainer(crm.services, now=clock)
    status, body = KINDS[kind]

    def instead(asked: Asked, right: Right) -> bytes | None:
        read = asked.method == "GET" or asked.path.endswith(("/search", "/read", "/composite"))
        if read or "oauth" in asked.path:
            return None
        # The CRM does its work, and its answer is lost.
        right()
        return reply(status, body.encode())

    with between.answering(instead):
        crm.post(sample("booking_created"))
        for _ in range(30):
            crm.drain()
            clock.forward(3)
        (row,) = crm.deliveries()
        # If only writes fail, the booking itself may be the cause: it is retried for days.
        assert row.state in ("due", "retrying") and row.worker_crashes == 0, row.error_message
    for _ in range(4):
        clock.forward(3600)
        crm.drain()
    assert crm.deliveries()[0].state == "synced"
    view = between.sandbox.view()
    assert [len(part) for part in (view.contacts, view.companies, view.deals, view.meetings)] == [1] * 4  # fmt: skip
    crm.close()
