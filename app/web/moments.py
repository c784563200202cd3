"""Times on pages: in the viewer's zone, with weekday and zone, and exact for machines."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote
from zoneinfo import ZoneInfo, available_timezones

from flask import has_request_context, request
from markupsafe import Markup

ZONE_COOKIE = "zone"
"""Set by app.js: the name of the browser's zone, such as Europe/Berlin."""
NO_TIME = ""


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def viewer_zone() -> ZoneInfo:
    """The zone of the viewer's browser; UTC until it has said one, and for any other text."""
    name = unquote(request.cookies.get(ZONE_COOKIE, "")) if has_request_context() else ""
    # The names of zones are names of files: only a listed one is opened.
    return ZoneInfo(name if name in _zones() else "UTC")


def say_moment(moment: datetime | str | None) -> Markup | str:
    """A `<time>` in the viewer's zone, such as Sat 28 Nov 2026, 10:00 CET; nothing for None.

    `moment`: aware, or the same in ISO 8601.
    """
    return _say(moment, "%a %-d %b %Y, %H:%M %Z")


def say_second(moment: datetime | str | None) -> Markup | str:
    """The same with its seconds."""
    return _say(moment, "%a %-d %b %Y, %H:%M:%S %Z")


def say_day(moment: datetime | str | None) -> Markup | str:
    """The day alone, such as Sat 28 Nov 2026."""
    return _say(moment, "%a %-d %b %Y")


def _say(moment: datetime | str | None, form: str) -> Markup | str:
    if moment is None or moment == "":
        return NO_TIME
    exact = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    shown = exact.astimezone(viewer_zone())
    machine = exact.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(machine, shown.strftime(form))
