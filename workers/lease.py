"""The right to drain one connection: renewed during the work; its loss is noticed."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import structlog

from app.domain.rate_limits import NotOurs
from app.store.engine import DATABASE_DOWN, Store
from app.store.leases import LEASE, give_lease, hold_lease

log = structlog.get_logger(__name__)
RENEW_EVERY = LEASE.total_seconds() / 4
"""Seconds between two renewals: three may fail before the lease is lost."""

GIVE_EVERY = 1.0
"""Seconds between tries to give a lease back while the database is away."""


def ticks() -> float:
    """Seconds of a clock that nobody sets and that runs on while the machine is suspended."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class LeaseLost(NotOurs):
    """Another drainer has taken over; this one must not write what it still holds."""


class Lease:
    """One drainer's lease on one connection. As a context manager it is kept until the block ends.

    A process that was stopped for longer than the lease finds the lease lost before its next call:
    the clock that it compares runs on while a process stands still.
    """

    def __init__(self, store: Store, connection_id: int, fence: int, asked: float) -> None:
        """`fence`: the token that `take_lease` gave; `asked`: `ticks` just before that call."""
        self._store = store
        self.connection_id, self.fence = connection_id, fence
        self._held_until = asked + LEASE.total_seconds()
        self._ended = threading.Event()
        self._lost = False
        self.alone: int | None = None
        """The delivery that is worked on alone, if there is one."""
        name = f"lease-{connection_id}"
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def check(self) -> None:
        """Raise LeaseLost if the lease may have passed to another drainer."""
        if self._lost or ticks() > self._held_until:
            raise LeaseLost

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A database that is away ends the drain; no booking is to blame for that.
        away = isinstance(error, DATABASE_DOWN)
        until = ticks() + (LEASE.total_seconds() if away else 0.0)
        while True:
            try:
                self.give(release=away)
                return
            except DATABASE_DOWN:
                if ticks() >= until:
                    raise
                time.sleep(GIVE_EVERY)

    def give(self, release: bool = False) -> None:
        """Let the next drainer in, unless one has taken over; `release`: unclaim deliveries too."""
        self._ended.set()
        with self._store.write() as session:
            give_lease(session, self.connection_id, self.fence, release)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_EVERY):
            asked = ticks()
            try:
                with self._store.write() as session:
                    held = hold_lease(session, self.connection_id, self.fence)
            except Exception as error:
                # The outermost loop of this thread: if it ended, the lease would be lost each time.
                log.warning(
                    "lease_not_renewed", connection_id=self.connection_id, kind=type(error).__name__
                )
                continue
            if not held:
                self._lost = True
                return
            self._held_until = asked + LEASE.total_seconds()
