"""What a line of the log may hold: only the keys listed here, each with a form that its value must have.

A value that has another form, and the value of any other key, is hidden. So a new key shows nothing
until somebody has thought about it, and put it on the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

HIDDEN = "[hidden]"
LONGEST_TEXT = 300
MOST_ITEMS = 50
"""The most items of a list that are written."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:\[\]/-]{1,200}")
_PLACE = re.compile(r"[\w./<>-]{1,200}:\d{1,7}")
_FRAME = re.compile(r"[\w./<>-]{1,200}:\d{1,7} [\w<>]{1,100}")
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)'[^']*'|“[^”]*”|„[^“”]*[“”]|‘[^’]*’|«[^»]*»")
_LONG = re.compile(r"[A-Za-z0-9_+=-]{40,}")
_DIGITS = re.compile(r"(?<!\d)(?!\d{4}-\d\d-\d\d)\+?\d(?:[ ()/-]?\d){6,}")
"""Seven digits or more that are no day."""


def _identifier(value: Any) -> Any:
    """An id or a name that this service gave: no text of a person has this form with an @ or blanks."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else HIDDEN


def _number(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else HIDDEN


def _id(value: Any) -> Any:
    """A row's number, or an identifier."""
    return value if isinstance(value, int) else _identifier(value)


def _place(value: Any) -> Any:
    return value if isinstance(value, str) and _PLACE.fullmatch(value) else HIDDEN


def _frame(value: Any) -> Any:
    return value if isinstance(value, str) and _FRAME.fullmatch(value) else HIDDEN


def _sentence(value: Any) -> Any:
    """A sentence of this service's own, without what it quotes from elsewhere."""
    return cut(_QUOTED.sub("…", without_people(value))) if isinstance(value, str) else HIDDEN


def _configured(value: Any) -> Any:
    """A text about a file or a setting, which may name its keys and fields in quotes."""
    return cut(without_people(value)) if isinstance(value, str) else HIDDEN


def _each(form: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        return [form(item) for item in value[:MOST_ITEMS]] if isinstance(value, list) else HIDDEN

    return read


SHOWN: Mapping[str, Callable[[Any], Any]] = {
    # About the line and the process.
    "timestamp": _identifier, "level": _identifier, "event": _identifier,
    "process": _identifier, "pid": _number, "version": _identifier,
    # What the line is about. A booking's key is its source's name and meetergo's id for it.
    "request_id": _identifier, "event_id": _id, "event_ids": _each(_id), "booking": _identifier,
    "booking_id": _id, "delivery_id": _id, "connection_id": _id, "entry_id": _id, "notice_id": _id,
    "provider": _identifier, "source": _identifier, "object": _identifier, "logger": _identifier,
    "trace_id": _identifier,
    # What happened.
    "reason": _sentence, "text": _sentence, "advice": _configured, "problem": _configured,
    "kind": _identifier, "code": _identifier, "status": _id, "state": _identifier,
    "place": _place, "page": _number, "trace": _each(_frame), "error_id": _identifier,
    "mapping_version": _identifier, "version_in_use": _identifier,
    "method": _identifier, "route": _configured, "address": _configured,
    # How much.
    "number": _number, "seconds": _number, "milliseconds": _number, "tries": _number,
    "failures": _number, "bookings": _number, "webhooks": _number, "days": _number,
    "deleted": _number, "times": _number,
}  # fmt: skip
"""Key -> how its value is checked before it is written."""


def shown(key: str, value: Any) -> Any:
    """Return the value as it may be written under this key."""
    if value is None:
        return None
    form = SHOWN.get(key)
    return form(value) if form else HIDDEN


def without_people(text: str) -> str:
    """Return a text without addresses of people and of pages, phone numbers, tokens and line ends."""
    plain = " ".join(text.split())
    for pattern in (_ADDRESS, _EMAIL, _LONG, _DIGITS):
        plain = pattern.sub("…", plain)
    return plain


def cut(text: str) -> str:
    """Return a text that is no longer than a line of the log should be."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
