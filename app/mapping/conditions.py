"""Conditions under `when`: keys are paths, so there is no expression language to learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.crm.schema import FieldKind
from app.domain.text import did_you_mean
from app.mapping.paths import check_path, kind_of, resolve
from app.mapping.transforms import read_flag, read_number

Condition = Mapping[str, Any]
_GROUPS = ("any", "all")
_VALUES = {
    "booking.status": ("scheduled", "cancelled", "moved"),
    "booking.state": ("created", "rescheduled", "cancelled", "moved"),
    "booking.outcome": ("held", "no_show"),
}
"""Paths whose possible values are known: a typing error would never match, and nobody would notice."""
_TESTS = ("not", "contains", "starts_with", "above", "below", "empty")


def check_condition(condition: Any) -> dict[str, Any]:
    """Return a condition unchanged; raise ValueError with a message if it cannot be understood."""
    if not isinstance(condition, Mapping):
        raise ValueError("a condition is a list of `path: value`")
    for key, wanted in condition.items():
        if key in _GROUPS:
            if not isinstance(wanted, list) or not wanted:
                raise ValueError(f"{key} takes a list of conditions")
            for part in wanted:
                check_condition(part)
        else:
            _check_wanted(wanted, check_path(str(key)))
    return dict(condition)


def _check_wanted(wanted: Any, path: str) -> None:
    if isinstance(wanted, list):
        if not wanted:
            raise ValueError("an empty list never matches")
        for item in wanted:
            _check_wanted(item, path)
    elif isinstance(wanted, Mapping):
        name, argument = next(iter(wanted.items()), (None, None))
        if len(wanted) != 1 or name not in _TESTS:
            raise ValueError(f"there is no test {dict(wanted)!r}; there are: {', '.join(_TESTS)}")
        _check_test(name, argument, path)
    elif path in _VALUES and wanted is not None and _plain(wanted) not in ("", *_VALUES[path]):
        hint = did_you_mean(str(wanted), _VALUES[path])
        raise ValueError(f"{path} is never {wanted!r}, but {', '.join(_VALUES[path])}{hint}")


def _check_test(name: str, argument: Any, path: str) -> None:
    if name == "not":
        _check_wanted(argument, path)
    elif name == "empty" and not isinstance(argument, bool):
        raise ValueError("empty takes true or false")
    elif name in ("above", "below"):
        if not _is_number(argument):
            raise ValueError(f"{name} takes a number")
        if kind_of(path) in (FieldKind.MOMENT, FieldKind.FLAG, FieldKind.CHOICES):
            raise ValueError(f"{path} is {kind_of(path)} and never {name} a number")
    elif name in ("contains", "starts_with"):
        parts = argument if isinstance(argument, list) else [argument]
        if not parts or not all(_is_number(p) or (isinstance(p, str) and p.strip()) for p in parts):
            raise ValueError(f"{name} takes a text, or a list of texts")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def paths_of(condition: Condition) -> Iterator[str]:
    """Give every path that a condition reads."""
    for key, wanted in condition.items():
        if key in _GROUPS:
            for part in wanted:
                yield from paths_of(part)
        else:
            yield key


def holds(condition: Condition, context: Mapping[str, Any]) -> bool:
    """Whether every line of a checked condition is true."""
    return all(_line_holds(key, wanted, context) for key, wanted in condition.items())


def _line_holds(key: str, wanted: Any, context: Mapping[str, Any]) -> bool:
    if key in _GROUPS:
        return (any if key == "any" else all)(holds(part, context) for part in wanted)
    return _fits(resolve(key, context), wanted)


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return _passes(value, *next(iter(wanted.items())))
    if isinstance(wanted, list):
        return any(_fits(value, item) for item in wanted)
    if isinstance(value, list):
        return any(_fits(item, wanted) for item in value)
    if isinstance(wanted, bool) or isinstance(value, bool):
        return read_flag(value) is read_flag(wanted)
    return _plain(value) == _plain(wanted)


def _passes(value: Any, name: str, argument: Any) -> bool:
    if name == "not":
        return not _fits(value, argument)
    if name == "empty":
        return (value in (None, "", [], {})) is argument
    if name in ("contains", "starts_with"):
        parts = [_plain(part) for part in (argument if isinstance(argument, list) else [argument])]
        texts = [_plain(text) for text in (value if isinstance(value, list) else [value])]
        inside = str.__contains__ if name == "contains" else str.startswith
        return any(inside(text, part) for text in texts for part in parts)
    try:
        # An answer counts as a number in the form that people type: 25.000 € is more than 10000.
        number = read_number(value)
    except ValueError:
        return False
    return bool(number > argument if name == "above" else number < argument)


def _plain(value: Any) -> str:
    return str(value if value is not None else "").casefold().strip()
