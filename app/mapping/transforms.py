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
from app.domain.text import clean_text, cut, did_you_mean, quoted
from app.domain.values import time_text

Transform = Callable[[Any, Any], Any]
MOST_DIGITS = 25
"""Most characters of a number, including separators; a longer text is not an amount."""
MAX_NUMBER = 1e18
MOST_DAYS = 36_500
_YES = {"true", "yes", "ja", "1", "on", "oui", "si", "sí"}
_NO = {"false", "no", "nein", "0", "off", "non"}
HERE = "booking"
"""The value of `tz` that means the time zone in which the attendee booked."""
ZONES = available_timezones()
_PLAIN_VALUES = (str, int, float, bool, list)


def read_moment(text: str) -> datetime:
    """Read a time as ISO 8601 or a day as 15.1.2027, in UTC if it has no zone.

    Raises ValueError. Slashes are not accepted: 1/2/2027 and 2/1/2027 are ambiguous.
    """
    day = re.fullmatch(r"(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})", text.strip())
    if day:
        moment = datetime(int(day[3]), int(day[2]), int(day[1]), tzinfo=UTC)
    else:
        moment = datetime.fromisoformat(text.strip())
    if not 1000 <= moment.year <= 9000:
        raise ValueError("no year of a booking")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = read_moment(value)
        except ValueError:
            raise ValueError(f"{quoted(value)} is not a time") from None
    if not isinstance(value, datetime):
        raise ValueError(f"{quoted(value)} is not a time")
    return value


_CURRENCY = re.compile(r"(?i)[\s'’€$£]|(?<![a-z])(?:eur|euros?|usd|chf|gbp)(?![a-z])")


def read_number(value: Any) -> float | int:
    """Read a number as people type it: 1.234,50 €, 1,234.50, 25.000. Raises ValueError.

    A single separator before three digits separates thousands; any other separator before the last
    digits is the decimal sign.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) < MAX_NUMBER:
            raise ValueError(f"{quoted(value)} is not a number that a CRM can hold")
        return value
    text = _CURRENCY.sub("", str(value))[: MOST_DIGITS + 1]
    match = re.fullmatch(r"([+-]?)(\d+(?:[.,]\d+)*)", text)
    if not match or len(text) > MOST_DIGITS:
        raise ValueError(f"{quoted(value)} is not a number")
    whole, mark, rest = match[2], "", ""
    marks = re.findall(r"[.,]", whole)
    grouped = len(marks) == 1 and re.fullmatch(r"[1-9]\d{0,2}.\d{3}", whole)
    if marks and not grouped and marks.count(marks[-1]) == 1:
        whole, mark, rest = whole.rpartition(marks[-1])
    if re.search(r"[.,]", whole) and not re.fullmatch(r"\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*", whole):
        raise ValueError(f"{quoted(value)} is not a number")
    digits = match[1] + re.sub(r"[.,]", "", whole)
    return float(f"{digits}.{rest}") if mark else int(digits)


def read_flag(value: Any) -> bool | None:
    """Read yes or no in people's words; None for any other value."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().casefold()
    return True if text in _YES else False if text in _NO else None


def _hours_minutes(value: Any, _: Any) -> str:
    minutes = int(read_number(value))
    if not 0 <= minutes < 6000:
        raise ValueError(f"{quoted(value)} is no number of minutes below 100 hours")
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _each(function: Transform) -> Transform:
    """Apply a transform to each of several choices."""

    def call(value: Any, argument: Any) -> Any:
        if not isinstance(value, list):
            return function(value, argument)
        return [made for item in value if (made := function(item, argument))]

    return call


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
    raise ValueError(f"{quoted(value)} is not among {', '.join(map(str, table))}")


def _strip_html(value: Any, _: Any) -> str | None:
    text = re.sub(r"(?i)<br\s*/?>|</p>|</div>|</li>", "\n", str(value))
    for tag in ("script", "style"):
        text = _without(text, tag)
    return clean_text(html.unescape(re.sub(r"<[^<>]*>", "", text)))


def _without(text: str, tag: str) -> str:
    """Remove an element and its content, in one pass, since strangers write this text."""
    opening, closing = re.compile(rf"(?i)<{tag}\b"), re.compile(rf"(?i)</{tag}\s*>")
    kept, at = [], 0
    while (start := opening.search(text, at)) and (end := closing.search(text, start.end())):
        kept.append(text[at : start.start()])
        at = end.end()
    return "".join([*kept, text[at:]])


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
    place = ZoneInfo(str(zone))
    moment = _moment(value)
    # A day without a time of day is the same day in every zone.
    bare = isinstance(value, str) and len(value.strip()) <= len("2027-01-15")
    return moment.replace(tzinfo=place) if bare else moment.astimezone(place)


def _time_of_day(value: Any, _: Any) -> str:
    """Return HH:MM of a time, or of a time of day that somebody typed."""
    typed = time_text(value) if isinstance(value, str) else None
    return typed or _moment(value).strftime("%H:%M")


def _shown(value: Any, form: Any) -> str:
    return _moment(value).strftime(form)


