"""A short run of `make fuzz` against the web process as the Procfile starts it, on each database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run import fuzz
from tests.web import web_process

SEEDS = {"sqlite": 11, "postgresql": 12}
"""Each database gets its own requests, the same ones in each run."""


@pytest.mark.long
def test_a_short_fuzz(tmp_path: Path, database_url: str) -> None:
    """A short fuzz gives no 5xx, no hang over five seconds, no unsigned or surplus row and no
    logged error.
    """
    kind = database_url.partition(":")[0]
    amounts = {"webhooks": 750, "raw": 160}
    with web_process(tmp_path, database_url) as web:
        report = fuzz(web, database_url, SEEDS[kind], amounts, lambda _kind, _number: None)
    assert report.faults == []
    assert report.stored > 250 and report.sent == amounts
