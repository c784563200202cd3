"""Finds values in the JSON of meetergo's messages, at one of several places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.text import one_line

Json = Mapping[str, Any]
Place = tuple[str, ...]
"""Keys that lead to a value."""


def says(data: Json, places: Iterable[Place]) -> bool:
    """Whether a message has one of these keys, even if it is empty."""
    return any(place[-1] in _inside(data, place) for place in places)


def first_text(data: Json, places: Iterable[Place]) -> str | None:
    """Return the first text at these places that is not empty."""
    found = (one_line(_inside(data, place).get(place[-1])) for place in places)
    return next(filter(None, found), None)


def _inside(data: Json, place: Place) -> Json:
    for key in place[:-1]:
        data = as_object(data.get(key))
    return data


def as_object(value: object) -> Json:
    """Return the value if it is an object; otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_objects(value: object) -> list[Json]:
    """Return the objects of a list, without its other items; empty if the value is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
