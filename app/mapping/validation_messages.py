"""Explains pydantic's errors in a mapping file: one sentence for each place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.domain.text import cut, did_you_mean, quoted
from app.mapping.paths import FIXED, answer_label, in_quotes
from app.mapping.patience import look_at_the_clock
from app.mapping.schema import KEYS, SECTIONS, keys_of
from app.mapping.transforms import WITH_ARGUMENT
from app.mapping.value_source import SOURCE_KEYS

Location = tuple[int | str, ...]
_SHAPES = {
    "string_type": "a text", "int_type": "a whole number", "int_parsing": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "bool_type": "true or false",
    "bool_parsing": "true or false", "dict_type": "keys and values",
    "model_type": "keys and values", "model_attributes_type": "keys and values",
    "tuple_type": "a list", "list_type": "a list", "none_required": "nothing",
}  # fmt: skip
"""pydantic's name of an error -> the value that it expects."""
_BRACES = "{{"
"""The start of a template; without quotes around it, YAML reads a table."""
_CHOICES = ("literal_error", "enum")


def explain(error: ValidationError, plain: Any) -> list[tuple[Location, str]]:
    """Return every wrong place with a sentence; `plain` is the document that was validated.

    If a place allows several forms, pydantic reports one error for each form: only the form that
    was meant counts here.
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
        at = place[:-1] if place and str(place[-1]).startswith(_BRACES) else place
        found += [(at, words) for words in _sentences(place, items, meant)]
    return found


def _sentences(place: Location, items: list[ErrorDetails], meant: bool) -> Iterator[str]:
    shapes = [_SHAPES[item["type"]] for item in items if item["type"] in _SHAPES]
    texts = [item["ctx"]["expected"] for item in items if item["type"] in _CHOICES]
    # pydantic lists texts in quotes, and members of an enumeration with their names around them.
    choices = list(dict.fromkeys(re.findall(r"'([^']*)'", " ".join(texts)) or texts))
    for item in items:
        if item["type"] not in _SHAPES and item["type"] not in _CHOICES:
            yield _words(place, item)
    if meant or not (shapes or choices):
        return
    given, there = items[0]["input"], ", ".join(choices)
    if isinstance(given, list) and not choices and set(shapes) == {"keys and values"}:
        yield "this must be keys and values, not a list: remove the dashes or brackets"
    elif isinstance(given, MappingType) and any(str(key).startswith(_BRACES) for key in given):
        inside = next(str(key) for key in given if str(key).startswith(_BRACES))
        yield f"a template needs quotes: {in_quotes(inside, True)}"
    elif isinstance(given, str) and choices:
        yield f"there is no {quoted(given)} here{did_you_mean(given, choices)}; there are: {there}"
    else:
        forms = [*dict.fromkeys(shapes), *([f"one of: {there}"] if choices else [])]
        plain = given is not None and not isinstance(given, (MappingType, list))
        shown = f", not {quoted(given)}" if plain else ""
        constant = plain and place[-2:-1] == ("fields",)
        hint = f"; a constant is written {{value: {_as_yaml(given)}}}" if constant else ""
        if isinstance(given, str) and re.match(r"[\w.-]+:\S", given):
            hint = "; a blank is missing after the colon"
        if given is None and "keys and values" in forms:
            hint = "; indent the lines that belong to it deeper, or remove it"
        yield f"this must be {' or '.join(forms)}{shown}{hint}"


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else cut(str(value), 60)


def _words(place: Location, item: ErrorDetails) -> str:
    look_at_the_clock()
    if item["type"] == "extra_forbidden":
        return _not_known(place, item)
    if item["type"] == "missing":
        hint = "; a file begins with version: 1" if tuple(item["loc"]) == ("version",) else ""
        return f"{item['loc'][-1]} is missing{hint}"
    words = str(item["msg"]).removeprefix("Value error, ")
    return words.replace("Input should", "this should", 1)


def _not_known(place: Location, item: ErrorDetails) -> str:
    """Explain an unknown key: a field outside `fields`, a transform outside `as`, …"""
    key = str(item["loc"][-1])
    if key.startswith(_BRACES):
        return f"a template needs quotes: {{template: {in_quotes(key, True)}}}"
    if "\xa0" in key:
        return "this key begins with a no-break blank, copied from a web page; write a normal blank"
    top = all(isinstance(part, int) for part in place[1:-1])
    section = SECTIONS.get(str(place[0])) if place and top else None
    near = did_you_mean(key, keys_of(section) if section else KEYS)
    if key in KEYS:
        hint = "; check its indent, or it belongs into another section"
    elif section and (not near or _is_source(item["input"])):
        hint = f"; a field of the CRM belongs under fields: {{fields: {{{key}: …}}}}"
    elif "fields" in place[:-1] and key in WITH_ARGUMENT:
        hint = f"; a transform belongs under as: {{as: {{{key}: …}}}}"
    elif not place[:-1] and _is_source(item["input"]):
        hint = f"; a field of the CRM belongs into a section: {{contact: {{fields: {{{key}: …}}}}}}"
    else:
        hint = near
    return f"this key is not known here{hint}"


def _is_source(value: object) -> bool:
    """Whether a value looks like the source of a field."""
    if isinstance(value, MappingType):
        return bool(SOURCE_KEYS & set(value))
    return isinstance(value, str) and (value in FIXED or answer_label(value) is not None)


def key_text(key: object) -> str:
    """Return a key's name: braces without quotes are a key in YAML, `{{ attendee.email }}`."""
    if isinstance(key, MappingType):
        return f"{_BRACES} {', '.join(map(str, key))} }}}}"
    return str(key)


def in_document(document: Any, location: Location) -> Location:
    """Return a place from pydantic without parts that are only in the model: unions, single deals."""
    look_at_the_clock()
    node, kept = document, []
    for part in location:
        if isinstance(node, MappingType) and str(part) in {key_text(key) for key in node}:
            node = next(value for key, value in node.items() if key_text(key) == str(part))
            kept.append(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
            kept.append(part)
    return tuple(kept)