PLAIN: dict[str, Transform] = {
    "lower": _each(lambda value, _: str(value).lower()),
    "strip": _each(lambda value, _: str(value).strip()),
    "e164": _each(normalise_phone),
    "number": lambda value, _: read_number(value),
    "date": lambda value, _: _moment(value).strftime("%Y-%m-%d"),
    "time": _time_of_day,
    "datetime": lambda value, _: _moment(value).strftime("%Y-%m-%d %H:%M"),
    "iso": _iso,
    "hh_mm": _hours_minutes,
    "first_of": _first,
    "join": lambda value, _: _joined(value, ", "),
    "strip_html": _each(_strip_html),
    "json": _json,
}
"""Transforms without an argument. Dates and times are in UTC unless `tz` came before; a phone
number without a country code belongs to the country in which the attendee booked."""
WITH_ARGUMENT: dict[str, tuple[type | tuple[type, ...], Transform]] = {
    "truncate": (int, _each(lambda value, limit: cut(str(value), limit))),
    "add_days": (int, lambda value, days: _moment(value) + timedelta(days=days)),
    "map": (Mapping, _mapped),
    "default": (_PLAIN_VALUES, lambda value, other: value),
    "tz": (str, _in_zone),
    "date": (str, _shown),
    "time": (str, _shown),
    "datetime": (str, _shown),
    "join": (str, _joined),
}
"""Transforms with an argument, as in `{truncate: 500}`."""


def check_transform(spec: Any) -> None:
    """Raise ValueError with a message if a transform does not exist or its argument does not fit."""
    if isinstance(spec, str) and spec in PLAIN:
        return
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, argument = next(iter(spec.items()))
        if name in WITH_ARGUMENT and not _fits(argument, WITH_ARGUMENT[name][0]):
            raise ValueError(f"{name} does not take {argument!r}")
        if name in WITH_ARGUMENT:
            if name == "tz" and argument != HERE and argument not in ZONES:
                raise ValueError(
                    f"there is no time zone {argument!r}{did_you_mean(argument, ZONES)}"
                )
            if name == "truncate" and argument < 1:
                raise ValueError("truncate takes a number above 0")
            if name in ("date", "time", "datetime"):
                check_form(argument)
            if name == "add_days" and abs(argument) > MOST_DAYS:
                raise ValueError(f"add_days takes at most {MOST_DAYS} days")
            return
    if spec is None:
        raise ValueError("there is no transform: indent the lines under as deeper than as")
    if isinstance(spec, str) and spec in WITH_ARGUMENT:
        argument = "{answer: value}" if spec == "map" else "…"
        words = f"the transform {spec!r} needs a value"
        raise ValueError(f"{words}; it is written {{{spec}: {argument}}}")
    if isinstance(spec, Mapping) and len(spec) == 1 and next(iter(spec)) in PLAIN:
        name = next(iter(spec))
        raise ValueError(f"{name} takes no argument; it is written {name} alone")
    known = ", ".join([*PLAIN, *(f"{{{name}: …}}" for name in WITH_ARGUMENT)])
    hint = did_you_mean(str(spec), {*PLAIN, *WITH_ARGUMENT})
    raise ValueError(f"there is no transform {spec!r}{hint}; there are: {known}")


_SIGNS = {"y": "Y", "j": "Y", "d": "d", "t": "d", "h": "H", "s": "S"}
"""A letter of DD.MM.YYYY, HH:mm:ss and the like -> the letter of strftime."""


def check_form(form: str) -> str:
    """Return the form of a date; raise ValueError if strftime would print its letters unchanged."""
    if "%" in form:
        return form
    right = "%d.%m.%Y"
    if re.fullmatch(r"(?i)(?=.*[a-z])(?:[dmyhst]|jj|[^a-z%]){1,60}", form):
        right = re.sub(r"([a-z])\1*", _sign(), form, flags=re.I)
    raise ValueError(f'{quoted(form)} would be written in these very letters; write "{right}"')


def _sign() -> Callable[[re.Match[str]], str]:
    """Return a function that replaces a run of one letter; an m after hours means minutes."""
    before = ""

    def sign(run: re.Match[str]) -> str:
        nonlocal before
        letter, length = run[1].lower(), len(run[0])
        before, last = letter, before
        if letter == "m":
            months = "m" if length <= 2 else "b" if length == 3 else "B"
            return "%M" if last == "h" else f"%{months}"
        if letter in "yj" and length == 2:
            return "%y"
        if letter in "tj" and length == 1:
            return run[0]
        return f"%{_SIGNS[letter]}" if letter in _SIGNS else run[0]

    return sign


def _fits(argument: Any, kind: type | tuple[type, ...]) -> bool:
    if isinstance(argument, Mapping):
        values = [*argument.values()] or [object()]
        return kind is Mapping and all(v is None or isinstance(v, _PLAIN_VALUES) for v in values)
    return isinstance(argument, kind) and not (kind is int and isinstance(argument, bool))


def apply_transforms(value: Any, specs: tuple[Any, ...], zone: str = "UTC") -> Any:
    """Apply checked transforms in order. An empty value stays empty, unless `default` replaces it.

    `zone` is the meaning of `{tz: booking}`. Raises ValueError if a value does not fit a transform.
    """
    for spec in specs:
        name, argument = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
        if value is None or value in ("", []):
            value = argument if name == "default" else None
            continue
        if name == "e164" or (name == "tz" and argument == HERE):
            argument = zone
        function = PLAIN[name] if isinstance(spec, str) else WITH_ARGUMENT[name][1]
        if isinstance(value, Mapping) and name != "json":
            raise ValueError(f"{name} takes one value, not a whole table; name one of its entries")
        try:
            value = function(value, argument)
        except (OverflowError, TypeError):
            raise ValueError(f"{name} cannot convert {quoted(value)}") from None
        except RecursionError:
            raise ValueError(f"{name}: this value is nested too deeply") from None
    return value
