"""How a process is told to stop: an event, set by SIGTERM or SIGINT.

RQ's own handlers raise in whatever the main thread does at that moment. A job that catches errors
swallows such a stop, and a Redis that hangs, or is away, outlasts it. So RQ runs in a thread that
nobody waits for, and the main thread does nothing but wait for the signal.
"""

from __future__ import annotations

import signal
import threading


def stop_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; call this in the main thread."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    return told
