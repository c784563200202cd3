"""The lease on a connection, under wrong clocks and workers that pause."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.store import deliveries, delivery_outcomes, leases
from app.store.engine import utcnow
from app.store.models import DeliveryRow
from tests.bridge import Bridge, sample
from tests.contract.test_adapters import lose_lease
from workers import drain, lease
from workers.batch import Batch
from workers.drain import Drainer
from workers.lease import LeaseLost


@pytest.mark.parametrize("minutes", [-10, 10], ids=["behind", "ahead"])
def test_a_worker_with_another_clock_waits_for_its_turn(database_url: str, minutes: int) -> None:
    """A worker with a wrong clock cannot take a lease that is held, and its own lease ends on time."""
    bridge = Bridge(database_url, ("hubspot",)).connect_all()
    wrong = Drainer(bridge.services, now=lambda: utcnow() + timedelta(minutes=minutes))
    kept = bridge.drainer._take(1)
    assert kept is not None
    assert wrong._take(1) is None
    lose_lease(bridge)
    assert wrong._take(1) is not None
    ends = bridge.connection("hubspot").drain_until
    assert ends is not None
    assert timedelta() < ends - utcnow() <= leases.LEASE + timedelta(seconds=1)
    bridge.close()


def test_who_stood_still_while_the_lease_was_given_does_not_have_it(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease runs from the moment of the request, so that a worker that paused meanwhile has lost it."""
    inherit, clock = delivery_outcomes.take_over_orphans, 1000.0

    def slowly(session: Session, connection_id: int, fence: int, now: datetime) -> Any:
        nonlocal clock
        clock += leases.LEASE.total_seconds() + 1
        return inherit(session, connection_id, fence, now)

    for module in (lease, drain):
        monkeypatch.setattr(module, "ticks", lambda: clock)
    monkeypatch.setattr(delivery_outcomes, "take_over_orphans", slowly)
    taken = crm.drainer._take(1)
    assert taken is not None
    with pytest.raises(LeaseLost):
        taken[0].check()
    crm.post(sample("booking_created"))
    lose_lease(crm)
    crm.drain()
    assert crm.delivery(next(iter(crm.served))).state == "due"


@pytest.mark.parametrize(
    "before", [0, delivery_outcomes.MOST_STANDSTILLS], ids=["first", "each time"]
)
def test_a_booking_at_which_living_workers_stand_still_has_killed_none(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """A booking that two suspended workers held is tried again after they wake; if this happens
    each time, it is set aside.
    """
    provider = next(iter(crm.served))
    plan, clock, drainers = Batch._plan, 1000.0, [Drainer(crm.services) for _ in range(3)]

    def stands_still(batch: Batch, beside: Batch | None) -> Any:
        nonlocal clock
        clock += leases.LEASE.total_seconds() + 1
        lose_lease(crm)
        following = drainers.pop()
        if drainers:
            following.drain(1)
        else:
            taken = following._take(1)
            assert taken is not None
            assert crm.delivery(provider).error_code == "killed_worker"
            taken[0].give()
        return plan(batch, beside)

    for module in (lease, drain):
        monkeypatch.setattr(module, "ticks", lambda: clock)
    crm.post(sample("booking_created"))
    with crm.services.store.write() as session:
        session.execute(update(DeliveryRow).values(inconclusive_batches=before))
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "_plan", stands_still)
        drainers.pop().drain(1)
    row = crm.delivery(provider)
    if before:
        assert (row.state, row.error_code) == ("failed", "killed_worker")
        return
    assert (row.state, row.worker_crashes, row.claimed_by, row.error_code) == ("due", 0, None, None)
    crm.settle()
    assert crm.delivery(provider).state == "synced"
    assert len(crm.sandbox(provider).view().deals) == 1


def test_who_never_held_a_booking_acquits_it_of_nothing(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that paused before it took the booking does not clear it of another worker's death."""
    provider = next(iter(crm.served))
    crm.post(sample("booking_created"))
    with crm.services.store.write() as session:
        session.execute(update(DeliveryRow).values(inconclusive_batches=2, worker_crashes=1))
    due, other, looks = deliveries.due, Drainer(crm.services), []

    def late(*args: Any) -> Any:
        rows = due(*args)
        looks.append(rows)
        if len(looks) == 2:
            lose_lease(crm)
            taken = other._take(1)
            assert taken is not None
            taken[0].give()
        return rows

    monkeypatch.setattr(deliveries, "due", late)
    Drainer(crm.services).drain(1)
    assert crm.delivery(provider).worker_crashes == 1
