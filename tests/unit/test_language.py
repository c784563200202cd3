"""The mapping language: paths, transforms, conditions, coercion, and sandboxed templates."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from app.crm.objects import ObjectName
from app.crm.schema import CrmField, CrmShape, Directory, FieldKind, FieldOption
from app.domain.booking import Booking
from app.domain.errors import InvalidRecord, MappingError
from app.domain.events import read_booking, read_event
from app.mapping.coerce import coerce
from app.mapping.conditions import check_condition, holds
from app.mapping.json_schema import json_schema
from app.mapping.load import MappingText, load_mapping
from app.mapping.mapping import lay_over
from app.mapping.paths import FIXED, build_context, check_path, resolve
from app.mapping.plan import Planner
from app.mapping.templates import MAX_RESULT, check_template, render
from app.mapping.transforms import PLAIN, WITH_ARGUMENT, apply_transforms, check_transform
from config.settings import CONFIG_DIR
from tests.bridge import DATA, PROVIDERS, sample

CASES = Path(__file__).parents[1] / "cases"
NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
SHAPE = CrmShape(
    owner_fields={}, pipeline_field=None, stage_field="stage", stage_by_label=False, text_limits={}
)


def booking(name: str = "booking_created", **changes: Any) -> Booking:
    return read_booking(read_event("default", sample(name, **changes), NOW))


def context(**changes: Any) -> dict[str, Any]:
    made = booking(**changes)
    return build_context(made, made.attendees[0])


def person(**more: Any) -> dict[str, Any]:
    return {"email": "ann@globex.example", "firstname": "Ann", "lastname": "Lee", **more}


# Paths


def test_every_fixed_path_is_there() -> None:
    """Each documented path gives a value or nothing in any booking, and never an error."""
    here = context()
    for path in FIXED:
        resolve(check_path(path), here)
    assert resolve("attendee.email", here) == "jane.van.der.berg@example.com"
    assert resolve("attendee.email_domain", here) == "example.com"
    assert resolve("booking.minutes", here) == 30
    assert resolve("booking.start", here) == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert resolve("host.email", here) == "john@acme.example"
    assert resolve("meeting_type.slug", here) == "discovery-call"


def test_answers_match_whatever_case_and_blanks() -> None:
    """A question is found by its label, regardless of case and blanks, by path and by template."""
    here = context(attendees=[person(notes={"Was ist  Ihr Ziel?": "Mehr Umsatz"})])
    for label in ("Was ist Ihr Ziel?", "was ist ihr ziel?", " WAS  IST IHR ZIEL? "):
        assert resolve(check_path(f'answers["{label}"]'), here) == "Mehr Umsatz"
        assert render(f"{{{{ answers['{label}'] }}}}", here) == "Mehr Umsatz"
        assert render(f"{{{{ answers.get('{label}') }}}}", here) == "Mehr Umsatz"
    assert resolve("answers.Ziel", here) is None
    assert render("{{ answers.get('Ziel', 'keins') }}{{ answers.Ziel }}", here) == "keins"


def test_several_choices_stay_apart() -> None:
    """Several choices stay a list, and become one text in a field without lists."""
    here = context(attendees=[person(notes={"Topics": ["A, B", "C"]})])
    assert resolve("answers.Topics", here) == ["A, B", "C"]
    assert render("{{ answers.Topics }}", here) == "A, B, C"


def test_who_answered_first_counts() -> None:
    """If two attendees answered the same question, the first one's answer counts."""
    people = [person(notes={"Size": "10"}), {"email": "b@globex.example", "notes": {"size": "20"}}]
    assert resolve("answers.Size", context(attendees=people)) == "10"


def test_metadata_and_link_are_reachable() -> None:
    """A meeting type's metadata and the query of the booking link are readable."""
    kind = {"slug": "x", "metadata": {"Price": "99", "vip": True}}
    info = {"meetingLink": "https://zoom.example/j/1?deal=77&Ref=A%20b"}
    here = context(meetingType=kind, meetingInfo=info)
    assert resolve("meeting_type.metadata.price", here) == "99"
    assert resolve("meeting_type.metadata.vip", here) == "true"
    assert resolve("link.deal", here) == "77"
    assert resolve("link.ref", here) == "A b"


def test_payload_paths_reach_what_no_field_has() -> None:
    """A payload path reads any value of the message, cleaned; a missing value is nothing."""
    odd = {"utm": {"source": "ad\x00s\u202e"}, "tags": ["x", 5, True, None, {"a": 1}, "\x07"]}
    here = context(custom=odd, score=7.5, weird=math.inf, flag=True)
    assert resolve("payload.custom.utm.source", here) == "ads"
    assert resolve("payload.custom.tags", here) == ["x", "5", "true"]
    assert resolve("payload.custom.tags.1", here) == 5
    assert resolve("payload.attendees.0.email", here) == "Jane.van.der.Berg@Example.com"
    assert resolve("payload.attendees.9.email", here) is None
    assert resolve("payload.score", here) == 7.5
    assert resolve("payload.flag", here) is True
    assert resolve("payload.weird", here) is None
    assert resolve("payload.custom.nope.deeper", here) is None


def test_the_secret_is_nowhere() -> None:
    """No path and no template reaches the credential of a webhook."""
    here = context(secret="s3cr3t", meetingInfo={"secret": "s3cr3t", "channel": "zoom"})
    assert resolve("payload.secret", here) is None
    assert resolve("payload.meetingInfo.secret", here) is None
    assert "s3cr3t" not in str(apply_transforms(here["payload"], ("json",)))


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("attendee.emial", "attendee.email"),
        ("attendee", ""),
        ("booking.strt", "booking.start"),
        ("host.fullname", "host.full_name"),
        ("meeting_type.metadata", ""),
        ("answers", ""),
        ("answers[Budget]", ""),
        ("payload", ""),
        ("payload..x", ""),
        ("secret", ""),
        ("Attendee.Email", "attendee.email"),
        ("attendee.email.lower", "attendee.email"),
        ("__class__", ""),
        ("", ""),
    ],
)
def test_unknown_paths_are_refused_with_the_nearest(path: str, near: str) -> None:
    """An unknown path is refused, with the nearest existing path."""
    with pytest.raises(ValueError, match="there is no path") as caught:
        check_path(path)
    assert (f"did you mean {near}?" in str(caught.value)) is bool(near)


