"""Conditions under `when`: keys are paths, so that there is no expression language to learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.mapping.paths import check_path, resolve

Condition = Mapping[str, Any]
_GROUPS = ("any", "all")
_TESTS = ("not", "contains", "starts_with", "above", "below", "empty")


def check_condition(condition: Any) -> dict[str, Any]:
    """Give a condition back; raise ValueError in words where it cannot be understood."""
    if not isinstance(condition, Mapping):
        raise ValueError("a condition is a list of `path: value`")
    for key, wanted in condition.items():
        if key in _GROUPS:
            if not isinstance(wanted, list) or not wanted:
                raise ValueError(f"{key} takes a list of conditions")
            for part in wanted:
                check_condition(part)
        else:
            check_path(str(key))
            _check_wanted(wanted)
    return dict(condition)


def _check_wanted(wanted: Any) -> None:
    if isinstance(wanted, list):
        for item in wanted:
            _check_wanted(item)
    elif isinstance(wanted, Mapping):
        name, argument = next(iter(wanted.items()), (None, None))
        if len(wanted) != 1 or name not in _TESTS:
            raise ValueError(f"there is no test {dict(wanted)!r}; there are: {', '.join(_TESTS)}")
        if name == "not":
            _check_wanted(argument)
        elif name == "empty" and not isinstance(argument, bool):
            raise ValueError("empty takes true or false")
        elif name in ("above", "below") and not _is_number(argument):
            raise ValueError(f"{name} takes a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def paths_of(condition: Condition) -> Iterator[str]:
    """Every path that a condition looks at."""
    for key, wanted in condition.items():
        if key in _GROUPS:
            for part in wanted:
                yield from paths_of(part)
        else:
            yield key


def holds(condition: Condition, context: Mapping[str, Any]) -> bool:
    """Whether every line of a checked condition holds."""
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
        return value is wanted
    return _plain(value) == _plain(wanted)


def _passes(value: Any, name: str, argument: Any) -> bool:
    if name == "not":
        return not _fits(value, argument)
    if name == "empty":
        return (value in (None, "", [])) is argument
    if name == "contains":
        texts = value if isinstance(value, list) else [value]
        return any(_plain(argument) in _plain(text) for text in texts)
    if name == "starts_with":
        return _plain(value).startswith(_plain(argument))
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return bool(number > argument if name == "above" else number < argument)


def _plain(value: Any) -> str:
    return str(value if value is not None else "").casefold().strip()
