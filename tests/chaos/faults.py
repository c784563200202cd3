"""What goes wrong in a chaos run: each fault by name, and how often it struck."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from redis import Redis

from sandbox.core import Fault, Sandbox
from tests.chaos.system import System

STOPPED = 25.0
"""Seconds that a process stands still: a lease, and time for another worker to do what it was at."""
LAG = 2.0
"""Seconds that a search lags while it is slow."""


class Faults:
    """Strikes at random until it is told to stop; every fault at least once."""

    def __init__(self, system: System, seed: int, pause: float) -> None:
        """`pause`: seconds between two faults, on average."""
        self._pause = pause
        self._system = system
        self._dice = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._strike, daemon=True)
        self.kinds: dict[str, Callable[[], None]] = {
            "web killed": lambda: system.kill("web"),
            "worker killed": lambda: system.kill(self._dice.choice(system.workers)),
            "scheduler killed": lambda: system.kill("scheduler"),
            "worker stopped and woken": self._stop_a_worker,
            "Valkey killed": self._kill_valkey,
            "Valkey flushed": lambda: Redis.from_url(system.redis_url).flushall(),
            "429 storm": self._storm,
            "500s": lambda: self._fault(status=500, body="oops", times=self._dice.randint(1, 6)),
            "answers lost": lambda: self._fault(
                drop_after_commit=True, times=self._dice.randint(1, 4)
            ),
            "slow answers": lambda: self._fault(latency=0.7, times=3),
            "access tokens dead": lambda: self._crm().expire_access_tokens(),
            "grant revoked, connected again": self._revoke,
            "slow search": self._slow_search,
            **({"connections to the database cut": system.cut_database} if system.can_cut else {}),
        }

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let every fault have struck once, then no more; take what still waits away."""
        self._over.set()
        self._thread.join()
        for served in self._system.served.values():
            served.sandbox.faults.clear()
            served.sandbox.search_lag = set()
        self._system.heal()

    def _strike(self) -> None:
        names = list(self.kinds)
        while not self._over.is_set() or len(self.struck) < len(names):
            # What has not struck yet is more likely, so that a short run sees all of them.
            rest = [name for name in names if not self.struck[name]]
            name = self._dice.choice(rest if rest and self._dice.random() < 0.6 else names)
            if self._over.is_set():
                name = rest[0]
            try:
                self.kinds[name]()
                self.struck[name] += 1
            except Exception as error:
                # A fault that could not strike, since another one is at it, is not counted.
                self._system.say(f"{name} did not strike ({type(error).__name__})")
            time.sleep(self._dice.uniform(0.2, 1.8) * self._pause)

    def _crm(self) -> Any:
        return self._dice.choice(list(self._system.served.values())).sandbox

    def _fault(self, **what: Any) -> None:
        sandbox: Sandbox = self._crm()
        with sandbox.lock:
            sandbox.faults.append(Fault(**what))

    def _storm(self) -> None:
        times = self._dice.randint(3, 15)
        self._fault(status=429, body="{}", times=times, headers={"Retry-After": "1"})

    def _stop_a_worker(self) -> None:
        process = self._system.processes[self._dice.choice(self._system.workers)]
        os.kill(process.pid, signal.SIGSTOP)

        def wake() -> None:
            time.sleep(STOPPED)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)

        threading.Thread(target=wake, daemon=True).start()

    def _kill_valkey(self) -> None:
        self._system.kill_valkey()
        time.sleep(self._dice.uniform(0.5, 3))
        self._system.start_valkey()

    def _revoke(self) -> None:
        name = self._dice.choice(list(self._system.served))
        self._system.served[name].sandbox.kill_grants()
        time.sleep(self._dice.uniform(0, 2))
        self._system.connect(name)

    def _slow_search(self) -> None:
        """For some seconds a search does not show what was made in the last ones."""
        sandbox = self._crm()
        if not hasattr(sandbox, "search_lag"):
            sandbox = self._system.served["pipedrive"].sandbox
        kind = type(next(iter(sandbox.records["deals"]), 0))

        def lag() -> None:
            until, seen = time.monotonic() + 6, []
            while time.monotonic() < until:
                seen.append((time.monotonic(), sandbox.next_id))
                old = [number for at, number in seen if at < time.monotonic() - LAG] or [seen[0][1]]
                sandbox.search_lag = {kind(n) for n in range(old[-1] + 1, sandbox.next_id + 50)}
                time.sleep(0.05)
            sandbox.search_lag = set()

        threading.Thread(target=lag, daemon=True).start()
