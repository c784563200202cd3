"""The metrics: what each connection has done and what waits, for those who may read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.store.engine import utcnow
from app.store.models import ConnectionRow
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, Bridge, sample


def read(bridge: Bridge, **labels: str) -> dict[str, float]:
    """Return the samples with these labels; the other labels but the place follow the name."""
    text = bridge.app.test_client().get("/metrics").get_data(as_text=True)
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if all(one.labels.get(name) == value for name, value in labels.items()):
                rest = [v for k, v in one.labels.items() if k not in ("provider", "connection")]
                found[" ".join([one.name, *rest])] = one.value
    return found


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_synced_booking_is_counted(bridge: Bridge, provider: str) -> None:
    """Attempts, calls, batches and the time from due to synced are counted for each connection, and
    the counts outlast the process."""
    before = read(bridge, provider=provider)
    bridge.sync(sample("booking_created"))
    after = read(bridge, provider=provider)
    assert after["bridge_attempts_total synced"] == 1
    assert after["bridge_batches_total"] >= 1
    assert after["bridge_calls_total ok"] > before.get("bridge_calls_total ok", 0)
    assert after["bridge_sync_seconds_count"] == 1
    assert 0 < after["bridge_sync_seconds_sum"] < 30
    assert after["bridge_sync_seconds_bucket 30"] == 1
    assert after["bridge_sync_seconds_bucket +Inf"] == 1
    assert after["bridge_connections active"] == 1
    assert after["bridge_deliveries failed"] == after["bridge_deliveries due"] == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_outage_and_what_waits_for_it_are_counted(bridge: Bridge, provider: str) -> None:
    """Calls without an answer count as an outage; the booking that waits is counted, with its age."""
    bridge.sandbox(provider).faults.append(Fault(status=503, times=None))
    bridge.post(sample("booking_created"))
    bridge.drainer.drain(bridge.connection(provider).id)
    with bridge.services.store.write() as session:
        row = session.get_one(ConnectionRow, bridge.connection(provider).id)
        assert row.outages
    found = read(bridge, provider=provider)
    assert found["bridge_calls_total outage"] >= 1
    assert found["bridge_deliveries due"] == 1
    assert found["bridge_oldest_due_seconds"] > 0
    assert "bridge_attempts_total synced" not in found


def test_a_refresh_is_counted(bridge: Bridge) -> None:
    """A renewed access token is counted by its result."""
    provider = "hubspot"
    row = bridge.connection(provider)
    with bridge.services.store.write() as session:
        session.get_one(ConnectionRow, row.id).expires_at = utcnow() + timedelta(seconds=5)
    bridge.services.tokens.renew_early(row.id)
    assert read(bridge, provider=provider)["bridge_refreshes_total ok"] == 1


def test_who_may_read_the_metrics(bridge: Bridge) -> None:
    """A program on this machine may, and whoever sends a key; nobody else, not through a proxy."""
    client = bridge.app.test_client()
    key = {"Authorization": f"Bearer {bridge.key}"}
    away = {"REMOTE_ADDR": "203.0.113.9"}
    assert client.get("/metrics").status_code == 200
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert client.get("/metrics", headers={name: "203.0.113.9"}).status_code == 401
    assert client.get("/metrics", environ_overrides=away).status_code == 401
    assert client.get("/metrics", environ_overrides=away, headers=key).status_code == 200
    wrong = {"Authorization": "Bearer wrong"}
    assert client.get("/metrics", environ_overrides=away, headers=wrong).status_code == 401
