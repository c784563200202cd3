"""How long a stranger's text may keep this process busy: whoever works on it asks now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.domain.errors import MappingError

_ends: ContextVar[float | None] = ContextVar("ends", default=None)


class OutOfTime(MappingError):
    """A text took longer than it may."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Whatever is done in the block raises OutOfTime at its next look once the seconds are over."""
    token = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(token)


def look_at_the_clock() -> None:
    """Raise OutOfTime where the time of the block around is over; without one there is no end."""
    ends = _ends.get()
    if ends is not None and time.monotonic() > ends:
        raise OutOfTime(
            "The text takes too long to check: make it shorter, or split its overrides."
        )
