"""Reads the files of tests/cases strictly: a typo must not remove an expectation unnoticed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from ruamel.yaml import YAML

from app.mapping.mapping import lay_over
from config.settings import CONFIG_DIR
from tests.bridge import DATA, PROVIDERS
from tests.contract.desk import CustomField, load_desks

CASES = Path(__file__).parents[1] / "cases"
ACCOUNTS = Path(__file__).parents[1] / "accounts"
PIPELINES = {"Sales": ["New", "Demo booked", "Demo held", "Offer"]}
"""The pipelines of every CRM if a case file names none; won and lost are added at the end."""
DESKS = load_desks()
OBJECTS = ("contact", "company", "lead", "deal", "case", "meeting")
PLURALS = {"companies": "company", **{f"{name}s": name for name in OBJECTS if name != "company"}}
SAMPLES = tuple(
    sorted(p.stem for p in DATA.glob("*.json") if "webhookType" in p.read_text(encoding="utf-8"))
)
FREE = {"notes", "metadata", "answers"}
"""Parts of a webhook whose keys are the company's own words."""


class BadCase(ValueError):
    """A case file contains something that the tests cannot interpret."""


def _known_keys() -> dict[str, set[str]]:
    """Return for each key of a webhook the keys below it in at least one sample."""
    known: dict[str, set[str]] = {}

    def walk(name: str, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(name, item)
        elif isinstance(node, dict):
            known.setdefault(name, set()).update(node)
            for key, value in node.items():
                walk(key, value)

    for name in SAMPLES:
        walk("", json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")))
    known["cancel"] = {"actionSource", "actionAt", "actionBy", "reason"}
    return known


KNOWN_KEYS = _known_keys()


def check_payload(change: Any, add: Mapping[str, Any]) -> None:
    """Raise BadCase if a change names a key that no webhook has, or an addition names one that exists."""

    def walk(name: str, node: Any) -> None:
        for item in node if isinstance(node, list) else [node]:
            if not isinstance(item, dict) or name in FREE:
                continue
            unknown = set(item) - KNOWN_KEYS.get(name, set())
            if unknown:
                raise BadCase(f"no webhook has {name or 'at its top'}: {', '.join(unknown)}")
            for key, value in item.items():
                walk(key, value)

    walk("", change)
    known = set(add) & KNOWN_KEYS[""] - {"meetingType"}
    if known:
        raise BadCase(f"{', '.join(known)} is no addition: change it")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_record(raw: Any) -> Any:
    if not isinstance(raw, Mapping) or len(raw) != 1 or next(iter(raw)) not in OBJECTS:
        raise ValueError(f"name one of {', '.join(OBJECTS)}: {raw!r}")
    if not next(iter(raw.values())):
        raise ValueError("say something of the record")
    return raw


OneRecord = Annotated[dict[str, dict[str, Any] | str], BeforeValidator(_one_record)]
Filled = Annotated[dict[str, Any], Field(min_length=1)]
Booking = Annotated[str, Field(pattern=r"^[\w-]+$")]


class Webhook(_Strict):
    """meetergo sends a webhook."""

    webhook: Literal[SAMPLES]  # type: ignore[valid-type]
    booking: Booking = "booking-1"
    change: dict[str, Any] = {}
    add: dict[str, Any] = {}
    hold: bool = False
    """The workers process the webhook only with the next step."""

    @model_validator(mode="after")
    def _is_a_webhook(self) -> Webhook:
        check_payload(self.change, self.add)
        return self


class Makes(_Strict):
    """A colleague makes a record."""

    colleague_makes: OneRecord
    called: str = ""


class Changes(_Strict):
    """A colleague changes a record."""

    colleague_changes: OneRecord
    to: Filled


class Deletes(_Strict):
    """A colleague deletes a record."""

    colleague_deletes: OneRecord


class Merges(_Strict):
    """A colleague merges one record into another."""

    colleague_merges: OneRecord
    into: OneRecord


class Converts(_Strict):
    """A colleague converts a lead."""

    colleague_converts: OneRecord


class Says(_Strict):
    """A person records how a meeting went, on the page, by the API or by the command line."""

    outcome: Literal["held", "no_show", "none"]
    booking: Booking = "booking-1"


class Waits(_Strict):
    """Time passes."""

    wait: Annotated[str, Field(pattern=r"^\d+ (minute|hour|day)s?$")]


class Knows(_Strict):
    """meetergo's API returns more about a booking than its webhook said."""

    meetergo_knows: Filled
    booking: Booking = "booking-1"


Switch = str | Annotated[dict[str, Any], Field(min_length=1, max_length=1)]


class Turns(_Strict):
    """Switches of the account change, because of its admin, its edition or its day."""

    account: Annotated[list[Switch], Field(min_length=1)]


class Replays(_Strict):
    """Every webhook is replayed, so that all bookings are processed once more."""

    replay: Literal["everything"]


Count = Annotated[int, Field(ge=0)]
Records = Count | list[Filled]


class Expected(_Strict):
    """The expected contents of the CRM, and the expected messages of the service."""

    contacts: Records | None = None
    companies: Records | None = None
    leads: Records | None = None
    deals: Records | None = None
    cases: Records | None = None
    meetings: Records | None = None
    deliveries: str | Annotated[dict[str, str], Field(min_length=1)] | None = None
    notes: list[str] | None = None
    connection: str | None = None
    told: list[str] | None = None
    check: list[str] | None = None
    either: Annotated[list[Expected], Field(min_length=2)] | None = None
    calls: Count | None = None
    writes: Count | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Expected:
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("expect something")
        return self


class Looks(_Strict):
    """The test compares the CRM with the expectations."""

    expect: Expected


STEPS: dict[str, type[_Strict]] = {
    next(iter(model.model_fields)): model
    for model in (
        Webhook,
        Makes,
        Changes,
        Deletes,
        Merges,
        Converts,
        Says,
        Waits,
        Knows,
        Replays,
        Turns,
        Looks,
    )
}


def _step(raw: Any) -> Any:
    kinds = [key for key in raw if key in STEPS] if isinstance(raw, Mapping) else []
    if len(kinds) != 1:
        raise ValueError(f"a step is one of {', '.join(STEPS)}: {raw!r}")
    return STEPS[kinds[0]].model_validate(raw)


class Case(_Strict):
    """One case file as it applies to one CRM."""

    title: Annotated[str, Field(min_length=5)]
    wanted: Annotated[str, Field(min_length=20)]
    mapping: dict[str, Any] = {}
    not_for: dict[str, Annotated[str, Field(min_length=10)]] = {}
    together: bool = False
    """All CRMs are connected to one service; otherwise each CRM has its own service."""
    users: list[str] = []
    assignment_rule: str | None = None
    """The user to whom Salesforce's own rules assign new leads and cases."""
    pipelines: dict[str, list[str]] = PIPELINES
    custom_fields: dict[Literal[OBJECTS], dict[str, CustomField]] = {}  # type: ignore[valid-type]
    account: list[Switch] = []
    """The switches of the account before it is connected."""
    before: list[Makes] = []
    steps: Annotated[list[Annotated[Any, BeforeValidator(_step)]], Field(min_length=1)]
    then: Expected


def read(path: Path) -> dict[str, Any]:
    """Return the contents of a file; dates become text, as the CRMs store them."""
    return _texts(YAML(typ="safe").load(path.read_text(encoding="utf-8")))


def _texts(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _texts(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_texts(item) for item in node]
    return node.isoformat() if isinstance(node, (date, datetime)) else node


def crms_of(raw: Mapping[str, Any]) -> list[str]:
    """Return the CRMs that a file applies to. If the file has values by CRM, these are the CRMs
    that it names, otherwise all; CRMs in `not_for` are left out. Raises BadCase if it names an
    unknown CRM.
    """
    by_crm = set(raw.get("mapping", {})) - {"all"}
    only, out = set(raw.get("only_for", ())), set(raw.get("not_for", {}))
    strange = (by_crm | only | out) - set(PROVIDERS)
    if strange:
        raise BadCase(f"there is no CRM {', '.join(strange)}")
    if out & by_crm:
        raise BadCase("a CRM is in mapping and in not_for")
    whole = {"mapping", "not_for", "only_for"}
    said = [value for key, value in raw.items() if key not in whole]
    named = only or by_crm | _named(said) or set(PROVIDERS)
    return [name for name in DESKS if name in named - out]


def _named(node: Any) -> set[str]:
    """Return the CRMs that have values of their own."""
    if isinstance(node, dict):
        own = set(node) if set(node) <= set(PROVIDERS) else set()
        return own.union(*(_named(value) for value in node.values()))
    return set().union(*(_named(item) for item in node)) if isinstance(node, list) else set()


def case_for(raw: Mapping[str, Any], crm: str) -> Case:
    """Return a file's case for one CRM, with the values for this CRM picked. Raises ValidationError."""
    whole = ("mapping", "not_for")
    named = {key: value for key, value in raw.items() if key != "only_for"}
    picked = {key: value if key in whole else _picked(value, crm) for key, value in named.items()}
    return Case.model_validate(
        {key: value for key, value in picked.items() if value is not _NOTHING}
    )


_NOTHING = object()


def _picked(node: Any, crm: str) -> Any:
    if isinstance(node, dict):
        if node and set(node) <= set(PROVIDERS):
            return _picked(node[crm], crm) if crm in node else _NOTHING
        made = {key: _picked(value, crm) for key, value in node.items()}
        return {key: value for key, value in made.items() if value is not _NOTHING}
    if isinstance(node, list):
        return [item for item in (_picked(i, crm) for i in node) if item is not _NOTHING]
    return node


@lru_cache
def _default_mapping(crm: str) -> Any:
    text = (CONFIG_DIR / "mappings" / f"{crm}.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe").load(text)


def mapping_text(case: Case, crm: str) -> str:
    """Return the mapping file of a CRM: the shipped one with the case's changes merged in."""
    base = copy.deepcopy(_default_mapping(crm))
    for part in (case.mapping.get("all", {}), case.mapping.get(crm, {})):
        base = copy.deepcopy(part) if "version" in part else lay_over(base, part)
    return json.dumps(base, ensure_ascii=False, indent=1)  # JSON is YAML too
