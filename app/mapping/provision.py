"""Decides the type of a custom field for the values that a mapping file writes to it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.crm.objects import ObjectName
from app.crm.schema import FieldKind, NewField
from app.mapping.paths import FIXED, kind_of
from app.mapping.templates import is_constant
from app.mapping.transforms import read_flag
from app.mapping.value_source import FieldSpec, ValueSource

Seen = Mapping[str, Sequence[str | list[str]]]
"""Question, in the form of `plain_label` -> answers in stored bookings."""
MOST_OPTIONS = 100
"""People do not choose from longer lists."""
AFTER: dict[str, FieldKind] = {
    "number": FieldKind.NUMBER, "date": FieldKind.DATE, "iso": FieldKind.MOMENT, "tz": FieldKind.MOMENT,
    "add_days": FieldKind.MOMENT, "lower": FieldKind.TEXT, "e164": FieldKind.TEXT, "time": FieldKind.TIME,
    "hh_mm": FieldKind.TIME, "join": FieldKind.TEXT, "json": FieldKind.TEXT, "strip_html": FieldKind.TEXT,
    "truncate": FieldKind.TEXT,
}  # fmt: skip
"""The kind of a value after a transform; other transforms do not change the kind."""
TYPES = {
    "text": FieldKind.TEXT, "number": FieldKind.NUMBER, "whole number": FieldKind.WHOLE,
    "yes or no": FieldKind.FLAG,
    "date": FieldKind.DATE, "date and time": FieldKind.MOMENT, "time": FieldKind.TIME,
    "money": FieldKind.MONEY,
    "one of a list": FieldKind.CHOICE, "some of a list": FieldKind.CHOICES,
}  # fmt: skip
"""People's names for the types that can be created."""
LISTS = (FieldKind.CHOICE, FieldKind.CHOICES)


def kinds_of(spec: ValueSource) -> set[FieldKind | None]:
    """Return the possible kinds of a value after all transforms; None for a kind that is unknown."""
    kinds: set[FieldKind | None] = {kind_of(path) if path in FIXED else None for path in spec.paths}
    if spec.summary or spec.answers:
        kinds = {FieldKind.TEXT}
    for transform in spec.transforms:
        name = transform if isinstance(transform, str) else next(iter(transform))
        if name == "map":
            kinds = {None}
        elif name in ("date", "time", "datetime") and not isinstance(transform, str):
            kinds = {FieldKind.TEXT}
        elif name in AFTER:
            kinds = {AFTER[name]}
        elif name == "first_of":
            kinds = {FieldKind.TEXT if kind is FieldKind.CHOICES else kind for kind in kinds}
    return kinds


def constants_of(spec: FieldSpec) -> Iterator[Any]:
    """Give values known beforehand: a constant, also in a template, a default, results of `map`."""
    last = spec.transforms[-1] if spec.transforms else None
    if spec.value is not None and not spec.transforms:
        yield spec.value
    if spec.template is not None and not spec.transforms and is_constant(spec.template):
        yield spec.template
    if isinstance(last, Mapping) and "map" in last:
        yield from last["map"].values()
    if isinstance(last, Mapping) and "default" in last:
        yield last["default"]


def new_field(name: ObjectName, key: str, spec: FieldSpec, seen: Seen) -> NewField:
    """Return the custom field that a file needs: its type fits the values, and its options come
    from a map or from answers seen so far."""
    kind, options = _kind(spec, seen)
    return NewField(name, key, kind, options=options)


def _kind(spec: FieldSpec, seen: Seen) -> tuple[FieldKind, tuple[str, ...]]:
    last = spec.transforms[-1] if spec.transforms else None
    if spec.value is not None and not spec.transforms:
        return _kind_of_constant(spec.value)
    if isinstance(last, Mapping) and "map" in last:
        return _kind_of_map([v for v in last["map"].values() if v is not None])
    kinds = kinds_of(spec)
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        return _kind_of_answers(
            [answer for label in spec.labels() for answer in seen.get(label, ())]
        )
    makes = (
        FieldKind.NUMBER,
        FieldKind.WHOLE,
        FieldKind.FLAG,
        FieldKind.DATE,
        FieldKind.MOMENT,
        FieldKind.TIME,
    )
    return (kind if kind in makes else FieldKind.TEXT), ()


def _kind_of_constant(value: Any) -> tuple[FieldKind, tuple[str, ...]]:
    if isinstance(value, list):
        return FieldKind.CHOICES, tuple(dict.fromkeys(map(str, value)))
    if isinstance(value, bool):
        return FieldKind.FLAG, ()
    return (FieldKind.NUMBER if isinstance(value, (int, float)) else FieldKind.TEXT), ()


def _kind_of_map(values: list[Any]) -> tuple[FieldKind, tuple[str, ...]]:
    """Use the results of a map as options, unless they are numbers or booleans."""
    if values and all(isinstance(value, bool) for value in values):
        return FieldKind.FLAG, ()
    if values and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return FieldKind.NUMBER, ()
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    options = tuple(dict.fromkeys(str(item) for item in flat))
    several = any(isinstance(value, list) for value in values)
    return _listed(FieldKind.CHOICES if several else FieldKind.CHOICE, options)


def _kind_of_answers(answers: Sequence[str | list[str]]) -> tuple[FieldKind, tuple[str, ...]]:
    """Use a list if any answer had several choices; otherwise only yes or no is recognised."""
    if any(isinstance(answer, list) for answer in answers):
        flat = [i for answer in answers for i in (answer if isinstance(answer, list) else [answer])]
        return _listed(FieldKind.CHOICES, tuple(dict.fromkeys(flat)))
    words = [answer for answer in answers if isinstance(answer, str)]
    told = [read_flag(word) is not None and not word.strip().isdigit() for word in words]
    return (FieldKind.FLAG if told and all(told) else FieldKind.TEXT), ()


def _listed(kind: FieldKind, options: tuple[str, ...]) -> tuple[FieldKind, tuple[str, ...]]:
    fits = 0 < len(options) <= MOST_OPTIONS and all(options)
    return (kind, options) if fits else (FieldKind.TEXT, ())


def type_in_words(field: NewField) -> str:
    """Return the type of a new field in people's words: one of a list: A, B."""
    words = next((word for word, kind in TYPES.items() if kind is field.kind), field.kind.value)
    return f"{words}: {', '.join(field.options)}" if field.options else words


def retyped(fields: Sequence[NewField], text: str) -> list[NewField]:
    """Return the fields with another type for one: `contact.plan: one of a list: Basic, Pro`.

    Raises ValueError with a message if there is no such field or type.
    """
    place, _, words = text.partition(":")
    wanted = [f for f in fields if place.strip() in (f.name, f"{f.object}.{f.name}")]
    if len(wanted) != 1:
        there = ", ".join(f"{field.object}.{field.name}" for field in fields)
        raise ValueError(f"Write one of {there}, then a colon and its type.")
    name, _, rest = words.partition(":")
    kind = TYPES.get(" ".join(name.casefold().split()))
    options = tuple(part.strip() for part in re.split(r"[,;]", rest) if part.strip())
    if kind is None:
        raise ValueError(f"There is no type {name.strip()!r}; there are: {', '.join(TYPES)}.")
    if (kind in LISTS) is not bool(options):
        example = f"{place.strip()}: one of a list: Basic, Pro"
        raise ValueError(f"A list needs options, and other types have none: {example}.")
    old = wanted[0]
    new = NewField(old.object, old.name, kind, old.label, options)
    return [new if field is old else field for field in fields]
