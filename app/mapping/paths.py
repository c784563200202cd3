"""Paths into a booking (`attendee.email`, `answers["Budget"]`): their kinds and their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.crm.schema import FieldKind
from app.domain.booking import Attendee, Booking, Host
from app.domain.history import History
from app.domain.text import clean_text, did_you_mean

_ROOTS: dict[str, dict[str, FieldKind]] = {
    "attendee": {
        "id": FieldKind.TEXT, "email": FieldKind.TEXT, "email_as_given": FieldKind.TEXT,
        "email_domain": FieldKind.TEXT, "first_name": FieldKind.TEXT, "last_name": FieldKind.TEXT,
        "full_name": FieldKind.TEXT, "display_name": FieldKind.TEXT, "phone": FieldKind.TEXT,
        "phone_as_given": FieldKind.TEXT, "timezone": FieldKind.TEXT, "timezone_as_given": FieldKind.TEXT,
        "language": FieldKind.TEXT, "company_domain": FieldKind.TEXT, "is_booker": FieldKind.FLAG,
        "position": FieldKind.WHOLE,
    },
    "booking": {
        "id": FieldKind.TEXT, "status": FieldKind.TEXT, "state": FieldKind.TEXT,
        "cancelled": FieldKind.FLAG,
        "rescheduled": FieldKind.FLAG, "start": FieldKind.MOMENT, "end": FieldKind.MOMENT,
        "minutes": FieldKind.WHOLE,
        "timezone": FieldKind.TEXT, "location": FieldKind.TEXT, "link": FieldKind.TEXT,
        "channel": FieldKind.TEXT,
        "created_at": FieldKind.MOMENT, "updated_at": FieldKind.MOMENT, "cancel_reason": FieldKind.TEXT,
        "cancelled_by": FieldKind.TEXT, "outcome": FieldKind.TEXT, "source": FieldKind.TEXT,
        "company_id": FieldKind.TEXT, "attendee_names": FieldKind.CHOICES,
        "attendee_emails": FieldKind.CHOICES,
        "host_names": FieldKind.CHOICES, "host_emails": FieldKind.CHOICES,
    },
    "cancel": {"reason": FieldKind.TEXT, "by": FieldKind.TEXT, "at": FieldKind.MOMENT},
    "host": {
        "id": FieldKind.TEXT, "email": FieldKind.TEXT, "email_domain": FieldKind.TEXT,
        "first_name": FieldKind.TEXT,
        "last_name": FieldKind.TEXT, "full_name": FieldKind.TEXT,
    },
    "meeting_type": {"id": FieldKind.TEXT, "slug": FieldKind.TEXT, "name": FieldKind.TEXT},
    "person": {
        "booked": FieldKind.WHOLE, "cancelled": FieldKind.WHOLE, "moved": FieldKind.WHOLE,
        "last_meeting": FieldKind.MOMENT, "next_meeting": FieldKind.MOMENT, "last_status": FieldKind.TEXT,
    },
}  # fmt: skip
KINDS = {f"{root}.{name}": kind for root, names in _ROOTS.items() for name, kind in names.items()}
"""Every fixed path -> the kind of its value."""
FIXED = frozenset(KINDS)
ROOTS = frozenset(_ROOTS) | {"answers", "link", "payload"}
"""The roots that a template may read from."""
FIXED_ROOTS = frozenset(_ROOTS)
"""Roots that have only the fixed paths, and meeting_type.metadata."""
NAME_PATHS = frozenset(
    f"attendee.{n}" for n in ("first_name", "last_name", "full_name", "display_name")
)
_OPEN = re.compile(r"""(answers|meeting_type\.metadata|link)(?:\.([\w-]+)|\[(["'])(.+)\3\])""")
_NAMED = re.compile(r"(answers|meeting_type\.metadata|link)(?:[.\[\s](.*)|$)", re.DOTALL)
"""A text that was probably meant as one of those paths."""
NAMED_ROOTS = ("answers", "meeting_type.metadata", "link")
"""Paths below which people choose the names."""
_PAYLOAD = re.compile(r"payload(?:\.[\w-]+)+")
PATTERNS = tuple(f"^{pattern.pattern}$" for pattern in (_OPEN, _PAYLOAD))
"""Patterns of paths of which only the form is known."""


def check_path(path: str, otherwise: str = "") -> str:
    """Return the path; raise ValueError with the nearest one if there is no such path.

    `otherwise`: the end of the sentence for a text that does not look like a path.
    """
    if path in FIXED or _OPEN.fullmatch(path) or _PAYLOAD.fullmatch(path):
        return path
    raise ValueError(f"there is no path {path!r}{_instead(path, otherwise)}")


def _instead(path: str, otherwise: str) -> str:
    """Return a correction for a text that is no path, as the end of a sentence."""
    named = _NAMED.match(path)
    if named:
        label = (named[2] or "").strip("[].\"'“”„‟‘’‚ ") or "…"
        return f"; write {in_quotes(asking(named[1], label))}, with both kinds of quotes"
    if "{{" in path:
        return f"; a template is written {{template: {in_quotes(path, True)}}}"
    near = did_you_mean(path, sorted(FIXED))
    known = re.split(r"[.\[]", path)[0] in ROOTS
    return near or ("" if known else otherwise)


def asking(root: str, label: str) -> str:
    """Return the path of a question, or of another root whose names people choose."""
    return f'{root}["{label}"]'


def in_quotes(text: str, double: bool = False) -> str:
    """Return a text in YAML's single quotes; `double`: in double quotes, if that needs no escapes."""
    if double and not re.search(r'["\\]', text):
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


def as_constant(text: str) -> str:
    """Return the right form of a constant that was written in place of a path."""
    plain = re.fullmatch(r"[^\W\d][\w -]*(?<! )", text)
    return f"{{value: {text if plain else in_quotes(text)}}}"


def kind_of(path: str) -> FieldKind:
    """Return the kind of value at a path; for answers and the like, only 'text' is known."""
    return KINDS.get(path, FieldKind.TEXT)


def answer_label(path: str) -> str | None:
    """Return the question in a path, in the form in which labels are compared."""
    name = answer_name(path)
    return plain_label(name) if name is not None else None


def answer_name(path: str) -> str | None:
    """Return the question in a path, as it is written there."""
    free = _OPEN.fullmatch(path)
    return (free[2] or free[4]) if free and free[1] == "answers" else None


def build_context(
    booking: Booking, attendee: Attendee, history: History | None = None, own: bool = False
) -> dict[str, Any]:
    """Return the values for templates and paths: booking, one attendee, first host, type and answers.

    `own`: only the attendee's own answers; one guest's answers do not belong on another's contact.
    """
    host = booking.hosts[0] if booking.hosts else Host()
    kind = booking.meeting_type
    people, hosts = booking.attendees, booking.hosts
    lists = {
        "attendee_names": [person.display_name for person in people],
        "attendee_emails": [person.email for person in people if person.email],
        "host_names": [h.full_name or h.email for h in hosts if h.full_name or h.email],
        "host_emails": [h.email for h in hosts if h.email],
    }
    return {
        "attendee": _read(attendee, "attendee"),
        "booking": {n: getattr(booking, n) for n in _ROOTS["booking"] if n not in lists} | lists,
        "cancel": {
            "reason": booking.cancel_reason,
            "by": booking.cancelled_by,
            "at": booking.cancelled_at,
        },
        "host": _read(host, "host"),
        "meeting_type": _read(kind, "meeting_type") | {"metadata": dict(kind.metadata)},
        "person": _read(history or History(), "person"),
        "answers": answers_of([attendee] if own else people),
        "link": dict(parse_qsl(urlsplit(booking.link or "").query)),
        "payload": booking.payload,
    }


def _read(source: object, root: str) -> dict[str, Any]:
    return {name: getattr(source, name) for name in _ROOTS[root]}


class Answers(dict[str, str | list[str]]):
    """Answers by the question's label, ignoring case and blanks, since templates also ask by label."""

    def __missing__(self, label: str) -> str | list[str]:
        wanted = plain_label(str(label))
        for known, answer in self.items():
            if plain_label(known) == wanted:
                return answer
        raise KeyError(label)

    def get(self, label: str, default: Any = None) -> Any:
        """The answer, or the default."""
        try:
            return self[label]
        except KeyError:
            return default


def answers_of(people: Iterable[Attendee]) -> Answers:
    """Return the answers of some attendees, several choices as a list; the first answer counts."""
    answers = Answers()
    for person in people:
        for label, text in person.answers.items():
            choices = person.choices.get(label)
            answers.setdefault(label, list(choices) if choices else text)
    return answers


def resolve(path: str, context: Mapping[str, Any]) -> Any:
    """Return the value at a checked path; None if the booking has none. Labels match in any case."""
    if path in FIXED:
        root, _, name = path.partition(".")
        return context[root][name]
    free = _OPEN.fullmatch(path)
    if not free:
        return _in_payload(path.split(".")[1:], context["payload"])
    table = context["meeting_type"]["metadata"] if "." in free[1] else context[free[1]]
    wanted = plain_label(free[2] or free[4])
    return next((value for label, value in table.items() if plain_label(label) == wanted), None)


def _in_payload(parts: list[str], node: Any) -> Any:
    for part in parts:
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    if isinstance(node, list):
        return [text for item in node if (text := _entry(item))]
    return node if isinstance(node, Mapping) else _scalar(node)


def _scalar(node: Any) -> Any:
    """Return text without harmful characters; None for infinity and the like, which no CRM accepts."""
    if isinstance(node, str):
        return clean_text(node)
    if isinstance(node, float) and not isfinite(node):
        return None
    return node if isinstance(node, (bool, int, float)) else None


def _entry(node: Any) -> str | None:
    value = _scalar(node)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def plain_label(label: str) -> str:
    """Return a question's label in the form for comparisons: case and blanks do not matter."""
    return " ".join(label.casefold().split())
