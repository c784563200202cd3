"""Reads the remaining calls from an answer's headers; each adapter names its headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.crm.port import LimitsRead
from app.domain.rate_limits import LimitHeaders
from app.outbound.reply import header_number

Pair = tuple[str, str]
"""The headers for calls left and calls allowed, in lower case; "" if there is none."""


def limits_in(short: Pair | None, day: Pair | None) -> Callable[[Mapping[str, str]], LimitsRead]:
    """Return a reader for an API that reports each limit in headers of its own."""

    def read(headers: Mapping[str, str]) -> LimitsRead:
        return _reading(headers, short), _reading(headers, day)

    return read


def _reading(headers: Mapping[str, str], pair: Pair | None) -> LimitHeaders | None:
    if pair is None:
        return None
    remaining, allowed = header_number(headers.get(pair[0])), header_number(headers.get(pair[1]))
    if remaining is None:
        return None
    # A limit of zero is ignored: with it, no call would ever be possible.
    return LimitHeaders(remaining, allowed or None)
