"""A short run of `make fuzz` against the web process as the Procfile starts it, on each database."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import strategies as st

from app.domain.errors import RetryLater
from tests.bridge import PROVIDERS
from tests.contract.calls import world
from tests.contract.test_answers import points
from tests.fuzz.answers import DEADLINE, ENDLESS, SLACK, struck
from tests.fuzz.inside import PROPERTIES, play, play_for
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


@pytest.mark.parametrize(
    ("name", "examples"), [("mappings", 150), ("callbacks", 60), ("answers", 60)]
)
def test_a_short_fuzz_inside(name: str, examples: int) -> None:
    """Some seconds of each fuzzer of `make fuzz` that needs no process of its own."""
    run = play(name, 3, examples)
    assert run.fault == ""
    assert run.examples >= examples


def test_any_callback_ends_in_words() -> None:
    """Any parameters of an OAuth callback, and any token answer, end in a page with words."""
    assert play("callbacks", 4, 30).fault == ""


def test_a_fuzzer_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A property that does not hold is told, with its smallest example."""

    def wrong(data: st.DataObject) -> None:
        assert data.draw(st.integers(0, 100)) < 7

    monkeypatch.setitem(PROPERTIES, "wrong", wrong)
    assert "Draw 1: 7" in play("wrong", 1, 100).fault
    assert "batch 0 of seed 5" in play_for("wrong", 5, 1e9).fault


@pytest.mark.long
def test_every_call_ends_although_its_answer_does_not() -> None:
    """A call of each adapter that gets a large, slow or endless answer ends at its deadline, and what
    it was for is tried again.
    """
    chance = random.Random(7)
    kinds = list(ENDLESS)
    late = []
    for provider in PROVIDERS:
        of = world(provider)
        calls = list(points(of))
        for name in kinds:
            step, place = chance.choice(calls)
            error, _, seconds = struck(of, step, place, name)
            if seconds > DEADLINE + SLACK or not isinstance(error, RetryLater | None):
                late.append((provider, step.name, place, name, error, seconds))
    assert late == []
