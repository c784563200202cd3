"""Time zones are recognised under all their names."""

from __future__ import annotations

from importlib import resources
from zoneinfo import ZoneInfo

import pytest
from babel.core import get_global
from hypothesis import given
from hypothesis import strategies as st

from app.domain.people import country_of, normalise_phone
from app.domain.zones import country_of_zone, read_zone, zone_label


def lines(name: str) -> list[str]:
    text = (resources.files("tzdata") / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


PLACES = {row.split("\t")[2]: row.split("\t")[0] for row in lines("zoneinfo/zone.tab")}
LINKS = [line.split()[1:3] for line in lines("zoneinfo/tzdata.zi") if line.startswith("L ")]
WINDOWS = get_global("windows_zone_mapping")


@pytest.mark.parametrize(
    ("older", "present", "country"),
    [
        ("Asia/Calcutta", "Asia/Kolkata", "IN"),
        ("Europe/Kiev", "Europe/Kyiv", "UA"),
        ("Asia/Saigon", "Asia/Ho_Chi_Minh", "VN"),
        ("Asia/Katmandu", "Asia/Kathmandu", "NP"),
        ("Asia/Rangoon", "Asia/Yangon", "MM"),
        ("America/Buenos_Aires", "America/Argentina/Buenos_Aires", "AR"),
        ("America/Indianapolis", "America/Indiana/Indianapolis", "US"),
        ("US/Eastern", "America/New_York", "US"),
        ("Atlantic/Faeroe", "Atlantic/Faroe", "FO"),
        ("Europe/Belfast", "Europe/London", "GB"),
        # The tz database links these to a place in another country.
        ("Iceland", "Atlantic/Reykjavik", "IS"),
        ("Africa/Asmera", "Africa/Asmara", "ER"),
        ("Pacific/Truk", "Pacific/Chuuk", "FM"),
        # zone.tab keeps it separate, though the tz database links it to Berlin.
        ("Europe/Stockholm", "Europe/Stockholm", "SE"),
    ],
)
def test_older_names(older: str, present: str, country: str) -> None:
    """An old name in the tz database gives today's name of the same place."""
    assert (read_zone(older), country_of_zone(older)) == (present, country)


def test_every_link_is_the_same_clock() -> None:
    """Every name in the tz database is read, and keeps its time."""
    for target, name in LINKS:
        zone = read_zone(name)
        assert zone is not None, name
        assert ZoneInfo(zone).key in (name, target, *PLACES)
        if zone not in (name, target):
            assert country_of_zone(name) == PLACES[zone]


def test_every_place_has_its_country() -> None:
    """Each zone of zone.tab stays itself and has the country from that file."""
    assert {zone: (read_zone(zone), country_of_zone(zone)) for zone in PLACES} == {
        zone: (zone, country) for zone, country in PLACES.items()
    }


def test_every_windows_name_is_a_zone() -> None:
    """Each name of CLDR's windowsZones gives a zone, with the country if the name is a place."""
    assert len(WINDOWS) > 130
    for name, target in WINDOWS.items():
        zone = read_zone(name)
        assert zone in (read_zone(target), name), name
        assert country_of_zone(name) or str(zone).startswith(("Etc/", "UTC")), name


@pytest.mark.parametrize(
    ("typed", "zone"),
    [
        (" europe/berlin ", "Europe/Berlin"),
        ("America / New York", "America/New_York"),
        ("w. europe daylight time", "Europe/Berlin"),
        ("W. Europe Summer Time", "Europe/Berlin"),
        ("UTC", "UTC"),
        ("utc", "UTC"),
        ("GMT+0", "GMT+0"),
        ("UTC+2", "Etc/GMT-2"),
        ("gmt -05:00", "Etc/GMT+5"),
        ("+02:00", "Etc/GMT-2"),
        ("Etc/GMT+5", "Etc/GMT+5"),
        ("UTC+15", None),
        ("UTC+5:30", None),
        ("Mars/Olympus", None),
        ("Factory", None),
        ("localtime", None),
        ("../etc/passwd", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_sloppy_names(typed: object, zone: str | None) -> None:
    """Any case, blanks and whole-hour offsets are read; half hours and other texts are not."""
    assert read_zone(typed) == zone


@pytest.mark.parametrize("name", ["CET", "MET", "EET", "EST", "MST", "EST5EDT", "UTC", "UTC+2"])
def test_a_clock_is_no_country(name: str) -> None:
    """A name that is no place gives no country; the language may give one."""
    assert country_of_zone(name) is None
    assert country_of(name, "de") == "DE"


def test_a_windows_zone_spans_countries() -> None:
    """The language chooses among the countries of a Windows zone that share its clock."""
    assert country_of("W. Europe Standard Time", "nl") == "NL"
    assert country_of("W. Europe Standard Time", "de-CH") == "CH"
    assert country_of("W. Europe Standard Time", "en-US") == "DE"
    assert country_of("W. Europe Standard Time", "en") == "DE"
    assert country_of("Europe/Berlin", "nl") == "DE"
    assert normalise_phone("06 12345678", "W. Europe Standard Time", "nl") == "+31612345678"


def test_labels() -> None:
    """Offsets are shown as people write them: positive east of Greenwich."""
    assert (zone_label("Etc/GMT-2"), zone_label("Etc/GMT+11")) == ("UTC+2", "UTC-11")
    assert (zone_label("Europe/Berlin"), zone_label("Etc/GMT+0")) == ("Europe/Berlin", "Etc/GMT+0")


@given(st.text() | st.sampled_from([*PLACES, *WINDOWS]))
def test_what_is_read_exists_and_stays(text: str) -> None:
    """Every zone that is read is known to Python, and a second reading changes nothing."""
    zone = read_zone(text)
    if zone is not None:
        assert ZoneInfo(zone).key == zone
        assert read_zone(zone) == zone
