"""Compares the contents of a CRM with a case's expectations, in the way people read values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.contract.desk import Link

MATCHERS = {"contains", "lacks"}


def paired(wanted: list[Any], there: list[Any], fit: Any) -> list[Any] | None:
    """Return None if every entry matches a record of its own, otherwise the unmatched entries."""
    taken: dict[int, int] = {}

    def place(number: int, seen: set[int]) -> bool:
        for index, row in enumerate(there):
            if index in seen or not fit(row, wanted[number]):
                continue
            seen.add(index)
            if index not in taken or place(taken[index], seen):
                taken[index] = number
                return True
        return False

    left = [wanted[number] for number in range(len(wanted)) if not place(number, set())]
    return left or None


def fits(actual: Any, wanted: Any, aliases: Mapping[str, str]) -> bool:  # noqa: PLR0911 - a line a kind
    """Whether a CRM value fits a file's value: "" equals nothing, 5 equals 5.0, people match by name."""
    if isinstance(wanted, Mapping):
        unknown = set(wanted) - MATCHERS
        assert wanted and not unknown, f"there is no test {unknown or wanted}"
        text = "\n".join(map(str, actual)) if isinstance(actual, list) else str(actual or "")
        held = [part in text for part in _listed(wanted.get("contains"))]
        return all(held) and not any(part in text for part in _listed(wanted.get("lacks")))
    if wanted in (None, "", []) or actual in (None, "", []):
        return wanted in (None, "", []) and actual in (None, "", [])
    if isinstance(actual, list):
        many = wanted if isinstance(wanted, list) else [wanted]
        pair = paired(many, actual, lambda item, how: fits(item, how, aliases))
        return len(many) == len(actual) and pair is None
    if isinstance(actual, Link):
        return aliases.get(wanted) == actual.id or wanted in actual.names
    if isinstance(wanted, bool) or isinstance(actual, bool):
        return actual is wanted
    if isinstance(wanted, (int, float)):
        return str(actual).lstrip("-").replace(".", "", 1).isdigit() and float(actual) == wanted
    return str(actual) == wanted or _same_time(str(actual), wanted)


def _same_time(actual: str, wanted: str) -> bool:
    try:
        first, second = (datetime.fromisoformat(text) for text in (actual, wanted))
    except ValueError:
        return False
    if len(wanted) == 10:
        return first.date() == second.date() and first.time() == second.time()
    return bool(first.tzinfo) is bool(second.tzinfo) and first == second


def _listed(value: Any) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [value]


def shown(rows: list[Any]) -> str:
    return "\n".join(repr({k: v for k, v in row.items() if v}) for row in rows)
