"""Decides the type of a custom field for the values that a mapping file writes to it. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.crm.objects import ObjectName
from app.crm.schema import FieldKind, NewField
from app.mapping.paths import FIXED, kind_of, plain_label
from app.mapping.templates import is_constant
from app.mapping.transforms import read_flag
from app.mapping.value_source import FieldSpec, ValueSource

Seen = Mapping[str, Sequence[str | list[str]]]
"""Question, in the form of `plain_label` -> answers in stored bookings."""
MOST_OPTIONS = 100
"""People do not choose from longer lists."""
FEWEST_ANSWERS = 5
"""Fewer answers do not show that a question has a list of answers."""
MOST_GUESSED = 20
"""The most options that are taken from answers of one choice each."""
LONGEST_OPTION = 60
"""Longer answers are sentences."""
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


@dataclass(frozen=True)
class _NewType:
    """The type of a field to create."""

    kind: FieldKind
    options: tuple[str, ...] = ()
    why: str = ""
    """What the type was taken from, if that was the answers of bookings."""


def new_field(name: ObjectName, key: str, spec: FieldSpec, seen: Seen) -> NewField:
    """Return the custom field that a file needs: its type fits the values, and its options come
    from a map or from answers seen so far."""
    made = _type_of(spec, seen)
    return NewField(name, key, made.kind, options=made.options, why=made.why)


def _type_of(spec: FieldSpec, seen: Seen) -> _NewType:
    last = spec.transforms[-1] if spec.transforms else None
    if spec.value is not None and not spec.transforms:
        return _type_of_constant(spec.value)
    if isinstance(last, Mapping) and "map" in last:
        return _type_of_map([v for v in last["map"].values() if v is not None])
    kinds = kinds_of(spec)
    kind = kinds.pop() if len(kinds) == 1 else None
    labels = list(spec.labels()) if spec.template is None else []
    if kind is None and labels:
        return _type_of_answers([answer for label in labels for answer in seen.get(label, ())])
    makes = (
        FieldKind.NUMBER,
        FieldKind.WHOLE,
        FieldKind.FLAG,
        FieldKind.DATE,
        FieldKind.MOMENT,
        FieldKind.TIME,
    )
    return _NewType(kind if kind in makes else FieldKind.TEXT)


def _type_of_constant(value: Any) -> _NewType:
    if isinstance(value, list):
        return _NewType(FieldKind.CHOICES, tuple(dict.fromkeys(map(str, value))))
    if isinstance(value, bool):
        return _NewType(FieldKind.FLAG)
    return _NewType(FieldKind.NUMBER if isinstance(value, (int, float)) else FieldKind.TEXT)


def _type_of_map(values: list[Any]) -> _NewType:
    """Use the results of a map as options, unless they are numbers or booleans."""
    if values and all(isinstance(value, bool) for value in values):
        return _NewType(FieldKind.FLAG)
    if values and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return _NewType(FieldKind.NUMBER)
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    options = tuple(dict.fromkeys(str(item) for item in flat))
    several = any(isinstance(value, list) for value in values)
    fits = 0 < len(options) <= MOST_OPTIONS and all(options)
    return (
        _NewType(FieldKind.CHOICES if several else FieldKind.CHOICE, options)
        if fits
        else _NewType(FieldKind.TEXT)
    )


def _type_of_answers(answers: Sequence[str | list[str]]) -> _NewType:
    """Use a list for several choices, and for answers that repeat as those of a list do.

    meetergo does not say what kind of question it was, so `why` says what was seen.
    """
    if not answers:
        return _NewType(FieldKind.TEXT, why="no stored booking answers this question")
    several = any(isinstance(answer, list) for answer in answers)
    flat = [i for answer in answers for i in (answer if isinstance(answer, list) else [answer])]
    # Each option in the spelling that most answers have.
    spelling = {plain_label(i): i.strip() for i, _ in Counter(flat).most_common()[::-1]}
    counts = Counter(map(plain_label, flat))
    options = tuple(spelling[name] for name in sorted(counts) if name)
    number = f"the {len(answers)} answers" if len(answers) > 1 else "the one answer"
    if len(options) > MOST_OPTIONS:
        words = f"{number} hold {len(options)} choices, and a list takes {MOST_OPTIONS} at most"
        return _NewType(FieldKind.TEXT, why=words)
    if several:
        return _NewType(FieldKind.CHOICES, options, f"these are the choices in {number} so far")
    if all(read_flag(word) is not None and not word.strip().isdigit() for word in flat):
        return _NewType(FieldKind.FLAG, why=f"{number} so far say yes or no")
    if _like_a_list(counts, len(answers)):
        return _NewType(FieldKind.CHOICE, options, f"each of {number} so far is one of these")
    return _NewType(FieldKind.TEXT, why=f"{number} so far are no choices of a list")


def _like_a_list(counts: Counter[str], answers: int) -> bool:
    """Whether answers look like those of a list: few, short, each given twice, and no number."""
    wordy = all(any(c.isalpha() for c in name) and "@" not in name for name in counts)
    short = max(map(len, counts)) <= LONGEST_OPTION
    repeated = answers >= FEWEST_ANSWERS and min(counts.values()) >= 2
    return wordy and short and repeated and len(counts) <= MOST_GUESSED


def type_in_words(field: NewField) -> str:
    """Return the type of a new field in people's words: one of a list: A, B."""
    words = next((word for word, kind in TYPES.items() if kind is field.kind), field.kind.value)
    return f"{words}: {', '.join(field.options)}" if field.options else words


def new_in_words(field: NewField) -> str:
    """Return a new field, its type, and what that was taken from, in people's words."""
    why = f": {field.why}" if field.why else ""
    return f"{field.object}.{field.name} ({type_in_words(field)}){why}"


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