# Transforms

GOOD_TRANSFORMS: list[tuple[Any, tuple[Any, ...], Any]] = [
    (" A ", ("strip", "lower"), "a"),
    (["A", "B "], ("lower", "strip"), ["a", "b"]),
    ("0151 23456789", ("e164",), "+4915123456789"),
    ("+44 20 7946 0958", ("e164",), "+442079460958"),
    ("call me", ("e164",), None),
    ("1.234,50 €", ("number",), 1234.5),
    ("1,234.50", ("number",), 1234.5),
    ("25.000", ("number",), 25000),
    ("CHF 1'000", ("number",), 1000),
    ("0,5", ("number",), 0.5),
    ("-3", ("number",), -3),
    (7, ("number",), 7),
    (NOW, ("date",), "2026-11-24"),
    (NOW, ("time",), "08:30"),
    (NOW, ("datetime",), "2026-11-24 08:30"),
    (NOW, ("iso",), "2026-11-24T08:30:00Z"),
    ("2026-11-24T09:30:00+01:00", ("iso",), "2026-11-24T08:30:00Z"),
    (NOW, ({"tz": "Europe/Berlin"}, "datetime"), "2026-11-24 09:30"),
    (NOW, ({"tz": "booking"}, "time"), "09:30"),
    (NOW, ({"tz": "Asia/Tokyo"}, {"date": "%d.%m.%Y"}), "24.11.2026"),
    (NOW, ({"time": "%H Uhr"},), "08 Uhr"),
    (NOW, ({"datetime": "%d.%m. %H:%M"},), "24.11. 08:30"),
    ("24.11.2026", ("date",), "2026-11-24"),
    ("2026-11-24", ({"tz": "America/New_York"}, "date"), "2026-11-24"),
    (NOW, ({"add_days": 30}, "date"), "2026-12-24"),
    (NOW, ({"add_days": -24}, "date"), "2026-10-31"),
    (90, ("hh_mm",), "01:30"),
    (["", None, "B", "C"], ("first_of",), "B"),
    (["A", "", "B"], ("join",), "A, B"),
    (["A", "B"], ({"join": " / "},), "A / B"),
    ("Demo", ({"map": {"demo": "DEMO_CALL"}},), "DEMO_CALL"),
    (["a", "b"], ({"map": {"A": "x", "B": "y"}},), ["x", "y"]),
    (True, ({"map": {True: "yes", False: "no"}},), "yes"),
    (True, ({"map": {"True": "yes", "False": "no"}},), "yes"),
    (None, ({"default": "unknown"},), "unknown"),
    ("", ({"default": 5},), 5),
    ("there", ({"default": "unknown"},), "there"),
    ("abcdef", ({"truncate": 3},), "ab…"),
    ("abc", ({"truncate": 3},), "abc"),
    ("<p>Hello<br>you &amp; me</p><script>x()</script>", ("strip_html",), "Hello\nyou & me"),
    ("<SCRIPT a='b'>evil</SCRIPT >ok", ("strip_html",), "ok"),
    ("a < b and c > d", ("strip_html",), "a  d"),
    ({"b": [1, "ü"], "a": None}, ("json",), '{"a": null, "b": [1, "ü"]}'),
    (None, ("lower", "strip", "number", "json"), None),
    ([], ({"join": ","}, {"default": "none"}), "none"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "specs", "result"), GOOD_TRANSFORMS)
def test_transforms(value: Any, specs: tuple[Any, ...], result: Any) -> None:
    """Each transform does what docs/mappings.md says; an empty value stays empty."""
    for spec in specs:
        check_transform(spec)
    assert apply_transforms(value, specs, "Europe/Berlin") == result


def test_every_transform_has_an_example_here() -> None:
    """Every transform is tested here."""
    named = {
        spec if isinstance(spec, str) else next(iter(spec))
        for _, specs, _ in GOOD_TRANSFORMS
        for spec in specs
    }
    assert {*PLAIN, *WITH_ARGUMENT} - named == set(), "add rows for these to GOOD_TRANSFORMS"


BAD_VALUES: list[tuple[Any, tuple[Any, ...], str]] = [
    ("soon", ("date",), "'soon' is not a time"),
    ("1/2/2027", ("date",), "not a time"),
    ("31.02.2026", ("date",), "not a time"),
    ("9999-12-31T23:59:59-12:00", ("iso",), "not a time"),
    ("0001-01-01", ({"tz": "America/New_York"}, "date"), "not a time"),
    (5, ("time",), "not a time"),
    ("a few", ("number",), "'a few' is not a number"),
    ("5-10", ("number",), "not a number"),
    ("9" * 5000, ("number",), "not a number"),
    ("1.2.3,4,5", ("number",), "not a number"),
    (math.inf, ("number",), "not a number"),
    (math.nan, ("number",), "not a number"),
    (True, ("number",), "not a number"),
    (-5, ("hh_mm",), "minutes"),
    ("x", ("hh_mm",), "not a number"),
    (10**9, ("hh_mm",), "minutes"),
    ("Other", ({"map": {"a": 1}},), "'Other' is not among a"),
    ({"a": 1}, ("lower",), "table"),
    ({"a": 1}, ({"truncate": 5},), "table"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "specs", "words"), BAD_VALUES)
def test_values_that_do_not_fit_are_refused(value: Any, specs: tuple[Any, ...], words: str) -> None:
    """A value that a transform cannot read gives a short error in words, whatever was typed."""
    with pytest.raises(ValueError, match=words) as caught:
        apply_transforms(value, specs)
    assert len(str(caught.value)) < 200
    assert "Error" not in str(caught.value)


def test_deep_tables_do_not_break_json() -> None:
    """A message with a deeply nested table fails that field alone."""
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested too deeply"):
        apply_transforms(deep, ("json",))


