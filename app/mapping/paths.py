"""Paths into a booking (`attendee.email`, `answers["Budget"]`): what exists and what stands there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from app.domain.booking import Attendee, Booking, Host

_ATTENDEE = ("id", "email", "first_name", "last_name", "full_name", "display_name", "phone",
             "phone_as_given", "timezone", "language", "company_domain")  # fmt: skip
_BOOKING = ("id", "status", "cancelled", "rescheduled", "start", "end", "minutes", "timezone",
            "location", "link", "channel", "created_at", "updated_at", "cancel_reason",
            "cancelled_by")  # fmt: skip
_HOST = ("id", "email", "first_name", "last_name", "full_name")
_MEETING_TYPE = ("id", "slug", "name")
FIXED = frozenset(
    f"{root}.{name}"
    for root, names in (
        ("attendee", _ATTENDEE),
        ("booking", _BOOKING),
        ("host", _HOST),
        ("meeting_type", _MEETING_TYPE),
    )
    for name in names
)
NAME_PATHS = frozenset(f"attendee.{n}" for n in ("first_name", "last_name", "full_name"))
_OPEN = re.compile(r"""(answers|meeting_type\.metadata)(?:\.([\w-]+)|\[(["'])(.+)\3\])""")


def check_path(path: str) -> str:
    """Give the path back; raise ValueError naming the nearest one where there is no such path."""
    if path in FIXED or _OPEN.fullmatch(path):
        return path
    near = difflib.get_close_matches(path, FIXED, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no path {path!r}{hint}")


def build_context(booking: Booking, attendee: Attendee) -> dict[str, Any]:
    """What templates and paths see: the booking, one attendee, the first host, type and answers."""
    host = booking.hosts[0] if booking.hosts else Host()
    kind = booking.meeting_type
    return {
        "attendee": {name: getattr(attendee, name) for name in _ATTENDEE},
        "booking": {name: getattr(booking, name) for name in _BOOKING},
        "host": {name: getattr(host, name) for name in _HOST},
        "meeting_type": {name: getattr(kind, name) for name in _MEETING_TYPE}
        | {"metadata": dict(kind.metadata)},
        "answers": all_answers(booking),
    }


def all_answers(booking: Booking) -> dict[str, str]:
    """Every attendee's answers; the first who answered a question counts."""
    answers: dict[str, str] = {}
    for person in booking.attendees:
        for label, text in person.answers.items():
            answers.setdefault(label, text)
    return answers


def resolve(path: str, context: Mapping[str, Any]) -> Any:
    """The value at a checked path; None where the booking has none. Labels match in any case."""
    free = _OPEN.fullmatch(path)
    if not free:
        root, _, name = path.partition(".")
        return context[root][name]
    table = context["answers"] if free[1] == "answers" else context["meeting_type"]["metadata"]
    wanted = _plain(free[2] or free[4])
    return next((value for label, value in table.items() if _plain(label) == wanted), None)


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())
