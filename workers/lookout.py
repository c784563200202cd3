"""The lookout of a worker process: it looks into the database by itself, whatever Redis says.

Redis only says "now". Even if Redis is away, full, read-only, slow or in a stranger's hands, this
thread finds all due work, each SWEEP_INTERVAL seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from app.bootstrap import Services
from app.domain.faults import place_of
from app.store.engine import DATABASE_DOWN
from workers.pool import DrainPool

log = structlog.get_logger(__name__)


class Lookout:
    """One thread that hands out work and does none itself: it calls nothing outside."""

    def __init__(
        self, services: Services, pool: DrainPool, look: Callable[[Services, DrainPool], None]
    ) -> None:
        """`look`: the function that is called each time."""
        self._services, self._pool, self._look = services, pool, look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin to look, at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()

    def _run(self) -> None:
        interval = self._services.settings.sweep_interval
        while not self._stop.is_set():
            try:
                self._look(self._services, self._pool)
                self._services.database_outage.over()
            except DATABASE_DOWN as error:
                self._services.database_outage.note(self._services.store.explain(error))
            except Exception as error:
                # The outermost loop of this thread: if it ended, due work would no longer be found.
                log.error("look_failed", place=place_of(error), exc_info=error)
            self._stop.wait(interval)
