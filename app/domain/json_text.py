"""Parses JSON from strangers: strictly, and without recursion that they could exhaust."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 64
"""Deeper JSON is not a webhook of meetergo, and not a valid request."""
_LONGEST_NUMBER = 400
"""Digits; Python itself stops at 4,300. A longer number is kept as text."""
_TOKEN = re.compile(
    r"[ \t\n\r]*(?:(?P<mark>[{}\[\],:])"
    r'|(?P<text>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(?P<plain>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null))"
)


class NotJson(ValueError):
    """The body is not JSON."""


class TooDeep(ValueError):
    """The body is JSON, but nested deeper than MAX_DEPTH."""

    def __init__(self, kept: str) -> None:
        super().__init__(f"the body is nested deeper than {MAX_DEPTH}")
        self.kept = kept
        """The JSON text, without the value of any `secret`."""


def parse_json(body: bytes) -> Any:
    """Parse UTF-8 JSON without NaN. Raises NotJson, or TooDeep if it is nested too deeply."""
    try:
        text = body.decode("utf-8")
        document = json.loads(text, parse_constant=_refuse, parse_int=_whole_number)
    except RecursionError:
        raise TooDeep(_without_secrets(text)) from None
    except ValueError:
        raise NotJson("the body is not JSON") from None
    if _is_deep(document):
        raise TooDeep(_without_secrets(text))
    return document


def _refuse(name: str) -> None:
    raise ValueError(name)


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else digits


def _is_deep(document: Any) -> bool:
    """Whether the document is nested too deeply, checked layer by layer."""
    layer = [document]
    for _ in range(MAX_DEPTH):
        layer = [
            child
            for node in layer
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not layer:
            return False
    return True


def _without_secrets(text: str) -> str:
    """Return the JSON text without the values of `secret`, at any depth. Raises NotJson."""
    kept: list[str] = []
    level: int | None = None
    """The depth of the object whose secret is being left out at the moment."""
    for token, depth, is_key in _tokens(text):
        if level is not None and not (depth == level and token in (",", "}")):
            continue
        level = None
        kept.append(token)
        if is_key and json.loads(token) == "secret":
            kept.append(':""')
            level = depth
    return "".join(kept)


_VALUE = {"{": "key or }", "[": "value or ]", "text": "more", "plain": "more"}
_GRAMMAR: dict[str, dict[str, str]] = {
    "value": _VALUE,
    "value or ]": {**_VALUE, "]": "more"},
    "key": {"text": ":"},
    "key or }": {"text": ":", "}": "more"},
    ":": {":": "value"},
    "more": {",": ",", "]": "more", "}": "more"},
}
"""Expected item -> item that comes -> item expected after it (RFC 8259)."""
_OPENS = {"}": "{", "]": "["}


def _tokens(text: str) -> Iterator[tuple[str, int, bool]]:
    """Give each token, the number of open brackets before it, and if it is a key. Raises NotJson."""
    brackets: list[str] = []
    awaited, at = "value", 0
    while awaited != "end":
        found = _TOKEN.match(text, at)
        kind = found.lastgroup if found else None
        if found is None or kind is None:
            raise NotJson("the body is not JSON")
        at, token = found.end(), found[kind]
        depth, is_key = len(brackets), awaited in ("key", "key or }") and kind == "text"
        awaited = _step(awaited, token if kind == "mark" else kind, brackets)
        yield token, depth, is_key
    if text[at:].strip(" \t\n\r"):
        raise NotJson("the body is not JSON")


def _step(awaited: str, came: str, brackets: list[str]) -> str:
    then = _GRAMMAR[awaited].get(came)
    if then is None or (came in _OPENS and brackets.pop() != _OPENS[came]):
        raise NotJson("the body is not JSON")
    if came in ("{", "["):
        brackets.append(came)
    if then == ",":
        return ("key" if brackets[-1] == "{" else "value") if brackets else "end"
    return "end" if then == "more" and not brackets else then
