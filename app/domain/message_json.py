"""Finds values in the JSON of meetergo's messages, which may lie at several places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.text import one_line

Json = Mapping[str, Any]
Place = tuple[str, ...]
"""Keys that lead to a value."""


def says(data: Json, places: Iterable[Place]) -> bool:
    """Whether a message has one of these places, were it empty."""
    return any(place[-1] in _inside(data, place) for place in places)


def first_text(data: Json, places: Iterable[Place]) -> str | None:
    """What stands at the first of these places that is not empty."""
    found = (one_line(_inside(data, place).get(place[-1])) for place in places)
    return next(filter(None, found), None)


def _inside(data: Json, place: Place) -> Json:
    for key in place[:-1]:
        data = as_object(data.get(key))
    return data


def as_object(value: object) -> Json:
    """The object that stands there; an empty one where anything else does."""
    return value if isinstance(value, Mapping) else {}


def as_objects(value: object) -> list[Json]:
    """The objects of a list, without its other items; none where no list stands there."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
