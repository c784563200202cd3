"""Fixtures for every kind of test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.domain import rate_limits as waiting
from app.services import rate_limits as budgets
from sandbox.limits import Window
from tests.bridge import PROVIDERS, Bridge
from tests.postgres import postgres_url
from tests.ready_made import build_addresses_late, read_mappings_once, share_statements
from tests.reaper import guard
from tests.some import SOME, left_out

# The first example loads the character tables; a slow machine must not fail for this.
settings.register_profile(
    "bridge", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bridge")


def pytest_configure() -> None:
    """Set up the test run, and plant the bug that `make chaos-mutants` names."""
    from tests.chaos.mutants import plant

    guard()
    plant(os.environ.get("BRIDGE_MUTANT", ""))
    share_statements()
    build_addresses_late()
    read_mappings_once()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a short run leaves out, and start with the long tests, some on each worker.

    pytest-xdist's worksteal first gives each worker an equal part of the list. If the long tests
    came last, one worker would end late.
    """
    if SOME:
        out = left_out(items)
        config.hook.pytest_deselected(items=out)
        gone = set(map(id, out))
        items[:] = [item for item in items if id(item) not in gone]
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    total, items[:] = len(items), []
    for worker in range(workers):
        mine = long[worker::workers]
        size = (total - len(items)) // (workers - worker)
        items += mine + rest[: max(0, size - len(mine))]
        del rest[: max(0, size - len(mine))]
    items += rest


class JumpingClock:
    """The machine's clock, but a sleep ends at once and moves the clock forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        """Return the seconds of this clock."""
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Move the clock forward; sleeps at the same time overlap."""
        target = self.monotonic() + seconds
        self._ahead = max(self._ahead, target - time.monotonic())


@pytest.fixture(autouse=True)
def limits_cost_no_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock of the rate limits jump in place of a wait, in the service and the sandboxes.

    Tests with the mark `real_limits` wait in real time.
    """
    if request.node.get_closest_marker("real_limits"):
        return
    clock = JumpingClock()
    for module in (waiting, budgets):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(Window, "clock", staticmethod(clock.monotonic))


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    """The service on SQLite with all CRMs connected."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3").connect_all()
    yield made
    made.close()


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """Each CRM in providers.yaml."""
    return str(request.param)


@pytest.fixture
def crm(provider: str, tmp_path: Path) -> Iterator[Bridge]:
    """The service on SQLite with one CRM connected."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", (provider,)).connect_all()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/bridge.sqlite3"
        return
    with postgres_url() as url:
        yield url
