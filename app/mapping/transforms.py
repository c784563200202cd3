"""The small set of transforms that a field may name under `as`, each a pure function."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.people import normalise_phone
from app.domain.text import cut

Transform = Callable[[Any, Any], Any]


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a time")
    return value.astimezone(UTC)


def _number(value: Any, _: Any) -> float | int:
    text = str(value).strip().replace(" ", "").replace("'", "")
    # 1.234,50 and 1,234.50: the last separator is the decimal one, if at most two digits follow.
    match = re.fullmatch(r"([+-]?\d[\d.,]*?)(?:[.,](\d{1,2}))?", text)
    if not match:
        raise ValueError(f"{value!r} is not a number")
    whole = re.sub(r"[.,]", "", match[1])
    return float(f"{whole}.{match[2]}") if match[2] else int(whole)


def _hours_minutes(value: Any, _: Any) -> str:
    return f"{int(value) // 60:02d}:{int(value) % 60:02d}"


def _mapped(value: Any, table: Any) -> Any:
    key = str(value)
    if key not in table:
        raise ValueError(f"{key!r} is not among {', '.join(table)}")
    return table[key]


PLAIN: dict[str, Transform] = {
    "lower": lambda value, _: str(value).lower(),
    "strip": lambda value, _: str(value).strip(),
    "e164": lambda value, _: normalise_phone(value),
    "number": _number,
    "date": lambda value, _: _moment(value).strftime("%Y-%m-%d"),
    "time": lambda value, _: _moment(value).strftime("%H:%M"),
    "iso": lambda value, _: _moment(value).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "hh_mm": _hours_minutes,
}
"""Transforms without an argument; dates and times are in UTC."""
WITH_ARGUMENT: dict[str, tuple[type, Transform]] = {
    "truncate": (int, lambda value, limit: cut(str(value), limit)),
    "add_days": (int, lambda value, days: _moment(value) + timedelta(days=days)),
    "map": (Mapping, _mapped),
    "default": (object, lambda value, other: value),
}
"""Transforms that take one, as `{truncate: 500}`."""


def check_transform(spec: Any) -> None:
    """Raise ValueError in words where a transform does not exist or its argument does not fit."""
    if isinstance(spec, str) and spec in PLAIN:
        return
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, argument = next(iter(spec.items()))
        if name in WITH_ARGUMENT and isinstance(argument, WITH_ARGUMENT[name][0]):
            return
    known = ", ".join([*PLAIN, *(f"{{{name}: …}}" for name in WITH_ARGUMENT)])
    raise ValueError(f"there is no transform {spec!r}; there are: {known}")


def apply_transforms(value: Any, specs: tuple[Any, ...]) -> Any:
    """Apply checked transforms in order. Nothing stays nothing, unless `default` says otherwise.

    Raises ValueError where a value does not fit a transform.
    """
    for spec in specs:
        name, argument = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
        if value is None or value == "":
            value = argument if name == "default" else None
            continue
        function = PLAIN[name] if name in PLAIN else WITH_ARGUMENT[name][1]
        try:
            value = function(value, argument)
        except OverflowError as error:
            raise ValueError(str(error)) from None
    return value
