"""Keeps all processes within a CRM's allowance: one budget for each connection, in Redis."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis import Redis
from redis.exceptions import RedisError

from app.domain.errors import AllowanceUsed, RateLimited
from app.domain.rate_limits import LimitHeaders, RateLimit, RateLimiter
from app.services.outage import Outage
from app.services.redis_client import explain

LIVE_MARGIN = 0.08
"""The part of a short window's allowance that backlog leaves to live bookings."""
BURST = 4
"""One BURSTth of a window's calls may be made at once; the rest is spread evenly: calls reach a
CRM later than they are counted here, and not all with the same delay."""
LIVE_SHARE = 0.5
"""The part of a day's reserve that live bookings may use all the same."""
LONGEST_WAIT = 20.0
"""The most seconds that a call waits for its window; for longer waits the drainer pauses."""
DAY_PAUSE = 900.0
"""Seconds until a day's used-up budget is looked at again."""
DAY = 90_000
"""Seconds for which the largest budget ever seen is remembered."""
FRESH_DAY = 2.0
"""Seconds for which this process trusts its own figure of a day's budget."""
SHRINK = 0.75
"""The factor for an allowance that was refused and that no header reports."""
COOL_DOWN = 5.0
"""Seconds without a call to Redis after it did not answer."""


@dataclass
class _Window:
    """One short window, as this process knows it."""

    calls: deque[float] = field(default_factory=deque)
    next_at: float = 0.0
    """When the next call would be due if all were spread evenly."""
    limit: int | None = None
    others: int = 0
    others_at: float = -1e9


def room(limit: int, share: float, backlog: bool) -> int:
    """Calls of a window that this service may make, without the part kept free; at least one."""
    mine = int(limit * (1 - share))
    return max(1, mine - int(mine * LIVE_MARGIN) if backlog else mine)


class Budget(Protocol):
    """Counts the calls to a connection."""

    def take(self, key: str, allowance: RateLimit, share: float, backlog: bool) -> float:
        """Count a call, or return the seconds to wait before asking again."""

    def learn(self, key: str, allowance: RateLimit, reading: LimitHeaders) -> None:
        """Correct the limit, and what others use of it, by the CRM's headers."""

    def note_day(self, key: str, reading: LimitHeaders) -> None:
        """Store what is left of the day's budget."""

    def day(self, key: str) -> tuple[int, int] | None:
        """Calls or tokens left of the day, and the total; None if no answer reported them lately."""

    def shrink(self, key: str, allowance: RateLimit) -> None:
        """Lower an allowance: the CRM has refused a call."""


def _machine_clock() -> float:
    return time.monotonic()


