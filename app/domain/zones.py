"""Reads time zone names as people, browsers and Windows write them: tz database, CLDR."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

from babel.core import get_global

from app.domain.text import one_line

_CLOCK = re.compile(r"[CEMW]ET|[EMH]ST|[CEMP]ST\d[CEMP]DT|Factory")
"""Names in the tz database that mean a clock, not a place: CET is not Belgium, EST is not Panama."""
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])(\d{1,2})(?::?00)?")
_SEASONS = (datetime(2026, 1, 1), datetime(2026, 7, 1))  # noqa: DTZ001 - times on the wall
_FARTHEST = {"+": 14, "-": 12}


def read_zone(value: object) -> str | None:
    """Return the tz database's present name of a zone in any spelling; None if there is no such zone.

    Older names (Asia/Calcutta), the names of Windows (CLDR's windowsZones), other case, blanks, and
    whole hours such as UTC+2 are understood.
    """
    name = _folded(value)
    return _names().get(name) or _of_windows(name) or _of_offset(name)


def country_of_zone(value: object) -> str | None:
    """Return the ISO country of a zone in any spelling; None if the zone names no place."""
    return _countries().get(read_zone(value) or "")


def may_lie_in(value: object, country: str) -> bool:
    """Whether a Windows zone, which spans countries, has the clock of that ISO country as well."""
    zone = _of_windows(_folded(value))
    if zone is None:
        return False
    there = (name for name, place in _countries().items() if place == country)
    return any(_clock(zone) == _clock(name) for name in there)


def zone_label(zone: str) -> str:
    """Return a zone's name for people: UTC+2 for Etc/GMT-2 of the tz database, else its own name."""
    found = re.fullmatch(r"Etc/GMT([+-])([1-9]\d?)", zone)
    return f"UTC{'-' if found[1] == '+' else '+'}{found[2]}" if found else zone


def _folded(value: object) -> str:
    text = re.sub(r"\s*([/+-])\s*", r"\1", one_line(value) or "")
    return text.replace(" ", "_").casefold()


def _of_windows(name: str) -> str | None:
    return _windows().get(re.sub(r"_(?:daylight|summer)_time$", "_standard_time", name))


def _of_offset(name: str) -> str | None:
    found = _OFFSET.fullmatch(name)
    if not found or int(found[2]) > _FARTHEST[found[1]]:
        return None
    # POSIX counts hours west of Greenwich, people count hours east of it.
    return f"Etc/GMT{'-' if found[1] == '+' else '+'}{int(found[2])}" if int(found[2]) else "UTC"


def _clock(zone: str) -> tuple[object, ...]:
    return tuple(moment.replace(tzinfo=ZoneInfo(zone)).utcoffset() for moment in _SEASONS)


def _table(name: str) -> list[str]:
    text = (resources.files("tzdata") / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@lru_cache(maxsize=1)
def _countries() -> dict[str, str]:
    """Return zone -> ISO country: tzdata/zoneinfo/zone.tab has every place under its present name."""
    rows = (line.split("\t") for line in _table("zoneinfo/zone.tab"))
    return {row[2]: row[0] for row in rows}


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Return every name of the tz database, folded -> the name in zone.tab for the same place.

    CLDR comes before the tz database's own links: these join places with one clock (Iceland is
    linked to Abidjan).
    """
    lines = (line.split() for line in _table("zoneinfo/tzdata.zi"))
    links = {line[2]: line[1] for line in lines if line[0] == "L"}
    aliases = get_global("zone_aliases")

    def present(name: str) -> str:
        if name in _countries() or _CLOCK.fullmatch(name):
            return name
        target = aliases.get(name, name)
        while target not in _countries() and target in links:
            target = links[target]
        return target if target in _countries() else name

    return {name.casefold(): present(name) for name in _table("zones") if name != "Factory"}


@lru_cache(maxsize=1)
def _windows() -> dict[str, str]:
    """Return Windows' names, folded -> zone. https://cldr.unicode.org,
    common/supplemental/windowsZones.xml."""
    table = get_global("windows_zone_mapping")
    read = ((_folded(name), _names().get(zone.casefold())) for name, zone in table.items())
    return {name: zone for name, zone in read if zone}


def local(moment: datetime, zone: str) -> datetime:
    """Return a UTC time as a clock in the zone shows it."""
    return moment.astimezone(ZoneInfo(zone))