BAD_TRANSFORMS: list[tuple[Any, str]] = [
    ("uper", "there is no transform 'uper'"),
    ("strip_htm", "did you mean strip_html"),
    ("truncate", "the transform 'truncate' needs a value"),
    ({"lower": 5}, "lower takes no argument; it is written lower alone"),
    ({"truncate": "5"}, "truncate does not take '5'"),
    ({"truncate": True}, "truncate does not take True"),
    ({"truncate": 0}, "above 0"),
    ({"add_days": 10**9}, "at most"),
    ({"add_days": 1.5}, "does not take"),
    ({"tz": "Berlin"}, "there is no time zone 'Berlin'"),
    ({"tz": "Europe/Berln"}, "did you mean Europe/Berlin"),
    ({"map": ["a"]}, "map does not take"),
    ({"map": {}}, "map does not take"),
    ({"map": {"a": {"b": 1}}}, "map does not take"),
    ({"default": {"a": 1}}, "default does not take"),
    ({"join": 5}, "join does not take 5"),
    ({"date": "%Y", "time": "%H"}, "there is no transform"),
    ({}, "there is no transform"),
    (5, "there is no transform"),
    (None, "there is no transform"),
    (["lower"], "there is no transform"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "words"), BAD_TRANSFORMS)
def test_wrong_transforms_are_refused(spec: Any, words: str) -> None:
    """An unknown transform or a wrong argument is refused at load."""
    with pytest.raises(ValueError, match=words):
        check_transform(spec)


moments = st.integers(-30_000_000_000, 220_000_000_000).map(
    lambda s: datetime.fromtimestamp(s, UTC)
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | moments
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
transforms = st.sampled_from(
    [
        *PLAIN, {"truncate": 3}, {"add_days": 36_500}, {"add_days": -36_500}, {"map": {"x": "y"}},
        {"default": "z"}, {"tz": "Pacific/Apia"}, {"tz": "booking"}, {"date": "%x %c %U"},
        {"time": "%%"}, {"datetime": "%s"}, {"join": "-"},
    ]
)  # fmt: skip


@given(anything, st.lists(transforms, max_size=4))
def test_transforms_never_break(value: Any, specs: list[Any]) -> None:
    """Any value and any chain of transforms give a value or a ValueError."""
    try:
        apply_transforms(value, tuple(specs))
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "<script" * 30_000,
        "<script>" * 30_000,
        "<" * 200_000,
        "<br " * 60_000,
        "</script   " * 20_000,
        "<style><script>" * 14_000,
        "&" * 200_000,
        "<b" + " " * 200_000,
    ],
    ids=lambda text: text[:12],
)
def test_long_answers_cost_no_more_than_they_are_long(text: str) -> None:
    """No text of a stranger makes strip_html run for minutes."""
    began = time.process_time()
    apply_transforms(text, ("strip_html",))
    assert time.process_time() - began < 2


# Conditions

CONDITIONS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"attendee.email": "JANE.van.der.berg@example.com "}, True),
    ({"attendee.email": "other@example.com"}, False),
    ({"attendee.email_domain": ["acme.example", "example.com"]}, True),
    ({"attendee.email_domain": ["acme.example"]}, False),
    ({"attendee.email_domain": {"not": "example.com"}}, False),
    ({"attendee.email_domain": {"not": ["a.example", "b.example"]}}, True),
    ({"attendee.email": {"contains": "@EXAMPLE"}}, True),
    ({"attendee.email": {"contains": ["@gmail.", "@example."]}}, True),
    ({"attendee.email": {"contains": "@gmail."}}, False),
    ({"attendee.email": {"starts_with": ["bob", "jane"]}}, True),
    ({"attendee.email": {"starts_with": "example"}}, False),
    ({"booking.minutes": {"above": 29}}, True),
    ({"booking.minutes": {"above": 30}}, False),
    ({"booking.minutes": {"below": 30.5}}, True),
    ({"booking.minutes": 30}, True),
    ({"booking.minutes": "30"}, True),
    ({"answers.Budget": {"above": 10_000}}, True),
    ({"answers.Budget": {"below": 10_000}}, False),
    ({"answers.Wish": {"above": 0}}, False),
    ({"answers.Nothing": {"above": 0}}, False),
    ({"answers.Nothing": {"below": 5}}, False),
    ({"answers.Nothing": {"empty": True}}, True),
    ({"answers.Nothing": ""}, True),
    ({"answers.Nothing": None}, True),
    ({"answers.Nothing": {"not": ""}}, False),
    ({"answers.Budget": {"empty": True}}, False),
    ({"answers.Budget": {"empty": False}}, True),
    ({"answers.budget": {"empty": False}}, True),
    ({"answers.Topics": "sales"}, True),
    ({"answers.Topics": {"contains": "sal"}}, True),
    ({"answers.Topics": {"starts_with": "mark"}}, True),
    ({"answers.Topics": {"not": "support"}}, True),
    ({"answers.Topics": {"not": "Sales"}}, False),
    ({"answers.Topics": ["Support", "Sales"]}, True),
    ({"answers.Newsletter": True}, True),
    ({"answers.Newsletter": False}, False),
    ({"answers.Newsletter": "yes"}, True),
    ({"attendee.is_booker": True}, True),
    ({"attendee.is_booker": "yes"}, True),
    ({"attendee.is_booker": "no"}, False),
    ({"attendee.is_booker": {"not": True}}, False),
    ({"booking.cancelled": False, "booking.state": "created"}, True),
    ({"booking.state": ["rescheduled", "cancelled"]}, False),
    ({"booking.host_emails": "john@acme.example"}, True),
    ({"payload.vip": True}, True),
    ({"payload.table": {"empty": True}}, True),
    ({"any": [{"booking.state": "cancelled"}, {"booking.minutes": 30}]}, True),
    ({"any": [{"booking.state": "cancelled"}, {"booking.minutes": 31}]}, False),
    ({"all": [{"booking.state": "created"}, {"booking.minutes": 30}]}, True),
    ({"all": [{"booking.state": "created"}, {"booking.minutes": 31}]}, False),
    ({"any": [{"all": [{"booking.minutes": 1}]}, {"any": [{"booking.minutes": 30}]}]}, True),
    ({"booking.minutes": 30, "any": [{"booking.minutes": 31}]}, False),
    ({"answers.Budget": {"not": {"above": 10_000}}}, False),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "result"), CONDITIONS, ids=str)
