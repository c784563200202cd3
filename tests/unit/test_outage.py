"""An outage is told when it begins, at growing intervals while it lasts, and when it is over."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from app.services import outage
from app.services.outage import Outage

DAY = 24 * 3600
Lines = list[tuple[int, str, object]]


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = 1000

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The lines of the log: when, what, and the reason or how long it lasted."""
    heard: Lines = []

    def warning(event: str, reason: str, seconds: int) -> None:
        heard.append((clock.at - 1000, event, reason))

    def info(event: str, seconds: int) -> None:
        heard.append((clock.at - 1000, event, seconds))

    monkeypatch.setattr(outage, "log", SimpleNamespace(warning=warning, info=info))
    return heard


def test_an_outage_of_a_day_is_a_few_lines(clock: Clock, lines: Lines) -> None:
    """Tried every 2 s, it is told after 1, 3, 7 … minutes, then once an hour, and once at its end."""
    known = Outage("redis", clock)
    for _ in range(DAY // 2):
        known.note("It is away.")
        clock.at += 2
    told = [at for at, *_ in lines]
    assert told[:8] == [0, 60, 180, 420, 900, 1860, 3780, 7380]
    assert {b - a for a, b in itertools.pairwise(told[6:])} == {3600}
    known.over()
    known.over()
    assert lines[-1] == (DAY, "redis_back", DAY)
    assert [event for _, event, _ in lines] == ["redis_away"] * len(told) + ["redis_back"]


def test_a_new_reason_is_told_at_once(clock: Clock, lines: Lines) -> None:
    """Each reason of an outage is told when it is new, and once only, if the reasons alternate."""
    known = Outage("redis", clock)
    for _ in range(10):
        known.note("It is away.")
        known.note("It is full.")
        clock.at += 1
    assert [(at, reason) for at, _, reason in lines] == [(0, "It is away."), (0, "It is full.")]


def test_what_comes_and_goes_is_not_told_each_time(clock: Clock, lines: Lines) -> None:
    """A Redis that fails every 2 s and works in between gives two lines an hour, not thousands."""
    known = Outage("redis", clock)
    for _ in range(DAY // 2):
        known.note("It is full.")
        clock.at += 1
        known.over()
        clock.at += 1
    assert len(lines) < 2 * (24 + 8)
    assert [event for _, event, _ in lines[:4]] == ["redis_away", "redis_back"] * 2


def test_a_later_outage_is_one_of_its_own(clock: Clock, lines: Lines) -> None:
    """After ten quiet minutes the next outage is told when it begins."""
    known = Outage("redis", clock)
    known.note("It is away.")
    clock.at += 5
    known.over()
    clock.at += 601
    known.note("It is away.")
    assert [at for at, *_ in lines] == [0, 5, 606]
