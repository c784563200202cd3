"""A time limit for the work on a stranger's text: the code that does the work checks it regularly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.domain.errors import MappingError

_ends: ContextVar[float | None] = ContextVar("ends", default=None)


class OutOfTime(MappingError):
    """The work on a text took longer than allowed."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Limit the time of a block: after these seconds, its next check of the clock raises OutOfTime."""
    token = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(token)


def look_at_the_clock() -> None:
    """Raise OutOfTime if the time of the surrounding block is over; outside of one there is no limit."""
    ends = _ends.get()
    if ends is not None and time.monotonic() > ends:
        raise OutOfTime(
            "The text takes too long to check: make it shorter, or split its overrides."
        )