def test_conditions(condition: dict[str, Any], result: bool) -> None:
    """All lines of a condition must hold; text is compared without case, numbers as people type them."""
    notes = {"Budget": "25.000 €", "Topics": ["Marketing", "Sales"], "Newsletter": True,
             "Wish": "as much as it takes"}  # fmt: skip
    payload = sample("booking_created", vip=True, table={})
    payload["attendees"][0]["notes"] = notes
    here = context(**payload)
    assert holds(check_condition(condition), here) is result


BAD_CONDITIONS: list[tuple[Any, str]] = [
    (None, "a condition is"),
    ("booking.state: created", "a condition is"),
    (["booking.state"], "a condition is"),
    ({"booking.stat": "created"}, "did you mean booking.state"),
    ({5: "x"}, "there is no path"),
    ({"booking.state": "canceled"}, "did you mean cancelled"),
    ({"booking.state": ["created", "moved_away"]}, "is never 'moved_away'"),
    ({"booking.status": {"not": "booked"}}, "scheduled, cancelled"),
    ({"booking.outcome": "no-show"}, "did you mean no_show"),
    ({"answers.X": {"equals": 1}}, "there is no test"),
    ({"answers.X": {}}, "there is no test"),
    ({"answers.X": {"above": 1, "below": 3}}, "there is no test"),
    ({"answers.X": {"above": "1"}}, "above takes a number"),
    ({"answers.X": {"below": True}}, "below takes a number"),
    ({"booking.start": {"above": 5}}, "never above a number"),
    ({"answers.X": {"empty": "no"}}, "true or false"),
    ({"answers.X": {"contains": None}}, "contains takes a text"),
    ({"answers.X": {"contains": " "}}, "contains takes a text"),
    ({"answers.X": {"contains": []}}, "contains takes a text"),
    ({"answers.X": {"starts_with": {"a": 1}}}, "starts_with takes a text"),
    ({"answers.X": []}, "empty list"),
    ({"answers.X": {"not": {"nope": 1}}}, "there is no test"),
    ({"any": {"booking.state": "created"}}, "any takes a list"),
    ({"all": []}, "all takes a list"),
    ({"any": ["x"]}, "a condition is"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "words"), BAD_CONDITIONS, ids=str)
def test_conditions_that_never_hold_are_refused(condition: Any, words: str) -> None:
    """A condition that can never hold is refused at load, because nobody would notice the mistake."""
    with pytest.raises(ValueError, match=words):
        check_condition(condition)


# Coercion


def field(kind: FieldKind, **more: Any) -> CrmField:
    return CrmField("f", "F", kind, **more)


