"""Spans of OpenTelemetry, if config/observe.py has turned them on; otherwise they cost nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

_VERSION = re.compile(r"v\d+(\.\d+)?")
_WORD = re.compile(r"[a-z][a-z_-]{0,40}")
_OBJECT = re.compile(r"[A-Z][A-Za-z_]{0,40}")

_start: Callable[..., AbstractContextManager[Any]] | None = None


def use(start: Callable[..., AbstractContextManager[Any]] | None) -> None:
    """Begin spans with `start`, which is a tracer's `start_as_current_span`; None: no spans."""
    global _start  # noqa: PLW0603 - one tracer a process
    _start = start


def span(name: str, **attributes: str | int | list[int] | None) -> AbstractContextManager[Any]:
    """Measure a block as a span, which the block gets; it gets None if there are no spans.

    `attributes`: ids that this service gave, hosts, patterns of paths and numbers; never a value
    that is about a person. In a key, `__` stands for a dot.
    """
    return nullcontext() if _start is None else _measured(_start, name, attributes)


@contextmanager
def _measured(
    start: Callable[..., AbstractContextManager[Any]], name: str, attributes: dict[str, Any]
) -> Iterator[Any]:
    given = {
        key.replace("__", "."): value for key, value in attributes.items() if value is not None
    }
    # The texts of exceptions may quote people: only the kind is noted.
    quiet = {"record_exception": False, "set_status_on_exception": False}
    with start(name, attributes=given, **quiet) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            raise


def pattern_of(path: str) -> str:
    """Return the pattern of a path: whatever may be an id or a value is `{id}`; no query.

    Words in lower case and versions stay, and Salesforce's names of objects behind `sobjects`.
    """
    parts = path.partition("?")[0].partition("#")[0].split("/")
    found = []
    for before, part in zip(["", *parts], parts, strict=False):
        forms = [_WORD, _VERSION, *([_OBJECT] if before == "sobjects" else [])]
        known = not part or any(form.fullmatch(part) for form in forms)
        found.append(part if known else "{id}")
    return "/".join(found)
