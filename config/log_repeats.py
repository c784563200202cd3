"""Keeps a fault that repeats itself from filling the log: the same line comes at growing intervals."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

AT_ONCE = 5
"""How often the same line is written at once, before the intervals begin."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
CALM = 600.0
"""Seconds without the line, and without a pause of its own, after which it is new again."""
MOST = 500
"""The most lines that are remembered."""
PASSING = frozenset(
    ["error", "request_id", "trace_id", "seconds", "milliseconds", "tries", "failures", "number"]
)
"""Keys in which two lines may differ and are the same all the same."""
LOUD = frozenset(["warning", "error", "critical"])


@dataclass
class _Line:
    written: int = 0
    left_out: int = 0
    pause: float = FIRST_PAUSE
    next_at: float = 0.0
    seen_at: float = 0.0


class Repeats:
    """A step of structlog: drops a warning or an error that was written a moment ago.

    The next one that is written says how many `times` it happened since the one before.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()
        self._lines: OrderedDict[str, _Line] = OrderedDict()

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return the line, or raise DropEvent."""
        if event.get("level") not in LOUD:
            return event
        same = {key: value for key, value in event.items() if key not in PASSING}
        with self._lock:
            times = self._times(json.dumps(same, sort_keys=True, default=str))
        if not times:
            raise structlog.DropEvent
        return event if times == 1 else {**event, "times": times}

    def _times(self, key: str) -> int:
        """How often it happened since it was last written; 0: it is not written now."""
        now = self._now()
        line = self._lines.pop(key, None)
        if line is None or now - max(line.seen_at, line.next_at) > CALM:
            line = _Line()
        self._lines[key], line.seen_at = line, now
        if len(self._lines) > MOST:
            self._lines.popitem(last=False)
        if line.written >= AT_ONCE:
            if now < line.next_at:
                line.left_out += 1
                return 0
            line.pause = min(line.pause * 2, LONGEST_PAUSE)
        line.next_at = now + line.pause
        line.written += 1
        times, line.left_out = line.left_out + 1, 0
        return times