OPTIONS = (
    FieldOption("DEMO", "Demo call"),
    FieldOption("12", "Größe, mittel"),
    FieldOption("true", "Ja"),
)
SAFE: list[tuple[FieldKind, Any, Any]] = [
    (FieldKind.TEXT, "a", "a"),
    (FieldKind.TEXT, 5, "5"),
    (FieldKind.TEXT, 5.5, "5.5"),
    (FieldKind.TEXT, True, "true"),
    (FieldKind.TEXT, ["a", "b"], "a, b"),
    (FieldKind.TEXT, NOW, "2026-11-24T08:30:00Z"),
    (FieldKind.NUMBER, "12.5", 12.5),
    (FieldKind.NUMBER, "12", 12),
    (FieldKind.NUMBER, 12.0, 12),
    (FieldKind.NUMBER, -3, -3),
    (FieldKind.WHOLE, "12.0", 12),
    (FieldKind.WHOLE, 7, 7),
    (FieldKind.FLAG, True, True),
    (FieldKind.FLAG, "Yes", True),
    (FieldKind.FLAG, "nein", False),
    (FieldKind.FLAG, "0", False),
    (FieldKind.FLAG, 1, True),
    (FieldKind.DATE, NOW, "2026-11-24"),
    (FieldKind.DATE, "2026-11-24T23:00:00Z", "2026-11-24"),
    (FieldKind.DATE, "24.11.2026", "2026-11-24"),
    (FieldKind.MOMENT, NOW, "2026-11-24T08:30:00Z"),
    (FieldKind.MOMENT, "2026-11-24T09:30:00+01:00", "2026-11-24T08:30:00Z"),
    (FieldKind.MOMENT, "2026-11-24", "2026-11-24T00:00:00Z"),
    (FieldKind.CHOICE, "DEMO", "DEMO"),
    (FieldKind.CHOICE, " demo CALL ", "DEMO"),
    (FieldKind.CHOICE, "Größe, mittel", "12"),
    (FieldKind.CHOICE, 12, "12"),
    (FieldKind.CHOICE, True, "true"),
    (FieldKind.CHOICE, ["Demo call"], "DEMO"),
    (FieldKind.CHOICES, "Demo call; ja", ["DEMO", "true"]),
    (FieldKind.CHOICES, "größe, mittel", ["12"]),
    (FieldKind.CHOICES, ["ja", "JA", "demo"], ["DEMO", "true"]),
    (FieldKind.REFERENCE, "123", "123"),
    (FieldKind.TIME, "09:30", "09:30"),
    (FieldKind.OTHER, ["x", 5], ["x", "5"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "result"), [*SAFE, *((k, e, None) for k in FieldKind for e in (None, "", []))])  # fmt: skip
def test_safe_values_are_made_to_fit(kind: FieldKind, value: Any, result: Any) -> None:
    """Safe conversions of dates, numbers, option labels and yes or no are made; empty stays empty."""
    options = OPTIONS if kind in (FieldKind.CHOICE, FieldKind.CHOICES) else ()
    if (kind, value) == (FieldKind.CHOICES, ["ja", "JA", "demo"]):
        value = ["ja", "JA", "Demo call"]
    made = coerce(value, field(kind, options=options))
    assert made == result and type(made) is type(result)


UNSAFE: list[tuple[FieldKind, Any, str]] = [
    (FieldKind.NUMBER, "a lot", "'a lot' is not a number"),
    (FieldKind.NUMBER, "1.234,50", "as: number"),
    (FieldKind.NUMBER, True, "not a number"),
    (FieldKind.NUMBER, ["5"], "not a number"),
    (FieldKind.NUMBER, NOW, "not a number"),
    (FieldKind.NUMBER, math.inf, "not a number"),
    (FieldKind.NUMBER, math.nan, "not a number"),
    (FieldKind.NUMBER, "9" * 10_000, "not a number"),
    (FieldKind.WHOLE, "12.5", "not a whole number"),
    (FieldKind.FLAG, "maybe", "neither yes nor no"),
    (FieldKind.FLAG, 2, "neither yes nor no"),
    (FieldKind.DATE, "soon", "'soon' is not a date"),
    (FieldKind.DATE, "11/24/2026", "not a date"),
    (FieldKind.DATE, 20261124, "not a date"),
    (FieldKind.MOMENT, ["2026-11-24"], "not a date"),
    (FieldKind.MOMENT, "0001-01-01T00:00:00+14:00", "not a date"),
    (FieldKind.CHOICE, "Demo cal", "did you mean 'Demo call'"),
    (FieldKind.CHOICE, ["Demo call", "Ja"], "none of the options"),
    (FieldKind.CHOICES, "Demo call; Nope", "'Nope' is none of the options"),
    (FieldKind.CHOICE, "x" * 10_000, "none of the options"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "words"), UNSAFE)
def test_unsafe_values_are_refused_in_words(kind: FieldKind, value: Any, words: str) -> None:
    """A value that only a guess could convert is refused, in short words with the possible values."""
    with pytest.raises(ValueError, match=words) as caught:
        coerce(value, field(kind, options=OPTIONS))
    assert len(str(caught.value)) < 300


@given(anything, st.sampled_from(FieldKind))
def test_coercion_never_breaks(value: Any, kind: FieldKind) -> None:
    """Any value for any kind of field gives a JSON value or a ValueError."""
    try:
        made = coerce(value, field(kind, options=OPTIONS))
    except ValueError as error:
        assert str(error)
    else:
        json.dumps(made, allow_nan=False)


# Templates

LONG = "a<b &é-ß c" * 20_000
ATTACKS: list[str] = [
    # To Python
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ attendee.__class__ }}",
    "{{ attendee['__init__'] }}",
    "{{ answers.__dict__ }}",
    "{{ payload.custom.__class__.__base__ }}",
    "{{ attendee|attr('__class__') }}",
    "{{ (''|e).__html__ }}",
    "{{ ''.split.__self__ }}",
    "{{ answers.get.__func__ }}",
    "{{ '{0.__class__}'.format(attendee) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ ''.format_map(answers) }}",
    "{{ (''|escape).format(1) }}",
    "{{ booking.start.__reduce__() }}",
    "{{ booking.start.replace(year=1) }}",
    "{{ [attendee]|sort(attribute='__class__.__name__') }}",
    "{{ ['a']|unique(attribute='__class__')|list }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ loop }}",
    "{% for a in [1] %}{{ loop }}{% endfor %}",
    "{% for a in [1] %}{{ loop.__init__ }}{% endfor %}",
    "{% for a in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% for a in [1] %}{{ loop.cycle('a') }}{% endfor %}",
    "{{ super() }}",
    "{{ caller() }}",
    "{{ varargs }}",
    "{{ cycler('a').__init__.__globals__ }}",
    "{{ joiner(',') }}",
    "{{ namespace(x=1) }}",
    "{{ lipsum(n=1000) }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ range(10**8) }}",
    "{{ range(100000000)|list }}",
    "{{ dict(a=1) }}",
    "{{ config }}",
    "{{ request.environ }}",
    "{{ environment }}",
    "{{ open('/etc/passwd').read() }}",
    "{{ answers }}",
    "{{ attendee }}",
    "{{ answers.items }}",
    "{{ answers.update({'x': 1}) }}",
    "{{ answers.pop('Q') }}",
    "{{ booking.attendee_names.append('x') }}",
    "{{ [].append(1) }}",
    "{{ ''.join(['a']) }}",
    "{{ 'x'.encode() }}",
    "{{ 'x'.zfill(999999999) }}",
    "{{ 'x'.ljust(999999999) }}",
    "{{ booking.start|date('Europe') }}",
    "{{ booking.start|date('../../etc/passwd') }}",
    "{{ booking.start|date('UTC', '%999999999d' * 2) }}",
    # Out of the language
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% call(x) answers.get() %}{% endcall %}",
    "{% import 'os' as os %}{{ os }}",
    "{% from 'os' import system %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'base.html' %}",
    "{% block a %}{% endblock %}",
    "{% for a in [[1]] recursive %}{{ loop(a) }}{% endfor %}",
    "{% for a in payload.long %}{% for b in payload.long %}x{% endfor %}{% endfor %}",
    "{% for a in [1] %}{% if a %}{% for b in [1] %}x{% endfor %}{% endif %}{% endfor %}",
    "{% filter upper %}x{% endfilter %}",
    "{% set a %}x{% endset %}",
    "{% autoescape true %}x{% endautoescape %}",
    "{% with %}{% endwith %}",
    "{% do answers.clear() %}",
    "{% trans %}x{% endtrans %}",
    "{% if attendee.email %}{{ attendee.email|nosuch }}{% endif %}",
    "{{ 1 if 1 else (2 is nosuch) }}",
    # Bombs
    "{{ 'x' * 10**9 }}",
    "{{ 'x' * 1000000000 }}",
    "{{ ['x'] * 1000000000 }}",
    "{{ 2 ** 99999999 }}",
    "{{ 1|round(999999999, 'ceil') }}",
    "{{ 1|round(999999999) }}",
    "{{ '%999999999d' % 5 }}",
    "{{ '%999999999d' is even }}",
    "{{ '%999999999d' is odd }}",
    "{{ '%999999999d' is divisibleby 5 }}",
    "{{ 5 is divisibleby '%999999999d' }}",
    "{{ 99999999999999999999 * 99999999999999999999 }}",
    "{{ ('z' * 5)|int(0, 36) }}",
    "{{ payload.long|int(0, 36) }}",
    "{{ 'x'|center(999999999) }}",
    "{{ 'x'|indent(999999999) }}",
    "{{ 'x'|wordwrap(1) }}",
    "{{ [1]|batch(999999999, 1)|list }}",
    "{{ [1]|map('upper')|list }}",
    "{{ 'x'|format(1) }}",
    "{{ payload.long|tojson|pprint|urlize }}",
    "{% set s = 'xxxxxxxxxx' %}" + "{% set s = s ~ s %}" * 40 + "{{ s|length }}",
    "{% set s = 'xxxxxxxxxx' %}" + "{% set s = s + s %}" * 40 + "{{ s|length }}",
    "{% set s = 'x' %}" + "{% set s = s|replace('x', 'xxxxxxxxxx') %}" * 12 + "{{ s }}",
    "{% set s = [1, 2] %}" + "{% set s = s + s %}" * 30 + "{{ s|length }}",
    "{% set s = '&&&&&&&&' %}" + "{% set s = (s|e) ~ '' ~ (s|e) %}" * 30 + "{{ s|length }}",
    "{{ payload.long }}",
    "{{ payload.long ~ payload.long }}",
    "{{ payload.long|replace('', 'xxxxxxxxxxxxxxxxxxxx')|length }}",
    "{{ payload.long|list|join('xxxxxxxxxxxxxxxxxxxx') }}",
    "{{ payload.long.split('') }}",
    "{{ payload.long.split('a')|sort|unique|list|length }}",
    "{{ [payload.long, payload.long, payload.long]|join }}",
    "{% for c in payload.long %}{{ c }}{% endfor %}",
    "{% for c in payload.long %}{{ payload.long }}{% endfor %}",
    "{% for c in payload.long %}{% set x = payload.long.upper() %}{% endfor %}",
    "{% for c in payload.long|truncate(4000)|list %}" + "{% if 'b' ~ c in payload.long %}{% endif %}" * 60 + "{% endfor %}",
    "{% for c in payload.long|truncate(4000)|list %}" + "{% set x = payload.long|striptags %}" * 80 + "{% endfor %}",
    "{% for c in payload.long %}{% endfor %}" * 60,
    "{% set x = payload.long|title|lower|upper|trim|e|striptags|length %}" * 55,
    "{% set x = payload.long|unique|list|sort %}" * 90,
    # Depth
    "{{ " + "(" * 1500 + "1" + ")" * 1500 + " }}",
    "{{ " + "not " * 900 + "1 }}",
    "{{ " + "[" * 1500 + "]" * 1500 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ 1" + "+1" * 1900 + " }}",
    "{{ payload" + ".a" * 1900 + " }}",
    "{{ 'x'" + "|upper" * 650 + " }}",
    "{% if 1 %}" * 200 + "{% endif %}" * 150,
    "{{ " + "1 if 1 else " * 300 + "2 }}",
    "{{ " * 900,
    "x" * 4001,
]  # fmt: skip


