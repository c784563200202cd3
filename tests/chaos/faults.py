"""What goes wrong in a chaos run: each fault by name, and how often it struck."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.chaos import kinds_inside, kinds_outside
from tests.chaos.system import System

Met = Callable[[], bool]
"""Whether a fault has met the service by now."""
Strike = Callable[[], Met | None]
"""Does something bad; where that has to meet a call first to count, says how to see it."""
LONGEST = 300.0
"""Seconds after which a fault that has not struck until then never does."""


class Faults:
    """Strikes at random until it is told to stop; every fault at least once."""

    def __init__(self, system: System, seed: int, pause: float) -> None:
        """`pause`: seconds between two faults, on average."""
        self._pause = pause
        self.system = system
        self.dice = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self._open: list[tuple[str, Met]] = []
        """Faults that wait for somebody to meet them."""
        self._over = threading.Event()
        self._ended = threading.Event()
        self._ends: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._strike, daemon=True)
        self.kinds: dict[str, Strike] = {
            **kinds_inside.kinds(self),
            **kinds_outside.kinds(self),
        }

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let every fault have struck once, then no more; take what still waits away."""
        self._over.set()
        self._thread.join()
        self._ended.set()
        for thread in self._ends:
            thread.join()
        for served in self.system.served.values():
            served.sandbox.faults.clear()
            served.sandbox.search_lag = set()
        self.system.heal()
        # Nobody goes on by what was read of an account while it was out of order.
        self.system.read_anew()

    def later(self, least: float, most: float, action: Callable[[], object]) -> None:
        """End what was begun after some seconds, or at the latest when the faults end."""
        seconds = self.dice.uniform(least, most)

        def end() -> None:
            self._ended.wait(seconds)
            action()

        thread = threading.Thread(target=end, daemon=True)
        self._ends.append(thread)
        thread.start()

    def crm(self) -> Any:
        """The sandbox of a CRM, at random."""
        return self.dice.choice(list(self.system.served.values())).sandbox

    def _strike(self) -> None:
        names, begun = list(self.kinds), 0.0
        while not self._over.is_set() or len(self.struck) < len(names):
            if self._over.is_set():
                begun = begun or time.monotonic()
                if time.monotonic() - begun > LONGEST:
                    return
            # What has not struck yet is more likely, so that a short run sees all of them.
            rest = [name for name in names if not self.struck[name]]
            name = self.dice.choice(rest if rest and self.dice.random() < 0.6 else names)
            if self._over.is_set():
                name = self.dice.choice(rest)
            try:
                met = self.kinds[name]()
                if met is None:
                    self.struck[name] += 1
                else:
                    self._open.append((name, met))
            except Exception as error:
                # A fault that could not strike, since another one is at it, is not counted.
                self.system.say(f"{name} did not strike ({type(error).__name__})")
            time.sleep(self.dice.uniform(0.2, 1.8) * self._pause)
            self._count()

    def _count(self) -> None:
        met = [(name, check) for name, check in self._open if check()]
        self._open = [item for item in self._open if item not in met]
        self.struck.update(name for name, _ in met)
