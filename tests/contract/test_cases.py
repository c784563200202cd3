"""Every case of tests/cases through the whole service, for every CRM that the case applies to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import time_machine
from pydantic import ValidationError

from app.services.rate_limits import SharedRateLimiter
from tests.contract.case_files import (
    CASES,
    DESKS,
    STEPS,
    BadCase,
    Case,
    Expected,
    case_for,
    check_payload,
    crms_of,
    read,
)  # fmt: skip
from tests.contract.compare import MATCHERS, fits
from tests.contract.desk import COMMON, Link
from tests.contract.play import START, Play

FILES = {path.stem: read(path) for path in sorted(CASES.glob("*.yaml"))}
RUNS = [
    pytest.param(name, crms, id=f"{name}-{'+'.join(crms)}")
    for name, raw in FILES.items()
    for crms in ([crms_of(raw)] if raw.get("together") else [[crm] for crm in crms_of(raw)])
]


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


@pytest.mark.variants(14)
@pytest.mark.parametrize(("name", "crms"), RUNS)
def test_case(name: str, crms: list[str], tmp_path: Path) -> None:
    """The CRM ends as the company's file says, and the same webhooks once more change nothing."""
    cases = {crm: case_for(FILES[name], crm) for crm in crms}
    with time_machine.travel(START, tick=True) as clock:
        play = Play(cases, tmp_path, clock)
        try:
            play.run()
        finally:
            play.close()


def test_there_are_cases_for_every_crm() -> None:
    """Every CRM that the files name has forty cases or more; a CRM that no file names has twelve."""
    ran = {crm: [raw for raw in FILES.values() if crm in crms_of(raw)] for crm in DESKS}
    named = {crm for raw in FILES.values() for crm in raw.get("mapping", {})} - {"all"}
    assert {"hubspot", "pipedrive", "salesforce"} <= named
    for crm, files in ran.items():
        assert len(files) >= (40 if crm in named else 12), crm


SMALL: dict[str, Any] = {
    "title": "A small case",
    "wanted": "A case that is there to be broken.",
    "steps": [{"webhook": "booking_created"}],
    "then": {"contacts": [{"email": "jane.van.der.berg@example.com"}]},
}
NOT_CASES = [
    ({"then": {}}, "expect something"),
    ({"then": None}, "then"),
    ({"then": {"contact": 1}}, "contact"),
    ({"then": {"contacts": [{}]}}, "contacts"),
    ({"then": {"deliveries": {}}}, "deliveries"),
    ({"then": {"notes": "a text"}}, "notes"),
    ({"then": {"writes": -1}}, "writes"),
    ({"then": {"pipedrive": {"contacts": 1}}}, "then"),
    ({"steps": []}, "steps"),
    ({"steps": [{"webhook": "booking_creatd"}]}, "webhook"),
    ({"steps": [{"webhook": "booking_created", "chnage": {}}]}, "chnage"),
    ({"steps": [{"colleague_makes": {"person": {"name": "Kim"}}}]}, "name one of"),
    ({"steps": [{"colleague_changes": {"contact": "Kim"}, "to": {}}]}, "to"),
    ({"steps": [{"webhook": "booking_created", "change": {"atendees": []}}]}, "atendees"),
    ({"steps": [{"wait": "a while"}]}, "wait"),
    ({"steps": [{"expect": {"contcts": 1}}]}, "contcts"),
    ({"steps": [{"expect": {}}]}, "expect something"),
    ({"tilte": "A title"}, "tilte"),
    ({"wanted": ""}, "wanted"),
]


@pytest.mark.parametrize(("change", "words"), NOT_CASES, ids=[str(c) for c, _ in NOT_CASES])
def test_what_cannot_be_understood_is_refused(change: dict[str, Any], words: str) -> None:
    """A typo, an unknown key or a missing expectation is an error; no such file passes."""
    assert case_for(SMALL, "hubspot").then.contacts
    with pytest.raises(ValidationError, match=words):
        case_for(SMALL | change, "hubspot")


def test_no_expectation_is_refused() -> None:
    """A file without `then` is refused."""
    with pytest.raises(ValidationError, match="then"):
        case_for({key: value for key, value in SMALL.items() if key != "then"}, "hubspot")


