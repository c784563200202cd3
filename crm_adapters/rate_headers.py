"""Reads from an answer's headers what a CRM still allows; each adapter says which headers tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.crm.port import LimitsRead
from app.domain.rate_limits import LimitHeaders
from app.outbound.reply import header_number

Pair = tuple[str, str]
"""The headers for calls left and calls allowed, in lower case; "" where there is none."""


def limits_in(short: Pair | None, day: Pair | None) -> Callable[[Mapping[str, str]], LimitsRead]:
    """A reader for an API that tells each limit in headers of its own."""

    def read(headers: Mapping[str, str]) -> LimitsRead:
        return _reading(headers, short), _reading(headers, day)

    return read


def _reading(headers: Mapping[str, str], pair: Pair | None) -> LimitHeaders | None:
    if pair is None:
        return None
    remaining, allowed = header_number(headers.get(pair[0])), header_number(headers.get(pair[1]))
    if remaining is None:
        return None
    # A limit of nothing is no limit: nobody could ever call.
    return LimitHeaders(remaining, allowed or None)
