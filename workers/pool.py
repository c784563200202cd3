"""Drains in a worker process: one thread for each connection at work, so that none waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from app.bootstrap import Services
from app.store.engine import DATABASE_DOWN
from workers.drain import STOP_GRACE, Drainer

log = structlog.get_logger(__name__)
MOST_THREADS = 16
"""Connections that one process drains at the same time; further ones wait for a free place."""


class DrainPool:
    """Takes wake-ups. If one comes while its connection is drained, it is drained once more."""

    def __init__(self, services: Services) -> None:
        self._services, self._drainer = services, Drainer(services)
        self._lock = threading.Lock()
        self._again: dict[int, bool] = {}
        """Connection at work -> whether another wake-up came meanwhile."""
        self._aside: dict[str, bool] = {}
        """Long action at work -> whether it is to run once more."""
        self.stopping = threading.Event()
        """Set once the process has to end."""
        self._places = threading.Semaphore(MOST_THREADS)
        self._ended = threading.Condition(self._lock)

    def submit(self, connection_id: int) -> None:
        """Drain a connection in a thread of its own; return at once."""
        with self._lock:
            if connection_id in self._again:
                self._again[connection_id] = True
                return
            self._again[connection_id] = False
        name = f"drain-{connection_id}"
        threading.Thread(target=self._run, args=(connection_id,), name=name, daemon=True).start()

    def at_work(self) -> int:
        """The number of connections at work, or waiting for a place."""
        with self._lock:
            return len(self._again)

    def _run(self, connection_id: int) -> None:
        with self._places:
            self._guarded(lambda: self._drainer.drain(connection_id), connection_id)
            while self._is_to_be_drained_again(connection_id):
                self._guarded(lambda: self._drainer.drain(connection_id), connection_id)

    def _is_to_be_drained_again(self, connection_id: int) -> bool:
        """Whether a wake-up came meanwhile; if none did, the connection is no longer at work."""
        with self._lock:
            if self._again[connection_id]:
                self._again[connection_id] = False
                return True
            del self._again[connection_id]
            self._ended.notify_all()
            return False

    def aside(self, name: str, action: Callable[[], object], again: bool = False) -> None:
        """Run a long action in a thread, one per name at a time; it checks `stopping` itself.

        `again`: if it runs already, it may have overlooked what is new: it runs once more.
        """
        with self._lock:
            if name in self._aside:
                self._aside[name] |= again
                return
            self._aside[name] = True

        def run() -> None:
            while self._is_to_be_run(name):
                self._guarded(action, 0)

        threading.Thread(target=run, name=name, daemon=True).start()

    def _is_to_be_run(self, name: str) -> bool:
        with self._lock:
            if self._aside[name]:
                self._aside[name] = False
                return True
            del self._aside[name]
            return False

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
            # The text may hold a person's data: kind and place must do.
            trace, place = error.__traceback__, ""
            while trace:
                place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
                trace = trace.tb_next
            log.error(
                "drain_failed", connection_id=connection_id, kind=type(error).__name__, place=place
            )