class LocalBudget:
    """The budget of one process: exact if it alone drains a connection."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        """`now`: a clock in seconds that nobody sets; None: the machine's own."""
        self._now = now or _machine_clock
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}
        self._days: dict[str, tuple[int, int]] = {}
        self.noted_at: dict[str, float] = {}

    def take(self, key: str, allowance: RateLimit, share: float, backlog: bool) -> float:
        """Count a call, or return the seconds to wait."""
        with self._lock:
            window, now = self._window(key, allowance), self._now()
            limit = window.limit or allowance.calls
            fresh = now - window.others_at < allowance.seconds
            others = window.others if fresh else 0
            mine = room(limit, share, backlog)
            step = allowance.seconds / mine
            early = max(window.next_at, now) - now - (max(1, mine // BURST) - 1) * step
            if len(window.calls) + others < mine and early <= 0:
                self._count(window, now, step)
                return 0.0
            if early > 0 and len(window.calls) + others < mine:
                return max(0.001, early)
            ends = [window.others_at + allowance.seconds] if others else []
            ends += [window.calls[0] + allowance.seconds] if window.calls else []
            return max(0.001, min(ends) - now)

    def _count(self, window: _Window, now: float, step: float) -> None:
        window.calls.append(now)
        window.next_at = max(window.next_at, now) + step

    def learn(self, key: str, allowance: RateLimit, reading: LimitHeaders) -> None:
        """Correct the limit, and what others use of it."""
        with self._lock:
            window = self._window(key, allowance)
            window.limit = reading.most or window.limit
            limit = window.limit or allowance.calls
            window.others = max(0, limit - reading.left - len(window.calls))
            window.others_at = self._now()

    def shrink(self, key: str, allowance: RateLimit) -> None:
        """Lower an allowance by a quarter."""
        with self._lock:
            window = self._window(key, allowance)
            window.limit = max(1, int((window.limit or allowance.calls) * SHRINK))

    def count(self, key: str, allowance: RateLimit) -> None:
        """Count a call that Redis has allowed."""
        with self._lock:
            step = allowance.seconds / allowance.calls
            self._count(self._window(key, allowance), self._now(), step)

    def correct(self, key: str, allowance: RateLimit, others: int) -> None:
        """Set what others use of a window, as Redis knows it."""
        with self._lock:
            window = self._window(key, allowance)
            window.others, window.others_at = others, self._now()

    def _window(self, key: str, allowance: RateLimit) -> _Window:
        window = self._windows.setdefault(f"{key}:{allowance.name}", _Window())
        while window.calls and window.calls[0] <= self._now() - allowance.seconds:
            window.calls.popleft()
        return window

    def note_day(self, key: str, reading: LimitHeaders, age: float = 0.0) -> None:
        """Store what is left of the day, as the CRM said `age` seconds ago."""
        with self._lock:
            most = reading.most or max(reading.left, self._days.get(key, (0, 0))[1])
            self._days[key] = (reading.left, most)
            self.noted_at[key] = self._now() - age

    def day(self, key: str) -> tuple[int, int] | None:
        """What is left of the day, and the total; None if that is too old to trust."""
        if self._now() - self.noted_at.get(key, -1e9) >= DAY_PAUSE:
            return None
        return self._days.get(key)


# The same rules as in LocalBudget, for several processes that share Redis.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local span = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - span)
local used = redis.call('ZCARD', KEYS[1])
local told = redis.call('HMGET', KEYS[2], 'limit', 'others', 'others_at', 'next_at')
local limit = tonumber(told[1]) or tonumber(ARGV[2])
local others = 0
local told_at = tonumber(told[3]) or 0
-- What lies ahead of this clock was noted by one that has been set back since.
if told[3] and told_at <= now and now - told_at < span then others = tonumber(told[2]) end
local mine = math.floor(limit * (1 - tonumber(ARGV[3])))
if ARGV[4] == '1' then mine = mine - math.floor(mine * tonumber(ARGV[5])) end
mine = math.max(1, mine)
local step = span / mine
local next_at = math.max(tonumber(told[4]) or 0, now)
if next_at > now + 2 * span then next_at = now end
local early = next_at - now - (math.max(1, math.floor(mine / tonumber(ARGV[7]))) - 1) * step
if used + others < mine then
  if early > 0 then return math.max(1, math.ceil(early)) end
  redis.call('ZADD', KEYS[1], now, ARGV[6])
  redis.call('PEXPIRE', KEYS[1], span)
  redis.call('HSET', KEYS[2], 'next_at', next_at + step)
  redis.call('EXPIRE', KEYS[2], 86400)
  return 0
end
local ends = now + span
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then ends = math.min(ends, tonumber(first[2]) + span) end
if others > 0 then ends = math.min(ends, tonumber(told[3]) + span) end
return math.max(1, ends - now)
"""
_SHRINK = """
local limit = tonumber(redis.call('HGET', KEYS[1], 'limit')) or tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'limit', math.max(1, math.floor(limit * tonumber(ARGV[2]))))
redis.call('EXPIRE', KEYS[1], 3600)
"""
_LEARN = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local span = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - span)
local used = redis.call('ZCARD', KEYS[1])
local limit = tonumber(ARGV[2])
if limit > 0 then redis.call('HSET', KEYS[2], 'limit', limit) end
limit = tonumber(redis.call('HGET', KEYS[2], 'limit')) or tonumber(ARGV[3])
local others = math.max(0, limit - tonumber(ARGV[4]) - used)
redis.call('HSET', KEYS[2], 'others', others, 'others_at', now)
redis.call('EXPIRE', KEYS[2], 86400)
return others
"""


class RedisBudget:
    """The budget that all processes share; while Redis is away each process keeps its own."""

    def __init__(self, redis: Redis, outage: Outage | None = None) -> None:
        """`outage`: what this process has told of Redis; None: nothing yet."""
        self._redis, self._outage = redis, outage or Outage("redis")
        self._take = redis.register_script(_TAKE)
        self._learn = redis.register_script(_LEARN)
        self._shrink = redis.register_script(_SHRINK)
        self._local = LocalBudget()
        self._rest_until = 0.0

    def take(self, key: str, allowance: RateLimit, share: float, backlog: bool) -> float:
        """Count a call, or return the seconds to wait."""
        args: list[str | int | float] = [
            int(allowance.seconds * 1000), allowance.calls, share, int(backlog), LIVE_MARGIN,
            uuid.uuid4().hex, BURST,
        ]  # fmt: skip
        shared = self._quietly(lambda: int(self._take(keys=_keys(key, allowance.name), args=args)))
        if shared is None or not 0 <= shared <= 2000 * allowance.seconds:
            return self._local.take(key, allowance, share, backlog)
        if shared == 0:
            # Count it here too: if Redis goes away in a moment, the rate must not double.
            self._local.count(key, allowance)
        return float(shared) / 1000

    def learn(self, key: str, allowance: RateLimit, reading: LimitHeaders) -> None:
        """Correct the limit, and what others use of it."""
        self._local.learn(key, allowance, reading)
        args = [int(allowance.seconds * 1000), reading.most or 0, allowance.calls, reading.left]
        others = self._quietly(lambda: self._learn(keys=_keys(key, allowance.name), args=args))
        if isinstance(others, int) and others >= 0:
            # Our other processes are no strangers: Redis knows the calls of all of us.
            self._local.correct(key, allowance, int(others))

    def shrink(self, key: str, allowance: RateLimit) -> None:
        """Lower an allowance by a quarter, for an hour."""
        self._local.shrink(key, allowance)
        limits = _keys(key, allowance.name)[1:]
        self._quietly(lambda: self._shrink(keys=limits, args=[allowance.calls, SHRINK]))

    def note_day(self, key: str, reading: LimitHeaders) -> None:
        """Store what is left of the day."""
        self._local.note_day(key, reading)
        _, most = self._local.day(key) or (0, 0)
        name = f"bridge:day:{key}"

        def write() -> None:
            seen = int(self._redis.hget(name, "most") or 0)
            values: dict[Any, Any] = {"left": reading.left, "most": reading.most or max(most, seen)}
            self._redis.hset(name, mapping=values)
            self._redis.expire(name, DAY)

        self._quietly(write)

    def day(self, key: str) -> tuple[int, int] | None:
        """What is left of the day, and the total."""
        if time.monotonic() - self._local.noted_at.get(key, -1e9) < FRESH_DAY:
            return self._local.day(key)
        name = f"bridge:day:{key}"

        def read() -> Any:
            both = self._redis.pipeline()
            both.hmget(name, "left", "most")
            both.ttl(name)
            (left, most), kept = both.execute()
            return None if left is None else (int(left), int(most), int(kept))

        found = self._quietly(read)
        if found and found[0] >= 0 and found[1] > 0 and 0 <= found[2] <= DAY:
            # Its time to live was set to DAY when the CRM reported it.
            self._local.note_day(key, LimitHeaders(found[0], found[1]), DAY - found[2])
        return self._local.day(key)

    def _quietly(self, action: Callable[[], Any]) -> Any:
        if time.monotonic() < self._rest_until:
            return None
        try:
            found = action()
        except (RedisError, OSError, ValueError, TypeError, OverflowError) as error:
            # A stranger may have written to Redis: wrong data counts as a Redis that is away.
            self._rest_until = time.monotonic() + COOL_DOWN
            self._outage.note(explain(error))
            return None
        self._outage.over()
        return found


def _keys(key: str, name: str) -> list[str]:
    return [f"bridge:calls:{key}:{name}", f"bridge:limits:{key}:{name}"]


class SharedRateLimiter(RateLimiter):
    """Makes calls wait for their turn in a connection's budget, and keeps a share of it free."""

    def __init__(self, budget: Budget, key: str, share: float) -> None:
        """`share`: the part of every allowance that is left to other apps, 0 to 1."""
        super().__init__()
        self._budget, self._key, self._share = budget, key, share

    def enter(self, allowance: RateLimit) -> None:
        """Return when a call may be made. Raises RateLimited if that would take long."""
        self.look()
        self._keep_share_of_day()
        until = time.monotonic() + LONGEST_WAIT
        while wait := self._budget.take(self._key, allowance, self._share, self.backlog):
            if time.monotonic() + wait > until:
                raise RateLimited(
                    "This service's share of the CRM's rate limit is used up for now.", wait
                )
            self.rest(wait, self.look)

    def _keep_share_of_day(self) -> None:
        day = self._budget.day(self._key)
        if day is None:
            return
        left, most = day
        backlog = self.backlog
        kept = self._share * (1.0 if backlog else LIVE_SHARE)
        if left <= most * kept:
            words = f"{left} of {most} calls or tokens are left today; they are reserved for other apps."
            raise AllowanceUsed(words, DAY_PAUSE, backlog)

    def refused(self, allowance: RateLimit) -> None:
        """Learn from a refusal if no header reports the allowance: it is smaller than assumed."""
        if not allowance.told:
            self._budget.shrink(self._key, allowance)

    def learn(
        self, allowance: RateLimit, short: LimitHeaders | None, day: LimitHeaders | None
    ) -> None:
        """Store the limits that an answer reported."""
        if short:
            self._budget.learn(self._key, allowance, short)
        if day:
            self._budget.note_day(self._key, day)
