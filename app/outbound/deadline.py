"""The end of an outside call: one deadline for the whole call, however slow the other side is.

A socket's own timeout is for one read: a server that sends a byte a second never reaches it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType

_current = threading.local()


class Call:
    """One outside call of this thread. When its time is over, its connections are shut down."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long connecting, sending and reading may take in total."""
        self._seconds = seconds
        self._lines: dict[socket.socket, socket.socket] = {}
        """Connection's socket -> the call's own handle on it. An answer without a length is still
        read after http.client has closed the connection."""
        self._lock = threading.Lock()
        self._before: Call | None = None
        self.ends_at = 0.0
        self.over = False
        """Whether the call was ended because it took too long."""
        self.done = False

    def __enter__(self) -> Call:
        self._before = current_call()
        _current.call = self
        self.ends_at = time.monotonic() + self._seconds
        _watchdog.watch(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.call = self._before
        with self._lock:
            self.done = True
            for handle in self._lines.values():
                if error is not None:
                    _drop_unsent(handle)
                handle.close()
            self._lines.clear()

    def use(self, line: socket.socket) -> None:
        """Add a connection that the call uses; shut it down at once if the time is over.

        The connection belongs to the call around this one as well.
        """
        if self._before:
            self._before.use(line)
        with self._lock:
            if not self.done and line not in self._lines:
                self._lines[line] = line.dup()
            if self.over:
                _shut(line)

    def end(self) -> None:
        """Shut down every connection of a call that is still under way."""
        with self._lock:
            if self.done:
                return
            self.over = True
            for handle in self._lines.values():
                _shut(handle)


def current_call() -> Call | None:
    """The outside call that this thread is making."""
    call: Call | None = getattr(_current, "call", None)
    return call


def _drop_unsent(line: socket.socket) -> None:
    """Have the system throw away what it has not sent when it closes a connection.

    Otherwise a host that is cut off sends the rest of a request minutes later, when it is back and
    another host has done the work. https://man7.org/linux/man-pages/man7/socket.7.html
    """
    with suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _shut(line: socket.socket) -> None:
    # It may be closed already; then nothing waits on it.
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """One thread of this process that ends calls whose time is over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[tuple[float, int, Call]] = []
        self._number = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, call: Call) -> None:
        """End a call at its deadline, unless it is done by then."""
        with self._changed:
            first = not self._calls or call.ends_at < self._calls[0][0]
            heapq.heappush(self._calls, (call.ends_at, next(self._number), call))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif first:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                # A call that is done long before its deadline need not be kept until then.
                while self._calls and self._calls[0][2].done:
                    heapq.heappop(self._calls)
                if not self._calls:
                    self._changed.wait()
                    continue
                left = self._calls[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                _, _, call = heapq.heappop(self._calls)
            call.end()


_watchdog = _Watchdog()


def _after_fork() -> None:
    """Start anew in a child process, which has none of its parent's threads."""
    global _watchdog  # noqa: PLW0603 - one watchdog a process
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_after_fork)
