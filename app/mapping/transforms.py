"""The small set of transforms that a field may name under `as`, each a pure function."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from app.domain.people import normalise_phone
from app.domain.text import clean_text, cut

Transform = Callable[[Any, Any], Any]
HERE = "booking"
"""What `tz` takes in place of a zone: the one in which the attendee booked."""
_ZONES = available_timezones()


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is not a time") from None
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a time")
    return value


def _number(value: Any, _: Any) -> float | int:
    text = re.sub(r"[\s'€$£]", "", str(value))
    # 1.234,50 and 1,234.50: the last separator is the decimal one, if at most two digits follow.
    match = re.fullmatch(r"([+-]?\d[\d.,]*?)(?:[.,](\d{1,2}))?", text)
    if not match:
        raise ValueError(f"{value!r} is not a number")
    whole = re.sub(r"[.,]", "", match[1])
    return float(f"{whole}.{match[2]}") if match[2] else int(whole)


def _hours_minutes(value: Any, _: Any) -> str:
    return f"{int(value) // 60:02d}:{int(value) % 60:02d}"


def _mapped(value: Any, table: Any) -> Any:
    if isinstance(value, list):
        return [_mapped(item, table) for item in value]
    if isinstance(value, bool):
        value = "true" if value else "false"
    wanted = str(value).casefold().strip()
    for key, result in table.items():
        name = ("true" if key else "false") if isinstance(key, bool) else str(key)
        if name.casefold().strip() == wanted:
            return result
    raise ValueError(f"{value!r} is not among {', '.join(map(str, table))}")


def _strip_html(value: Any, _: Any) -> str | None:
    text = re.sub(r"(?i)<br\s*/?>|</p>|</div>|</li>", "\n", str(value))
    text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", "", text)
    return clean_text(html.unescape(re.sub(r"<[^<>]*>", "", text)))


def _first(value: Any, _: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return next((item for item in items if item not in (None, "")), None)


def _joined(value: Any, between: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return str(between).join(str(item) for item in items if item not in (None, ""))


def _json(value: Any, _: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_iso_text)


def _iso_text(value: Any) -> str:
    return _iso(value, None) if isinstance(value, datetime) else str(value)


def _iso(value: Any, _: Any) -> str:
    return _moment(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _in_zone(value: Any, zone: Any) -> datetime:
    return _moment(value).astimezone(ZoneInfo(str(zone)))


def _shown(value: Any, form: Any) -> str:
    return _moment(value).strftime(form)


PLAIN: dict[str, Transform] = {
    "lower": lambda value, _: str(value).lower(),
    "strip": lambda value, _: str(value).strip(),
    "e164": lambda value, _: normalise_phone(value),
    "number": _number,
    "date": lambda value, _: _moment(value).strftime("%Y-%m-%d"),
    "time": lambda value, _: _moment(value).strftime("%H:%M"),
    "datetime": lambda value, _: _moment(value).strftime("%Y-%m-%d %H:%M"),
    "iso": _iso,
    "hh_mm": _hours_minutes,
    "first_of": _first,
    "join": lambda value, _: _joined(value, ", "),
    "strip_html": _strip_html,
    "json": _json,
}
"""Transforms without an argument; dates and times are in UTC unless `tz` came before."""
WITH_ARGUMENT: dict[str, tuple[type, Transform]] = {
    "truncate": (int, lambda value, limit: cut(str(value), limit)),
    "add_days": (int, lambda value, days: _moment(value) + timedelta(days=days)),
    "map": (Mapping, _mapped),
    "default": (object, lambda value, other: value),
    "tz": (str, _in_zone),
    "date": (str, _shown),
    "time": (str, _shown),
    "datetime": (str, _shown),
    "join": (str, _joined),
}
"""Transforms that take one, as `{truncate: 500}`."""


def check_transform(spec: Any) -> None:
    """Raise ValueError in words where a transform does not exist or its argument does not fit."""
    if isinstance(spec, str) and spec in PLAIN:
        return
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, argument = next(iter(spec.items()))
        if name in WITH_ARGUMENT and isinstance(argument, WITH_ARGUMENT[name][0]):
            if name == "tz" and argument != HERE and argument not in _ZONES:
                raise ValueError(f"there is no time zone {argument!r}")
            if name == "truncate" and isinstance(argument, int) and argument < 1:
                raise ValueError("truncate takes a number above 0")
            return
    known = ", ".join([*PLAIN, *(f"{{{name}: …}}" for name in WITH_ARGUMENT)])
    raise ValueError(f"there is no transform {spec!r}; there are: {known}")


def apply_transforms(value: Any, specs: tuple[Any, ...], zone: str = "UTC") -> Any:
    """Apply checked transforms in order. Nothing stays nothing, unless `default` says otherwise.

    `zone` is what `{tz: booking}` means. Raises ValueError where a value does not fit a transform.
    """
    for spec in specs:
        name, argument = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
        if value is None or value in ("", []):
            value = argument if name == "default" else None
            continue
        if name == "tz" and argument == HERE:
            argument = zone
        function = PLAIN[name] if isinstance(spec, str) else WITH_ARGUMENT[name][1]
        try:
            value = function(value, argument)
        except (OverflowError, TypeError) as error:
            raise ValueError(str(error)) from None
    return value
