"""Compares what stands in a CRM with what a booking calls for, whatever form the CRM gives it in."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from app.domain.records import Directory, FieldValue, Stage


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
    for read in (float, _moment):
        try:
            return read(first) == read(second)
        except ValueError:
            continue
    return False


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def as_list(value: FieldValue) -> list[str]:
    """The entries of a list, or of the text that a CRM makes of one."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [part.strip() for part in str(value).split(";") if part.strip()]


def appended(now: FieldValue, value: FieldValue, between: str) -> FieldValue:
    """What stands there with a value added at the end, each line that is not in there already."""
    if isinstance(value, list):
        return list(dict.fromkeys([*as_list(now), *map(str, value)]))
    text = str(now)
    for line in re.split(r"\n|<br>", str(value)):
        if line.strip() not in text:
            text += f"{between}{line}"
    return text


def is_later_stage(now: FieldValue, wanted: FieldValue, directory: Directory) -> bool:
    """Whether a stage comes after the present one in the same pipeline, and that one is open."""
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
