"""Compares values in a CRM with values that a booking calls for, in any notation of the CRM."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from app.crm.objects import FieldValue
from app.crm.schema import Directory, Stage
from app.domain.values import number_text, time_text

_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def blank(value: FieldValue) -> bool:
    """Whether a value is empty: nothing, empty text or an empty list."""
    return value is None or value in ("", [])


def same(now: FieldValue, wanted: FieldValue) -> bool:
    """Whether two values mean the same: 5 and "5.0", true and "true", a time in two notations."""
    if blank(now) or blank(wanted):
        return blank(now) and blank(wanted)
    if isinstance(now, list) or isinstance(wanted, list):
        return set(as_list(now)) == set(as_list(wanted))
    first, second = str(now), str(wanted)
    if first == second or first.lower() == second.lower() in ("true", "false"):
        return True
    times = time_text(first), time_text(second)
    if all(times):
        return times[0] == times[1]
    for read in (float, _moment):
        try:
            return read(first) == read(second)
        except ValueError:
            continue
    return False


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def forms_of(now: FieldValue) -> Iterator[FieldValue]:
    """Give every form that this service may have written for a value: 500.0 was 500 or "500"."""
    yield now
    if isinstance(now, list):
        yield sorted(map(str, now))
        yield ";".join(map(str, now))
        return
    text = str(now)
    yield text
    if isinstance(now, str):
        yield {"true": True, "false": False}.get(text.lower(), text)
        yield text.split(";")
        yield sorted(part.strip() for part in text.split(";"))
        if moment := _as_moment(text):
            yield moment
        if time := time_text(text):
            yield time
    if isinstance(now, bool) or not _NUMBER.fullmatch(text):
        return
    number = float(text)
    yield number
    yield number_text(number)
    if number == int(number):
        yield int(number)


def tidy(value: FieldValue) -> FieldValue:
    """Return a value as this service writes it: times in UTC, numbers without a needless ".0"."""
    if isinstance(value, str):
        return _as_moment(value) or value
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def _as_moment(text: str) -> str | None:
    """Return a date and time in UTC, as this service writes it."""
    if not _MOMENT.match(text):
        return None
    try:
        return f"{_moment(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        return None


def as_list(value: FieldValue) -> list[str]:
    """Return the entries of a list, or of the text that a CRM makes from a list."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [part.strip() for part in str(value).split(";") if part.strip()]


def appended(now: FieldValue, value: FieldValue, between: str) -> FieldValue:
    """Add a value to the present one, leaving out each line that the present one has already."""
    if isinstance(value, list):
        return list(dict.fromkeys([*as_list(now), *map(str, value)]))
    text = str(now)
    for line in re.split(r"\n|<br>", str(value)):
        if line.strip() not in text:
            text += f"{between}{line}"
    return text


def is_later_stage(now: FieldValue, wanted: FieldValue, directory: Directory) -> bool:
    """Whether a stage comes after the present one in the same pipeline, if that one is open."""
    for pipeline in directory.pipelines:
        places = {
            name: number
            for number, stage in enumerate(pipeline.stages)
            for name in (stage.id, stage.label)
        }
        if str(wanted) in places and str(now) in places:
            present: Stage = pipeline.stages[places[str(now)]]
            return not present.closed and places[str(now)] < places[str(wanted)]
    return False
