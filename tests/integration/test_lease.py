"""The lease on a connection: whose clock it goes by."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.store import deliveries
from app.store.engine import utcnow
from tests.bridge import Bridge, sample
from tests.contract.test_adapters import lose_lease
from workers import lease, sync
from workers.lease import LeaseLost
from workers.sync import Drainer


@pytest.mark.parametrize("minutes", [-10, 10], ids=["behind", "ahead"])
def test_a_worker_with_another_clock_waits_for_its_turn(database_url: str, minutes: int) -> None:
    """A machine whose clock is wrong takes no lease that is kept, and gets none that never ends."""
    bridge = Bridge(database_url, ("hubspot",)).connect_all()
    wrong = Drainer(bridge.services, now=lambda: utcnow() + timedelta(minutes=minutes))
    kept = bridge.drainer._take(1)
    assert kept is not None
    assert wrong._take(1) is None
    lose_lease(bridge)
    assert wrong._take(1) is not None
    ends = bridge.connection("hubspot").drain_until
    assert ends is not None
    assert timedelta() < ends - utcnow() <= deliveries.LEASE + timedelta(seconds=1)
    bridge.close()


def test_who_stood_still_while_the_lease_was_given_does_not_have_it(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease runs from when it was asked for, not from when the worker heard that it has it."""
    inherit, clock = deliveries.inherit, 1000.0

    def slowly(session: Session, connection_id: int, fence: int, now: datetime) -> Any:
        nonlocal clock
        clock += deliveries.LEASE.total_seconds() + 1
        return inherit(session, connection_id, fence, now)

    for module in (lease, sync):
        monkeypatch.setattr(module, "ticks", lambda: clock)
    monkeypatch.setattr(deliveries, "inherit", slowly)
    taken = crm.drainer._take(1)
    assert taken is not None
    with pytest.raises(LeaseLost):
        taken.check()
    crm.post(sample("booking_created"))
    lose_lease(crm)
    crm.drain()
    assert crm.delivery(next(iter(crm.served))).state == "due"
