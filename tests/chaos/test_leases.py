"""Real worker processes that die, pause or get a stop signal while they hold a lease."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import select

from app.store.leases import LEASE
from app.store.models import ConnectionRow, DeliveryRow, RecordLink
from config.settings import Settings
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, sample, wait_for
from tests.chaos.system import System
from workers.drain import STOP_GRACE

PATIENCE = 120.0
"""The seconds that a busy machine may take for work of half a minute."""
SLOW = 4.0
"""The seconds of the slow call during which the test stops the worker."""


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[System]:
    """The service with one worker, which has synced one booking."""
    made = System(tmp_path, f"sqlite:///{tmp_path}/a.sqlite3", workers=("worker-1",))
    # The worker reads the account now, so that the test does not stop it during this read.
    made.post(sample("booking_created", id="first"))
    wait_for(lambda: made.states() == {"synced": len(PROVIDERS)}, 60)
    yield made
    made.stop()


@pytest.fixture
def system(idle: System) -> System:
    """The service while its worker makes a slow call to each CRM."""
    catch(idle, Fault(latency=SLOW, method="POST", times=2))
    return idle


def catch(system: System, fault: Fault) -> None:
    """Post a second booking whose calls meet a fault; return once the worker has claimed it."""
    for served in system.served.values():
        served.sandbox.faults.append(replace(fault))
    system.post(sample("booking_created", id="caught"))
    wait_for(lambda: held(system) > 0, 20)


def held(system: System) -> int:
    """Return how many deliveries a drainer has claimed."""
    with system.store.read() as session:
        query = select(DeliveryRow.id).where(DeliveryRow.claimed_by.is_not(None))
        return len(session.scalars(query).all())


def rows(system: System) -> list[Any]:
    """Return the current ledger and deliveries."""
    with system.store.read() as session:
        ledger = session.scalars(select(RecordLink).order_by(RecordLink.id))
        lines = [(r.record_id, r.fingerprints_encrypted, r.links, r.updated_at) for r in ledger]
        every = session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))
        return lines + [(r.state, r.synced_revision, r.calls, r.updated_at) for r in every]


def views(system: System) -> list[Any]:
    """Return the records of every CRM."""
    return [served.sandbox.view() for served in system.served.values()]


def stands_still(system: System, pid: int) -> bool:
    """Stop a process, unless it is in the middle of a write, which blocks all other writers of
    SQLite.

    A signal stops each thread when the kernel comes to it. The check runs after the kernel reports
    the process as stopped; otherwise a thread could still begin a write. The check does not wait
    for a writer, because the slow calls would end meanwhile.
    """
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    path = system.store.engine.url.database
    with closing(sqlite3.connect(str(path), timeout=0, isolation_level=None)) as look:
        try:
            look.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            return False


def one_of_each(system: System) -> bool:
    """Whether each CRM holds two deals and two meetings, and no more."""
    views = [served.sandbox.view() for served in system.served.values()]
    return all((len(view.deals), len(view.meetings)) == (2, 2) for view in views)


def test_the_work_of_a_killed_worker_is_done_within_thirty_seconds(system: System) -> None:
    """After a SIGKILL in the middle of a call, another worker does the work once.

    It may take a lease and a sweep; the machine that runs the tests may be slower.
    """
    usual = Settings.model_fields["sweep_interval"].default
    assert LEASE.total_seconds() + usual < 30
    system.kill("worker-1")
    wait_for(lambda: system.states() == {"synced": 2 * len(PROVIDERS)}, PATIENCE)
    assert one_of_each(system)


@pytest.mark.long
def test_a_worker_that_stood_still_writes_nothing(idle: System) -> None:
    """A worker stopped for longer than its lease changes no row after it wakes up."""
    system, stopped = idle, threading.Event()
    # Shorter than the worker's timeout, so that the call itself does not fail.
    catch(system, Fault(latency=8, until=stopped, method="POST", times=2))
    sleeper = system.processes["worker-1"]
    wait_for(lambda: stands_still(system, sleeper.pid), 30)
    assert held(system) > 0, "the worker was done before it stood still"
    stopped.set()
    system.start("worker-2")
    wait_for(lambda: system.states() == {"synced": 2 * len(PROVIDERS)}, PATIENCE)
    wait_for(lambda: held(system) == 0, 10)
    before, seen = rows(system), views(system)
    os.kill(sleeper.pid, signal.SIGCONT)
    log = system.folder / "log"
    wait_for(lambda: "lease_lost" in log.read_text(errors="replace"), PATIENCE)
    assert rows(system) == before
    # A call that was about to be sent may still arrive; it changes nothing.
    assert views(system) == seen
    assert one_of_each(system)


@pytest.mark.long
def test_a_worker_that_is_told_to_stop_ends_within_ten_seconds(system: System) -> None:
    """On SIGTERM a batch is finished or returned, no lease stays, and no record is in doubt or lost."""
    worker = system.processes.pop("worker-1")
    assert STOP_GRACE + 2 < 10
    worker.send_signal(signal.SIGTERM)
    # Far more than needed: five other tests may run on this machine.
    assert worker.wait(60) == 0
    with system.store.read() as session:
        ends = session.scalars(select(ConnectionRow.drain_until)).all()
    assert set(ends) == {None}
    system.start("worker-2")
    wait_for(lambda: system.states() == {"synced": 2 * len(PROVIDERS)}, PATIENCE)
    assert one_of_each(system)


@pytest.mark.long
def test_a_worker_ends_although_redis_hangs(idle: System) -> None:
    """On SIGTERM a worker ends even if Redis holds the connection and never answers."""
    with Redis.from_url(idle.redis_url) as redis:
        redis.client_pause(600_000)
    worker = idle.processes.pop("worker-1")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


@pytest.mark.long
def test_the_web_process_ends_its_requests(system: System) -> None:
    """Webhooks that are answered around a SIGTERM of the web process are all stored."""
    for number in range(20):
        if number == 5:
            system.processes["web"].send_signal(signal.SIGTERM)
        system.post(sample("booking_created", id=f"w{number}"))
    wait_for(lambda: sum(system.states().values()) == 22 * len(PROVIDERS), 30)


@pytest.mark.long
def test_without_redis_workers_look_themselves(idle: System) -> None:
    """Webhooks posted while Valkey is gone for good are synced all the same."""
    idle.kill_valkey()
    # No drain is under way that would find this booking beside its own.
    idle.post(sample("booking_created", id="meanwhile"))
    wait_for(lambda: idle.states() == {"synced": 2 * len(PROVIDERS)}, 60)
    assert idle._valkey is None
