"""Faults between any two calls, in one process with a clock that jumps: fast, with many seeds."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from app.services.replay import ReplaySelection, replay
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, Bridge
from tests.chaos.history import make
from tests.chaos.run import compare, oracle
from tests.chaos.system import serve
from tests.integration.test_outages import Clock
from tests.thorough import THOROUGH, some
from workers.drain import Drainer

FAULTS = (
    lambda dice: Fault(status=500, times=dice.randint(1, 3)),
    lambda dice: Fault(drop_after_commit=True, times=dice.randint(1, 3)),
    lambda dice: Fault(times=dice.randint(1, 3)),
    lambda dice: Fault(status=429, times=2, headers={"Retry-After": "5"}),
)


@pytest.mark.long
@pytest.mark.parametrize("seed", some(range(3), 3))
def test_a_storm_of_faults_leaves_no_trace(seed: int, tmp_path: Path) -> None:
    """Random lost, refused and late answers leave nothing lost, duplicate or stale, and no later
    write.
    """
    history = make(seed, 40 if THOROUGH else 25)
    dice, clock = random.Random(seed), Clock()
    expected = oracle(tmp_path, history)
    bridge = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", served=serve()).connect_all()
    bridge.drainer = Drainer(bridge.services, now=clock)
    struck = 0
    for state in history.posts:
        bridge.post(state)
        if dice.random() < 0.4:
            sandbox = dice.choice(list(bridge.served.values())).sandbox
            sandbox.faults.append(dice.choice(FAULTS)(dice))
            struck += 1
        if dice.random() < 0.3:
            bridge.drain()
            clock.forward(dice.choice([1, 30, 60, 3600]))
    assert struck > 10
    for served in bridge.served.values():
        served.sandbox.faults.clear()
    for state in history.last:
        bridge.post(state)
    for _ in range(12):
        clock.forward(12 * 3600)
        bridge.drain()
    states = Counter(d.state for d in bridge.deliveries())
    replaced = len(PROVIDERS) * history.replaced
    assert states == {"synced": len(PROVIDERS) * history.stories, "skipped": replaced}
    for provider in PROVIDERS:
        assert compare(bridge, provider, expected[provider], history) == []
    writes = {name: bridge.sandbox(name).writes() for name in PROVIDERS}
    for _ in range(2):
        replay(bridge.services.store, bridge.services.intake, ReplaySelection(), lambda ids: None)
        clock.forward(60)
        bridge.drain()
    assert {name: bridge.sandbox(name).writes() for name in PROVIDERS} == writes
    bridge.close()
