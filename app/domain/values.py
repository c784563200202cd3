"""Values with several parts as one text each, to compare, store and show them like any other value."""

from __future__ import annotations

import re

_MONEY = re.compile(r"(-?\d+(?:\.\d+)?) ([A-Z]{3})")
_TIME = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d)(?:\.\d+)?)?Z?")
BETWEEN = "/"
"""The sign between the two ends of a range, as in ISO 8601: 2027-01-14/2027-01-16."""


def number_text(value: float | int) -> str:
    """Return a number without a needless ".0": 500.0 is 500."""
    return str(int(value)) if value == int(value) else repr(float(value))


def money_text(value: float | int, currency: str) -> str:
    """Return an amount with its currency (ISO 4217): 500 EUR."""
    return f"{number_text(value)} {currency.upper()}"


def money_parts(text: str) -> tuple[float | int, str] | None:
    """Return amount and currency of such a text; None for any other text."""
    match = _MONEY.fullmatch(text)
    if not match:
        return None
    number = float(match[1])
    return (int(number) if number == int(number) else number), match[2]


def time_text(text: str) -> str | None:
    """Return a time of day or a length as HH:MM, with seconds if there are any; None for other text."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        return None
    seconds = f":{match[3]}" if match[3] and match[3] != "00" else ""
    return f"{int(match[1]):02d}:{match[2]}{seconds}"


def with_seconds(text: str) -> str:
    """Return a time of day as HH:MM:SS."""
    return text if text.count(":") > 1 else f"{text}:00"


def range_text(start: str, end: str) -> str:
    """Return a range of dates or times as one text."""
    return f"{start}{BETWEEN}{end}"


def range_parts(text: str) -> tuple[str, str] | None:
    """Return both ends of such a text; None for any other text."""
    start, mark, end = text.partition(BETWEEN)
    return (start.strip(), end.strip()) if mark and start.strip() and end.strip() else None