@pytest.mark.parametrize("source", ATTACKS, ids=lambda source: source[:60])
def test_templates_cannot_reach_python(source: str) -> None:
    """An attack by a template is refused at load or fails its field, in limited time and memory."""
    here = context(long=LONG, custom={"x": 1})
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ValueError, match=r"."):
        render(check_template(source), here)
    spent = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 20
    assert peak < 64_000_000


GOOD_TEMPLATES: list[tuple[str, str]] = [
    ("{{ meeting_type.name }}: {{ attendee.full_name }}", "Discovery Call: Jane van der Berg"),
    ("{{ host.last_name or 'nobody' }}", "Smith"),
    ("{{ booking.start|date('Europe/Berlin') }}", "2026-12-01"),
    ("{{ booking.start|time('Asia/Tokyo') }}", "17:00"),
    ("{{ booking.start|datetime('Europe/Berlin', '%d.%m.%Y %H:%M') }}", "01.12.2026 09:00"),
    ("{{ booking.start }}", "2026-12-01T08:00:00Z"),
    ("{{ booking.cancelled }}", "false"),
    ("{{ booking.attendee_names }}", "Jane van der Berg"),
    ("{{ booking.minutes + 15 }}", "45"),
    ("{{ (booking.minutes / 60)|round(2) }}", "0.5"),
    ("{% for n in booking.host_names %}{{ loop.index }}. {{ n }}{% if not loop.last %}, {% endif %}{% endfor %}", "1. John Smith"),
    ("{% for c in ['a', 'b', 'c'] %}{{ c.upper() }}{% if loop.index is even %}!{% endif %}{% endfor %}", "AB!C"),
    ("{% if booking.minutes is divisibleby 15 %}ok{% endif %}", "ok"),
    ("{% if attendee.email.endswith('example.com') and not booking.cancelled %}x{% else %}y{% endif %}", "x"),
    ("{{ attendee.nothing_here|default('none') if false else 'one' }}", ""),
    ("{{ answers.Nope|default('none') }}", "none"),
    ("{{ answers.get('Nope', 'none') }}", "none"),
    ("{{ answers['Nope'] }}", ""),
    ("{% for q, a in answers.items() %}{{ q }}={{ a }};{% endfor %}", "Company size=11-50;"),
    ("{% set size = answers['company SIZE'] %}{{ size ~ ' people' }}", "11-50 people"),
    ("{{ 'abcdef'|truncate(4) }}", "abc…"),
    ("{{ ['b', 'a']|sort|join('+') }}", "a+b"),
    ("{{ payload.id[:4] }}", "6f0f"),
    ("{{ payload.nope.deeper if payload.nope else 'no' }}", "no"),
    ("{# a comment #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
    ("{{ '1234'|int + 1 }}", "1235"),
    ("{{ 'x'|int(7) }}", "7"),
    ("plain text", "plain text"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "result"), GOOD_TEMPLATES, ids=lambda text: text[:50])
def test_templates_do_what_people_need(source: str, result: str) -> None:
    """The sandbox allows everything that a useful text needs."""
    payload = sample("booking_created")
    payload["attendees"][0]["notes"] = {"Company size": "11-50"}
    here = context(**payload)
    if "nothing_here" in source:
        with pytest.raises(ValueError, match="there is no path"):
            check_template(source)
        return
    assert render(check_template(source), here) == result


@pytest.mark.parametrize("label", ["items", "keys", "copy", "pop", "update", "__class__", "get"])
def test_questions_may_be_called_like_methods(label: str) -> None:
    """A question with the name of a Python method is read as a question."""
    here = context(attendees=[person(notes={label: "yes"})])
    assert render(check_template(f"{{{{ answers['{label}'] }}}}"), here) == "yes"
    assert resolve(f'answers["{label}"]', here) == "yes"


BRACES = st.sampled_from(
    [
        "{{ 7*7 }}",
        "{% for x in y %}",
        "{# x #}",
        "${7*7}",
        "#{7}",
        "{{ ''.__class__ }}",
        "%s",
        "{0}",
    ]
)


@given(st.text() | BRACES, st.text() | BRACES)
def test_braces_in_data_are_text(name: str, answer: str) -> None:
    """Braces in a stranger's text are printed as typed and never run."""
    here = context(attendees=[person(fullname=name, notes={"Q": answer})])
    here["attendee"] = {"full_name": name}
    here["answers"]["Q"] = answer
    made = render(check_template("[{{ attendee.full_name }}|{{ answers.Q }}]"), here)
    assert made == f"[{name}|{answer}]"


EXPRESSIONS = st.recursive(
    st.sampled_from(
        [
            "attendee", "attendee.email", "answers", "payload", "payload.long", "booking.start", "1",
            "'x'", "[]", "{}", "none", "true", "1.5", "-1", "loop", "x", "person.booked", "link.a",
            "booking.attendee_names", "answers.Q", "meeting_type.metadata",
        ]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", " in ", "==",
                                          "<", " and ", " or "]), inner).map(" ".join),
        st.tuples(inner, st.sampled_from(["upper", "lower", "list", "length", "join(',')", "int",
                                          "first", "last", "sort", "unique", "round(3)", "title",
                                          "replace('a','bb')", "date", "date('UTC','%Y')", "e",
                                          "string", "default('d')", "abs", "float", "trim",
                                          "truncate(3)", "striptags"])).map("|".join),
        st.tuples(inner, st.sampled_from(["get('Q')", "items()", "split()", "upper()", "x", "email",
                                          "__class__", "strip('x')", "keys()"])).map(".".join),
        inner.map("({})".format), inner.map("[{}]".format), inner.map("not {}".format),
        st.tuples(inner, inner).map(lambda p: f"{p[0]} if {p[1]} else {p[0]}"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]}[{p[1]}]"),
        st.tuples(inner, st.sampled_from(["defined", "even", "string", "none", "number"])).map(
            " is ".join
        ),
    ),
    max_leaves=6,
)  # fmt: skip
STATEMENTS = st.one_of(
    st.text(max_size=20),
    EXPRESSIONS.map("{{{{ {} }}}}".format),
    EXPRESSIONS.map("{{% if {} %}}y{{% endif %}}".format),
    EXPRESSIONS.map("{{% for x in {} %}}{{{{ x }}}}{{{{ loop.index }}}}{{% endfor %}}".format),
    EXPRESSIONS.map("{{% set x = {} %}}".format),
    st.sampled_from(["{%", "%}", "{{", "}}", "{% endfor %}", "{% else %}", "{% raw %}", "{#"]),
)


