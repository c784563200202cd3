"""How a process is told to stop: by SIGTERM or SIGINT, for which its main thread waits.

RQ's own handlers raise in whatever the main thread does at that moment. A job that catches errors
swallows such a stop, and a Redis that hangs, or is away, outlasts it. So RQ runs in a thread that
nobody waits for. No handler runs at all: a second signal could come while the first one is handled.
"""

from __future__ import annotations

import signal
import threading

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})


class StopSignal(threading.Event):
    """Set once the process has been told to stop."""

    def __init__(self) -> None:
        """Hold the signals back from now on. Call this before any thread is started."""
        super().__init__()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)

    def wait_for_it(self) -> None:
        """Wait, in the main thread, until the process is told to stop."""
        signal.sigwait(STOPPING)
        self.set()
