"""Drains in a worker process: one thread for each connection at work, so that none waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from app.bootstrap import Services
from app.domain.faults import place_of
from app.store.engine import DATABASE_DOWN
from workers.drain import STOP_GRACE, Drainer

log = structlog.get_logger(__name__)


class DrainPool:
    """Takes wake-ups. If one comes while its connection is drained, it is drained once more."""

    def __init__(self, services: Services) -> None:
        self._services, self._drainer = services, Drainer(services)
        self._lock = threading.Lock()
        self._again: dict[int, bool] = {}
        """Connection at work -> whether it is to be drained once more."""
        self._aside: dict[str, bool] = {}
        """Long action at work -> whether it is to run once more."""
        self.stopping = threading.Event()
        """Set once the process has to end."""
        self._places = threading.Semaphore(services.settings.worker_accounts)
        """Connections drained at the same time; further ones wait for a free place."""
        self._ended = threading.Condition(self._lock)

    def submit(self, connection_id: int) -> None:
        """Drain a connection in a thread of its own; return at once."""
        with self._lock:
            if connection_id in self._again:
                self._again[connection_id] = True
                return
            self._again[connection_id] = True
        drain = partial(self._drainer.drain, connection_id)

        def run() -> None:
            with self._places:
                self._repeat(self._again, connection_id, drain, connection_id)

        self._start(self._again, connection_id, run, f"drain-{connection_id}")

    def at_work(self) -> int:
        """The number of connections at work, or waiting for a place."""
        with self._lock:
            return len(self._again)

    def aside(self, name: str, action: Callable[[], object], again: bool = False) -> None:
        """Run a long action in a thread, one per name at a time; it checks `stopping` itself.

        `again`: if it runs already, it may have overlooked what is new: it runs once more.
        """
        with self._lock:
            if name in self._aside:
                self._aside[name] |= again
                return
            self._aside[name] = True
        self._start(self._aside, name, lambda: self._repeat(self._aside, name, action, 0), name)

    def _start(
        self, at_work: dict[Any, bool], key: object, run: Callable[[], None], name: str
    ) -> None:
        """Start a thread. If the system has no more threads, nothing is at work: raises."""
        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError:
            self._end(at_work, key)
            raise

    def _repeat(
        self, at_work: dict[Any, bool], key: object, action: Callable[[], object], number: int
    ) -> None:
        """Run an action for as long as it is asked for again."""
        try:
            while self._is_asked_for(at_work, key):
                self._guarded(action, number)
        except BaseException:
            self._end(at_work, key)
            raise

    def _is_asked_for(self, at_work: dict[Any, bool], key: object) -> bool:
        """Whether somebody asked meanwhile; if nobody did, it is no longer at work."""
        with self._lock:
            if at_work[key]:
                at_work[key] = False
                return True
            del at_work[key]
            self._ended.notify_all()
            return False

    def _end(self, at_work: dict[Any, bool], key: object) -> None:
        with self._lock:
            at_work.pop(key, None)
            self._ended.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait until no connection is at work; False if that takes longer than `seconds`."""
        with self._lock:
            return self._ended.wait_for(lambda: not self._again, seconds)

    def stop(self, seconds: float = STOP_GRACE + 2.0) -> None:
        """End within `seconds`: batches finish, or are given back for other workers."""
        deadline = time.monotonic() + seconds
        self.stopping.set()
        self._drainer.stop()
        if not self.join(max(0.0, deadline - time.monotonic())):
            log.warning("drains_abandoned")
            self._guarded(self._drainer.abandon, 0)

    def _guarded(self, action: Callable[[], object], connection_id: int) -> None:
        """The outermost loop of a drain: an unforeseen error ends the drain, not the worker.

        The next drainer takes over the deliveries of its batch, as after a drainer that died.
        """
        try:
            action()
        except DATABASE_DOWN as error:
            self._services.database_outage.note(self._services.store.explain(error))
        except Exception as error:
            place = place_of(error)
            log.error("drain_failed", connection_id=connection_id, place=place, exc_info=error)