@pytest.mark.long
@pytest.mark.parametrize(
    "then",
    [
        {"contacts": []},
        {"contacts": 2},
        {"contacts": [{"email": "somebody@else.example"}]},
        {"contacts": [{"email": None}]},
        {"contacts": [{"emial": "jane.van.der.berg@example.com"}]},
        {"contacts": [{"email": {"contians": "jane"}}]},
        {"contacts": [{"email": {"lacks": "jane"}}]},
        {"contacts": [{"owner": "mary@acme.example"}]},
        {"contacts": [{"email": "jane.van.der.berg@example.com"}] * 2},
        {"deals": [{"contacts": []}]},
        {"meetings": [{"start": "2026-12-01 09:00Z"}]},
        {"meetings": [{"minutes": 31}]},
        {"deliveries": "failed"},
        {"deliveries": {"booking-2": "synced"}},
        {"notes": ["something"]},
        {"calls": 2},
        {"writes": 0},
    ],
    ids=str,
)
def test_a_wrong_expectation_fails(then: dict[str, Any], tmp_path: Path) -> None:
    """A case fails if it expects a wrong value, a missing record or an unknown field."""
    with time_machine.travel(START, tick=True) as clock:
        play = Play({"hubspot": case_for(SMALL | {"then": then}, "hubspot")}, tmp_path, clock)
        try:
            with pytest.raises(AssertionError):
                play.run()
        finally:
            play.close()


def test_the_readme_names_everything() -> None:
    """tests/cases/README.md names every key, step, expectation and word that a file may hold."""
    text = (CASES / "README.md").read_text(encoding="utf-8")
    keys = {*Case.model_fields, *STEPS, *Expected.model_fields, *MATCHERS, *COMMON}
    for model in STEPS.values():
        keys |= set(model.model_fields)
    words = {word for words in COMMON.values() for word in words} - {"first", "last"}
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert not (keys | words) - named - set(COMMON)
    assert set(COMMON) <= set(re.findall(r"^\| (\w+) \|", text, re.M))


def test_crms_are_named_or_left_out_with_a_reason() -> None:
    """A case applies to every CRM except those that it leaves out, or only to those that it names;
    an unknown CRM is an error.
    """
    assert crms_of(SMALL) == list(DESKS)
    assert crms_of({"not_for": {"hubspot": "It has no such thing."}}) == list(DESKS)[1:]
    assert crms_of({"mapping": {"all": {}, "hubspot": {}}}) == ["hubspot"]
    by_value = SMALL | {"then": {"deals": [{"title": {"hubspot": "x", "pipedrive": "y"}}]}}
    assert crms_of(by_value) == ["hubspot", "pipedrive"]
    assert crms_of(by_value | {"not_for": {"hubspot": "a reason"}}) == ["pipedrive"]
    assert crms_of(by_value | {"only_for": ["salesforce"]}) == ["salesforce"]
    for raw in ({"mapping": {"hubspt": {}}}, {"only_for": ["hubspt"]}, {"not_for": {"hubspt": "a reason"}},
                {"mapping": {"hubspot": {}}, "not_for": {"hubspot": "a reason"}}):  # fmt: skip
        with pytest.raises(BadCase):
            crms_of(raw)
    with pytest.raises(ValidationError, match="not_for"):
        case_for(SMALL | {"not_for": {"pipedrive": ""}}, "hubspot")


def test_changes_of_a_webhook_are_parts_of_one() -> None:
    """A misspelt part of a webhook is an error, and so is an addition that webhooks already have."""
    check_payload({"attendees": [{"notes": {"Anything": "goes"}}], "cancel": {"reason": "x"}}, {})
    for change, add in (({"atendees": []}, {}), ({"attendees": [{"mail": "x"}]}, {}),
                        ({"meetingInfo": {"link": "x"}}, {}), ({}, {"attendees": []})):  # fmt: skip
        with pytest.raises(BadCase):
            check_payload(change, add)


@pytest.mark.parametrize(
    ("actual", "wanted", "fit"),
    [
        ("5.0", 5, True),
        (5, 5.0, True),
        ("5", 6, False),
        ("5 apples", 5, False),
        (None, [], True),
        ("", None, True),
        (0, None, False),
        (False, None, False),
        (True, 1, False),
        (["b", "a"], ["a", "b"], True),
        (["a", "a"], ["a", "b"], False),
        (["a"], ["a", "b"], False),
        ("2026-12-01T08:00:00+00:00", "2026-12-01 09:00+01:00", True),
        ("2026-12-01T00:00:00Z", "2026-12-01", True),
        ("2026-12-01T08:00:00Z", "2026-12-01", False),
        ("2026-12-01", "2026-12-01", True),
        (Link("7", ("kim@x.example", "Kim")), "Kim", True),
        (Link("7", ("kim@x.example", "Kim")), "the old one", True),
        (Link("7", ("kim@x.example", "Kim")), "Kimm", False),
        (None, "Kim", False),
        ("Red doors", {"contains": ["Red", "doors"], "lacks": "blue"}, True),
        ("Red doors", {"contains": ["Red", "blue"]}, False),
    ],
)
def test_values_are_compared_as_people_read_them(actual: Any, wanted: Any, fit: bool) -> None:
    """Empty equals empty, numbers and times compare as such, and records match by their names."""
    assert fits(actual, wanted, {"the old one": "7"}) is fit
