"""Says in words what pydantic found wrong with a mapping file: one sentence a place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.domain.text import did_you_mean, quoted
from app.mapping.patience import look_at_the_clock
from app.mapping.schema import KEYS

Location = tuple[int | str, ...]
_SHAPES = {
    "string_type": "a text", "int_type": "a whole number", "int_parsing": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "bool_type": "true or false",
    "bool_parsing": "true or false", "dict_type": "keys and values",
    "model_type": "keys and values", "model_attributes_type": "keys and values",
    "tuple_type": "a list", "list_type": "a list", "none_required": "nothing",
}  # fmt: skip
"""pydantic's name of an error -> what it wanted."""
_CHOICES = ("literal_error", "enum")


def explain(error: ValidationError, plain: Any) -> list[tuple[Location, str]]:
    """Every place at fault with a sentence; `plain` is the document that was looked at.

    Where several forms may stand, pydantic complains once for each of them: here only the form
    that was meant counts.
    """
    by_place: dict[Location, list[ErrorDetails]] = {}
    for item in error.errors():
        by_place.setdefault(in_document(plain, tuple(item["loc"])), []).append(item)
    inside = [
        place
        for place, items in by_place.items()
        if any(i["type"] not in _SHAPES and i["type"] not in _CHOICES for i in items)
    ]
    found = []
    for place, items in by_place.items():
        meant = any(
            other[: len(place)] == place and isinstance(items[0]["input"], MappingType)
            for other in inside
        )
        found += [(place, words) for words in _sentences(items, meant)]
    return found


def _sentences(items: list[ErrorDetails], meant: bool) -> Iterator[str]:
    shapes = [_SHAPES[item["type"]] for item in items if item["type"] in _SHAPES]
    texts = [item["ctx"]["expected"] for item in items if item["type"] in _CHOICES]
    # pydantic lists texts in quotes, members of an enumeration with their names around them.
    choices = list(dict.fromkeys(re.findall(r"'([^']*)'", " ".join(texts)) or texts))
    for item in items:
        if item["type"] not in _SHAPES and item["type"] not in _CHOICES:
            yield _words(item)
    if meant or not (shapes or choices):
        return
    given, there = items[0]["input"], ", ".join(choices)
    if isinstance(given, str) and choices:
        yield f"there is no {quoted(given)} here{did_you_mean(given, choices)}; there are: {there}"
    else:
        forms = [*dict.fromkeys(shapes), *([f"one of: {there}"] if choices else [])]
        plain = given is not None and not isinstance(given, (MappingType, list))
        shown = f", not {quoted(given)}" if plain else ""
        yield f"here belongs {' or '.join(forms)}{shown}"


def _words(item: ErrorDetails) -> str:
    look_at_the_clock()
    if item["type"] == "extra_forbidden":
        return f"this key is not known here{did_you_mean(str(item['loc'][-1]), KEYS)}"
    if item["type"] == "missing":
        return f"{item['loc'][-1]} is missing"
    words = str(item["msg"]).removeprefix("Value error, ")
    return words.replace("Input should", "this should", 1)


def in_document(document: Any, location: Location) -> Location:
    """A place as pydantic names it, without what stands in the model alone: unions, single deals."""
    look_at_the_clock()
    node, kept = document, []
    for part in location:
        if isinstance(node, MappingType) and str(part) in {str(key) for key in node}:
            node = next(value for key, value in node.items() if str(key) == str(part))
            kept.append(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
            kept.append(part)
    return tuple(kept)
