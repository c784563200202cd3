"""A short chaos run in CI; `make chaos SEED=.. BOOKINGS=..` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.thorough import some


@pytest.mark.long
@pytest.mark.parametrize("database_url", some(["postgresql", "sqlite"], 2), indirect=True)
def test_a_short_run(tmp_path: Path, database_url: str) -> None:
    """Every fault strikes at least once, and the records are those of a run without faults."""
    verdict = run(tmp_path, database_url, seed=1, bookings=40)
    assert verdict.wrong == []
    assert all(verdict.struck.values()) and len(verdict.struck) >= 26
