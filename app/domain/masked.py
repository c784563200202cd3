"""A webhook's body for people who may not see the people in it."""

from __future__ import annotations

from typing import Any

MASK = "\u2022\u2022\u2022"
SHOWN = frozenset([
    "type", "event", "status", "id", "bookingId", "appointmentId", "meetingTypeId", "companyId",
    "startTime", "endTime", "start", "end", "createdAt", "updatedAt", "timestamp", "timezone", "duration",
])  # fmt: skip
"""Keys whose values are about the booking, not about a person."""


def masked(value: Any, shown: bool = False) -> Any:
    """The same value with every text and number hidden, but those of the listed keys."""
    if isinstance(value, dict):
        return {key: masked(each, key in SHOWN) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    return value if shown or value is None or isinstance(value, bool) else MASK