@settings(max_examples=400)
@given(st.lists(STATEMENTS, max_size=5).map("".join))
def test_any_template_is_refused_or_gives_bounded_text(source: str) -> None:
    """Any template gives an error in words, or the same limited text twice."""
    here = context(long="ab " * 3000)
    began = time.process_time()
    try:
        made = render(check_template(source), here)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(made, str) and len(made) <= MAX_RESULT
        assert made == render(source, here)
        assert " object at 0x" not in made
    assert time.process_time() - began < 2


# Fields: the effect of errors, and unmapped questions


def plan(folder: Path, text: str, schema: Any = None, **changes: Any) -> Any:
    path = folder / "test.yaml"
    path.write_text("version: 1\ncrm: test\n" + text, encoding="utf-8")
    directory = Directory(schema=schema or {})
    return Planner(load_mapping(path, "test"), SHAPE, directory).plan(booking(**changes))


ON_ERROR = """
contact:
  fields:
    mail: attendee.email
    size: {{from: answers.Size, as: number, on_error: {rule}}}
meeting: {{fields: {{title: meeting_type.name}}}}
"""


@pytest.mark.parametrize("size", ["many", "12"])
@pytest.mark.parametrize("rule", ["fail", "skip", "skip_record"])
def test_on_error(tmp_path: Path, rule: str, size: str) -> None:
    """A field with an error fails the booking, is left out, or drops its record, and the booking
    says so.
    """
    people = [person(notes={"Size": size})]
    text = ON_ERROR.format(rule=rule)
    if rule == "fail" and size == "many":
        with pytest.raises(InvalidRecord, match="'many' is not a number") as caught:
            plan(tmp_path, text, attendees=people)
        assert set(caught.value.fields) == {"size"}
        return
    made = plan(tmp_path, text, attendees=people)
    there = {record.ref.object: record for record in made.records}
    assert ObjectName.MEETING in there
    if size == "12":
        assert there[ObjectName.CONTACT].fields == {"mail": "ann@globex.example", "size": 12}
        assert made.notes == ()
    elif rule == "skip":
        assert there[ObjectName.CONTACT].fields == {"mail": "ann@globex.example"}
        assert "contact.size" in made.notes[0] and "left out" in made.notes[0]
    else:
        assert ObjectName.CONTACT not in there
        assert there[ObjectName.MEETING].links == ()
        assert made.notes[0].startswith("The contact was left out")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('{template: "{{ 1 / 0 }}"}', "division by zero"),
        ('{template: "{{ payload.meetingType }}"}', "is not a text"),
        ("{value: perhaps}", "neither yes nor no"),
        ("{from: booking.start}", "neither yes nor no"),
    ],
)
def test_errors_name_the_field(tmp_path: Path, source: str, words: str) -> None:
    """The error of a template, a transform or a type names the field and the reason."""
    schema = {ObjectName.MEETING: {"flag": field(FieldKind.FLAG)}}
    with pytest.raises(InvalidRecord, match=words) as caught:
        plan(tmp_path, f"meeting: {{fields: {{flag: {source}}}}}", schema)
    assert str(caught.value).startswith("meeting.flag: ")


def test_a_key_that_cannot_be_made_costs_its_record_alone(tmp_path: Path) -> None:
    """A match key that fails refuses its record, to avoid a duplicate; the meeting is still written."""
    key = "{field: nr, from: {from: answers.Nr, as: number}}"
    text = f"contact: {{match: [{key}], fields: {{a: attendee.email}}}}\nmeeting: {{fields: {{title: meeting_type.name}}}}"
    made = plan(tmp_path, text, attendees=[person(notes={"Nr": "x"})])
    assert [record.ref.object for record in made.records] == [ObjectName.MEETING]
    assert [problem.message for problem in made.problems.values()] == [
        "match nr: 'x' is not a number"
    ]


