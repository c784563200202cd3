"""Of what type a custom field has to be made for what a mapping file writes into it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.records import Kind, NewField, ObjectName
from app.mapping.paths import FIXED, kind_of
from app.mapping.schema import FieldSpec, Source
from app.mapping.templates import is_constant
from app.mapping.transforms import read_flag

Seen = Mapping[str, Sequence[str | list[str]]]
"""Question, as `plain_label` compares it -> answers that stored bookings gave."""
MOST_OPTIONS = 100
"""A list of more is none that people choose from."""
AFTER: dict[str, Kind] = {
    "number": Kind.NUMBER, "date": Kind.DATE, "iso": Kind.MOMENT, "tz": Kind.MOMENT,
    "add_days": Kind.MOMENT, "lower": Kind.TEXT, "e164": Kind.TEXT, "time": Kind.TIME,
    "hh_mm": Kind.TIME, "join": Kind.TEXT, "json": Kind.TEXT, "strip_html": Kind.TEXT,
    "truncate": Kind.TEXT,
}  # fmt: skip
"""What stands there after a transform; the others do not change what it is."""
TYPES = {
    "text": Kind.TEXT, "number": Kind.NUMBER, "whole number": Kind.WHOLE, "yes or no": Kind.FLAG,
    "date": Kind.DATE, "date and time": Kind.MOMENT, "time": Kind.TIME, "money": Kind.MONEY,
    "one of a list": Kind.CHOICE, "some of a list": Kind.CHOICES,
}  # fmt: skip
"""How people name the types that can be made."""
LISTS = (Kind.CHOICE, Kind.CHOICES)


def kinds_of(spec: Source) -> set[Kind | None]:
    """What may stand there after all transforms; None where nobody can know beforehand."""
    kinds: set[Kind | None] = {kind_of(path) if path in FIXED else None for path in spec.paths}
    if spec.summary or spec.answers:
        kinds = {Kind.TEXT}
    for transform in spec.transforms:
        name = transform if isinstance(transform, str) else next(iter(transform))
        if name == "map":
            kinds = {None}
        elif name in ("date", "time", "datetime") and not isinstance(transform, str):
            kinds = {Kind.TEXT}
        elif name in AFTER:
            kinds = {AFTER[name]}
        elif name == "first_of":
            kinds = {Kind.TEXT if kind is Kind.CHOICES else kind for kind in kinds}
    return kinds


def constants_of(spec: FieldSpec) -> Iterator[Any]:
    """Values that are known beforehand: a constant, also as a template, a default, what `map` gives."""
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
    """The custom field that a file needs: of the type of what it writes, with the options of a map
    or of the answers that were seen."""
    kind, options = _kind(spec, seen)
    return NewField(name, key, kind, options=options)


def _kind(spec: FieldSpec, seen: Seen) -> tuple[Kind, tuple[str, ...]]:
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
    makes = (Kind.NUMBER, Kind.WHOLE, Kind.FLAG, Kind.DATE, Kind.MOMENT, Kind.TIME)
    return (kind if kind in makes else Kind.TEXT), ()


def _kind_of_constant(value: Any) -> tuple[Kind, tuple[str, ...]]:
    if isinstance(value, list):
        return Kind.CHOICES, tuple(dict.fromkeys(map(str, value)))
    if isinstance(value, bool):
        return Kind.FLAG, ()
    return (Kind.NUMBER if isinstance(value, (int, float)) else Kind.TEXT), ()


def _kind_of_map(values: list[Any]) -> tuple[Kind, tuple[str, ...]]:
    """A map has a fixed set of results: they are the options, unless they are numbers or yes and no."""
    if values and all(isinstance(value, bool) for value in values):
        return Kind.FLAG, ()
    if values and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return Kind.NUMBER, ()
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    options = tuple(dict.fromkeys(str(item) for item in flat))
    several = any(isinstance(value, list) for value in values)
    return _listed(Kind.CHOICES if several else Kind.CHOICE, options)


def _kind_of_answers(answers: Sequence[str | list[str]]) -> tuple[Kind, tuple[str, ...]]:
    """A question of which somebody gave several choices is a list; what else it is nobody knows."""
    if any(isinstance(answer, list) for answer in answers):
        flat = [i for answer in answers for i in (answer if isinstance(answer, list) else [answer])]
        return _listed(Kind.CHOICES, tuple(dict.fromkeys(flat)))
    words = [answer for answer in answers if isinstance(answer, str)]
    told = [read_flag(word) is not None and not word.strip().isdigit() for word in words]
    return (Kind.FLAG if told and all(told) else Kind.TEXT), ()


def _listed(kind: Kind, options: tuple[str, ...]) -> tuple[Kind, tuple[str, ...]]:
    fits = 0 < len(options) <= MOST_OPTIONS and all(options)
    return (kind, options) if fits else (Kind.TEXT, ())


def type_in_words(field: NewField) -> str:
    """The type of a new field as people say it: one of a list: A, B."""
    words = next((word for word, kind in TYPES.items() if kind is field.kind), field.kind.value)
    return f"{words}: {', '.join(field.options)}" if field.options else words


def retyped(fields: Sequence[NewField], text: str) -> list[NewField]:
    """The fields with another type for one: `contact.plan: one of a list: Basic, Pro`.

    Raises ValueError in words where there is no such field or type.
    """
    place, _, words = text.partition(":")
    wanted = [f for f in fields if place.strip() in (f.name, f"{f.object}.{f.name}")]
    if len(wanted) != 1:
        there = ", ".join(f"{field.object}.{field.name}" for field in fields)
        raise ValueError(f"Write one of {there}, a colon, and its type.")
    name, _, rest = words.partition(":")
    kind = TYPES.get(" ".join(name.casefold().split()))
    options = tuple(part.strip() for part in re.split(r"[,;]", rest) if part.strip())
    if kind is None:
        raise ValueError(f"There is no type {name.strip()!r}; there are: {', '.join(TYPES)}.")
    if (kind in LISTS) is not bool(options):
        example = f"{place.strip()}: one of a list: Basic, Pro"
        raise ValueError(f"A list needs its options, and nothing else has any, as in {example}.")
    old = wanted[0]
    new = NewField(old.object, old.name, kind, old.label, options)
    return [new if field is old else field for field in fields]
