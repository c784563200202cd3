"""The faults of a chaos run: each has a name and a count of its strikes."""

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
"""Whether a fault has affected the service by now."""
Strike = Callable[[], Met | None]
"""Causes a fault. If the fault counts only once a call meets it, returns a function that tells
whether this happened.
"""
LONGEST = 300.0
"""The seconds after which a fault that has not struck is given up."""


class Faults:
    """Strikes at random until it is stopped; every fault strikes at least once."""

    def __init__(self, system: System, seed: int, pause: float) -> None:
        """`pause` is the average number of seconds between two faults."""
        self._pause = pause
        self.system = system
        self.dice = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self._open: list[tuple[str, Met]] = []
        """Faults that no call has met yet."""
        self._over = threading.Event()
        self._ended = threading.Event()
        self._ends: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._strike, daemon=True)
        self.kinds: dict[str, Strike] = {
            **kinds_inside.kinds(self),
            **kinds_outside.kinds(self),
        }

    def start(self) -> None:
        """Start to strike."""
        self._thread.start()

    def stop(self) -> None:
        """Wait until every fault has struck once, then stop and remove the pending faults."""
        self._over.set()
        self._thread.join()
        self._ended.set()
        for thread in self._ends:
            thread.join()
        for served in self.system.served.values():
            served.sandbox.faults.clear()
            served.sandbox.search_lag = set()
        self.system.heal()
        # Data read from an account while it was out of order must not be used any longer.
        self.system.read_anew()

    def later(self, least: float, most: float, action: Callable[[], object]) -> None:
        """Run the action that ends a fault after some seconds, or when the faults end."""
        seconds = self.dice.uniform(least, most)

        def end() -> None:
            self._ended.wait(seconds)
            action()

        thread = threading.Thread(target=end, daemon=True)
        self._ends.append(thread)
        thread.start()

    def crm(self) -> Any:
        """Return the sandbox of a random CRM."""
        return self.dice.choice(list(self.system.served.values())).sandbox

    def _strike(self) -> None:
        names, begun = list(self.kinds), 0.0
        while not self._over.is_set() or len(self.struck) < len(names):
            if self._over.is_set():
                begun = begun or time.monotonic()
                if time.monotonic() - begun > LONGEST:
                    return
            # Faults that have not struck yet are more likely, so that a short run has all of them.
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
                # A fault that another fault prevented is not counted.
                self.system.say(f"{name} did not strike ({type(error).__name__})")
            time.sleep(self.dice.uniform(0.2, 1.8) * self._pause)
            self._count()

    def _count(self) -> None:
        met = [(name, check) for name, check in self._open if check()]
        self._open = [item for item in self._open if item not in met]
        self.struck.update(name for name, _ in met)