def test_what_nobody_mapped(tmp_path: Path) -> None:
    """`answers: unmapped` lists the questions that no path, first_of or template uses; `all` lists
    all.
    """
    notes = {"Budget": "5", "Firma": "Globex", "Wish": ["a", "b"], "Tel": "1", "Size": "9"}
    text = """
contact:
  fields:
    budget: answers.budget
    firm: {first_of: ['answers["FIRMA"]', attendee.company_domain]}
    tel: {template: "{{ answers.Tel }}"}
    size: {template: "{{ answers.get('size') }}"}
meeting:
  fields:
    rest: {answers: unmapped}
    every: {answers: all}
"""
    made = plan(tmp_path, text, attendees=[person(notes=notes)])
    (meeting,) = (r for r in made.records if r.ref.object is ObjectName.MEETING)
    assert meeting.fields["rest"] == "Wish: a, b"
    assert meeting.fields["every"].splitlines() == [
        "Budget: 5", "Firma: Globex", "Wish: a, b", "Tel: 1", "Size: 9",
    ]  # fmt: skip


def test_templates_bring_nothing_harmful(tmp_path: Path) -> None:
    """Control characters of a message reach no CRM through a template or a payload path."""
    text = 'meeting: {fields: {a: {template: "x {{ payload.odd }}"}, b: payload.odd, c: {from: payload.deep, as: json}}}'
    made = plan(tmp_path, text, odd="\x00\u202eA\ud800 ", deep={"k": "\x07\ud800"})
    assert made.records[0].fields == {"a": "x A?", "b": "A?", "c": '{"k": "\\u0007?"}'}


# The published schema

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def load_yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_schema_is_one() -> None:
    """`mappings schema` prints a JSON Schema that is valid for the draft it names."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == VALIDATOR.META_SCHEMA["$id"]
    json.dumps(SCHEMA)


@pytest.mark.parametrize(
    "path", sorted((CONFIG_DIR / "mappings").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_shipped_file_fits_the_schema(path: Path) -> None:
    """Every shipped file fits the schema and the loader."""
    text = path.read_text(encoding="utf-8")
    assert [error.message for error in VALIDATOR.iter_errors(load_yaml(text))] == []
    assert MappingText(path.name, text, load_yaml(text)["crm"]).lines() == []


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_case_fits_the_schema(path: Path) -> None:
    """Every case in tests/cases uses language that fits the schema."""
    said = load_yaml(path.read_text(encoding="utf-8")).get("mapping") or {}
    for provider in {"all", *said} & {"all", *PROVIDERS}:
        base = load_yaml((CONFIG_DIR / "mappings" / f"{PROVIDERS[0]}.yaml").read_text("utf-8"))
        plain = lay_over(lay_over(base, said.get("all") or {}), said.get(provider) or {})
        plain = json.loads(json.dumps(plain, default=str))
        assert [error.message for error in VALIDATOR.iter_errors(plain)] == []


@pytest.mark.parametrize(
    "path", sorted((DATA / "mistakes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_file_of_mistakes_does_not_fit_the_schema(path: Path) -> None:
    """The schema marks mistakes of the language in an editor before anything runs."""
    assert list(VALIDATOR.iter_errors(load_yaml(path.read_text(encoding="utf-8"))))


SLIPS = [
    ("email: attendee.email", "email: attendee.emial"),
    ("email: attendee.email", "email: {from: attendee.email, wrte: always}"),
    ("email: attendee.email", "email: {from: attendee.email, write: sometimes}"),
    ("email: attendee.email", "email: {from: attendee.email, as: uper}"),
    ("email: attendee.email", "email: {from: attendee.email, as: [{truncate: x}]}"),
    ("email: attendee.email", "email: {from: attendee.email, as: {map: {}}}"),
    ("email: attendee.email", "email: {from: attendee.email, on_error: ignore}"),
    ("email: attendee.email", "email: {from: attendee.email, when: {booking.stat: created}}"),
    ("email: attendee.email", "email: {from: attendee.email, when: {any: []}}"),
    ("email: attendee.email", "email: {from: attendee.email, when: {answers.X: {equals: 1}}}"),
    ("email: attendee.email", "email: {path: attendee.email}"),
    ("email: attendee.email", "email: [attendee.email]"),
    ("email: attendee.email", "email: {first_of: [attendee.nope]}"),
    ("version: 1", "version: 2"),
    ("version: 1", "versoin: 1"),
    ("crm: hubspot", "crm: [hubspot]"),
    ("contact:", "contact:\n  match: [emial]"),
    ("contact:", "contact:\n  several: all"),
    ("contact:", "contact:\n  as: customer"),
    ("  per: booking", "  per: week"),
    ("meeting:", "meeting:\n  on_cancel: shred"),
    ("owner:", "owner:\n  ruel: fixed"),
    ("owner:", "attendees: some\nowner:"),
    ("meeting_types: {}", "meeting_types: {demo: {contct: none}}"),
    ("meeting_types: {}", "hosts: {a@b.example: {deal: {stage: {created: 5}}}}"),
    ("meeting_types: {}", "meeting_types: {demo: {meeting: off}}"),
    ("meeting_types: {}", "recheck_links_after: soon"),
    ("meeting_types: {}", "form_submission: {after_hours: 0}"),
    ("meeting_types: {}", "skip: [{because: x}]"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), SLIPS)
def test_planted_slips_fit_neither_schema_nor_loader(old: str, new: str) -> None:
    """The loader refuses every mistake that an editor marks, in one line with its place."""
    text = (CONFIG_DIR / "mappings" / "hubspot.yaml").read_text(encoding="utf-8")
    assert old in text
    wrong = text.replace(old, new, 1)
    assert list(VALIDATOR.iter_errors(load_yaml(wrong)))
    try:
        lines = MappingText("f.yaml", wrong, "hubspot").lines()
    except MappingError as error:
        lines = str(error).splitlines()
    assert lines and all(line.startswith("f.yaml:") for line in lines)
    assert not any("Input should" in line or "instance of" in line for line in lines)
