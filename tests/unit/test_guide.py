"""docs/mappings.md agrees with the program: every example is run, and no part of the language is
missing.
"""

from __future__ import annotations

import json
import re
import typing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel

from app.crm.lookup import CrmRecord, LookupKey, LookupResults, Match, MatchKey
from app.crm.objects import FieldValue, ObjectName, Ref, content_hash
from app.crm.schema import Directory
from app.mapping import conditions, templates
from app.mapping.check import Checker
from app.mapping.conditions import check_condition, holds
from app.mapping.load import MappingText
from app.mapping.paths import FIXED, NAME_PATHS, build_context, check_path, resolve
from app.mapping.schema import (
    FormRules,
    MappingFile,
    MeetingRules,
    OwnerRules,
    RecordRules,
    Skip,
    StageRules,
)
from app.mapping.templates import check_template, render
from app.mapping.transforms import PLAIN, WITH_ARGUMENT, apply_transforms, check_transform
from app.mapping.value_source import FieldKey, FieldRule, FieldSpec, ValueSource
from app.sync.desired import DesiredRecord, WriteRule
from app.sync.diff import diff_records
from app.sync.ledger_entry import LedgerEntry
from app.sync.merge import MergedRecord
from config.providers import load_providers
from config.settings import CONFIG_DIR
from crm_adapters.base import load_adapter
from tests import guide
from tests.bridge import PROVIDERS

PAGE = guide.PAGE.read_text(encoding="utf-8")
CONTEXT = build_context(guide.booking(), guide.booking().attendees[0])
SHAPES = {
    name: load_adapter(provider.adapter).shape
    for name, provider in load_providers(CONFIG_DIR / "providers.yaml", {}).items()
}


def shown(value: Any) -> str:
    """Return a value in the form of the page's tables."""
    if value is None:
        return "empty"
    if isinstance(value, datetime):
        return f"`{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}`"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


# Examples


@pytest.mark.parametrize("block", guide.fragments(), ids=lambda block: f"line {block.line}")
def test_every_fragment_is_a_good_mapping(block: guide.Block) -> None:
    """Each YAML block loads without a mistake; a part of a file is merged into the default file."""
    crm = block.about or "hubspot"
    text = block.text if "version:" in block.text else guide.whole(block.text, crm)
    assert MappingText("x.yaml", text, crm).lines() == []


def test_the_three_changes_make_the_whole_file() -> None:
    """The guide's final file is the default file with its three pieces merged in."""
    pieces = [block.text for block in guide.fragments()[:3]]
    made = guide.whole("\n".join(pieces))
    assert guide.yaml(guide.file("draft.yaml")) == guide.yaml(made)
    default = (CONFIG_DIR / "mappings" / "hubspot.yaml").read_text(encoding="utf-8").splitlines()
    missing = set(default) - set(guide.file("draft.yaml").splitlines())
    # Comments count too: the reader has this copy before them.
    assert all("meeting_types: {}" in line or line.startswith("#  ") for line in missing)


def test_every_source_of_a_value_works() -> None:
    """The table has each way to give a field a value, with a valid example."""
    (table,) = guide.tables("source")
    for row in table:
        (key,) = guide.code(row[0])
        spec = FieldSpec.model_validate(guide.yaml(guide.code(row[1])[0]))
        assert key in {FieldSpec.model_fields[n].alias or n for n in spec.model_fields_set}
    assert [guide.code(row[0])[0] for row in table] == [
        "from", "value", "template", "first_of", "summary", "answers",
    ]  # fmt: skip


PATHS = [row for table in guide.tables("path") if len(table[0]) == 3 for row in table]


@pytest.mark.parametrize("row", PATHS, ids=lambda row: row[0])
def test_every_path_gives_what_the_page_says(row: list[str]) -> None:
    """Each path gives the value next to it in the table, for the page's booking."""
    (path,) = guide.code(row[0])
    assert shown(resolve(check_path(path), CONTEXT)) == row[1]


def test_every_path_is_documented() -> None:
    """The table has all fixed paths, and each open root has an example."""
    named = {guide.code(row[0])[0] for row in PATHS}
    assert FIXED - named == set(), "docs/mappings.md needs a row for these in its tables of paths"
    open_ones = {name.partition(".")[0].partition("[")[0] for name in named - FIXED}
    assert open_ones == {"answers", "meeting_type", "link", "payload"}


(TRANSFORMS,) = guide.tables("as")[:1]


@pytest.mark.parametrize("row", TRANSFORMS, ids=lambda row: f"{row[0]} {row[1]}")
def test_every_transform_gives_what_the_page_says(row: list[str]) -> None:
    """Each transform gives the result next to it in the table, or fails with those words."""
    spec, value = guide.yaml(guide.code(row[0])[0]), json.loads(guide.code(row[1])[0])
    specs = tuple(spec) if isinstance(spec, list) else (spec,)
    for item in specs:
        check_transform(item)
    if row[2].startswith("error: "):
        with pytest.raises(ValueError, match=row[2].removeprefix("error: ")):
            apply_transforms(value, specs, "Europe/Berlin")
        return
    made = apply_transforms(value, specs, "Europe/Berlin")
    wanted = json.loads(guide.code(row[2])[0])
    assert (made, type(made)) == (wanted, type(wanted))


def test_every_transform_is_documented() -> None:
    """Each transform has an example that works, with or without an argument."""
    plain, argued = set(), set()
    for row in TRANSFORMS:
        spec = guide.yaml(guide.code(row[0])[0])
        if row[2].startswith("error"):
            continue
        for item in spec if isinstance(spec, list) else [spec]:
            if isinstance(item, str):
                plain.add(item)
            else:
                argued |= set(item)
    missing = {*(set(PLAIN) - plain), *(f"{{{name}: …}}" for name in set(WITH_ARGUMENT) - argued)}
    assert missing == set(), 'docs/mappings.md, "Transforms": the table needs a row for these'


(TEMPLATES,) = guide.tables("template")


@pytest.mark.parametrize("row", TEMPLATES, ids=lambda row: row[0])
def test_every_template_gives_what_the_page_says(row: list[str]) -> None:
    """Each template gives the text next to it in the table, for the page's booking."""
    source = row[0].strip("`")
    assert f"`{render(check_template(source), CONTEXT)}`" == row[1]


def section(title: str) -> str:
    """Return the text of a section."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_what_a_template_may_use_is_documented() -> None:
    """The section names every filter, every method and the limits, and no other filter."""
    text = section("Templates")
    filters = {name for name in templates._environment.filters if not name.startswith("_")}
    listed = text.partition("and the filters")[2].partition("`date`, `time` and")[0]
    assert set(guide.code(listed)) == filters
    methods = set().union(*templates._METHODS.values())
    assert (
        set(guide.code(text.partition("the methods")[2].partition("and the filters")[0])) == methods
    )
    for limit in (templates.MAX_SOURCE, templates.MAX_RESULT):
        assert f"{limit:,} characters" in text or f"at most {limit:,}," in text


(CONDITIONS,) = guide.tables("condition")


@pytest.mark.parametrize("row", CONDITIONS, ids=lambda row: row[0])
def test_every_condition_holds_as_the_page_says(row: list[str]) -> None:
    """Each condition in the table holds or fails as the page says, for the page's booking."""
    (text,) = guide.code(row[0])
    assert row[1] in ("yes", "no")
    assert holds(check_condition(guide.yaml(text)), CONTEXT) is (row[1] == "yes")


def test_every_test_of_conditions_is_documented() -> None:
    """Each test and both groups of conditions are named and have an example."""
    for name in (*conditions._TESTS, *conditions._GROUPS):
        assert any(f"{{{name}: " in row[0] for row in CONDITIONS), name
        assert f"`{name}`" in section("Conditions"), name


# Write rules

(RULES,) = guide.tables("`write`")
SAID = datetime(2027, 1, 1, tzinfo=UTC)
REF = Ref(ObjectName.DEAL, "b")


def outcome(
    rule: WriteRule, before: FieldValue, now: FieldValue, new: FieldValue, case: str
) -> str:
    """Return what happens to a field under a rule, from the last written, the current and the new
    value.
    """
    match = Match((LookupKey(MatchKey.BOOKING, "b"),))
    record = DesiredRecord(REF, {"x": new}, {"x": rule}, match=match)
    ledger, findings = {}, LookupResults()
    if case == "known":
        ledger = {REF: LedgerEntry("1", {"x": (content_hash(before),)}, (), SAID)}
        findings = LookupResults({REF: [CrmRecord("1", {"x": now})]}, frozenset([REF]))
    elif case == "found":
        findings = LookupResults({REF: [CrmRecord("1", {"x": now})]}, frozenset([REF]))
    settled = diff_records(
        {REF: MergedRecord(record, SAID)}, ledger, SHAPES["hubspot"], Directory(), findings
    )
    (change,) = settled.plan.changes or [None]
    if change is None or "x" not in change.fields:
        return "stays"
    value = change.fields["x"]
    if value is None:
        return "emptied"
    return "written" if value == new else "added" if str(new) in str(value) else "?"


CASES = (
    (None, None, "new", "new"),
    (None, None, "new", "found"),
    (None, "theirs", "new", "found"),
    ("old", "old", "new", "known"),
    ("old", "theirs", "new", "known"),
    ("old", "old", None, "known"),
)


@pytest.mark.parametrize("row", RULES, ids=lambda row: row[0])
def test_every_write_rule_does_what_the_page_says(row: list[str]) -> None:
    """Each write rule gives the results of the table in its six cases."""
    (name,) = guide.code(row[0])
    assert [outcome(WriteRule(name), *case) for case in CASES] == row[1:]


def test_every_write_rule_is_documented() -> None:
    """The table has every write rule that a field may use."""
    assert {guide.code(row[0])[0] for row in RULES} == {r.value for r in typing.get_args(FieldRule)}


# Keys


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """Return a model and every model that its fields may hold."""
    if model not in seen:
        seen.add(model)
        for field in model.model_fields.values():
            for kind in kinds_in(field.annotation):
                models(kind, seen)
    return seen


def kinds_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return set().union(*map(kinds_in, typing.get_args(annotation)), set())


def keys_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return key in the file -> its default; `...` if it is required."""
    return {
        field.alias or name: ... if field.is_required() else field.get_default()
        for name, field in model.model_fields.items()
    }


WHERE = {
    Skip: "The file", FieldSpec: "Fields", ValueSource: "Fields", OwnerRules: "Owners",
    StageRules: "Deals", MeetingRules: "Meetings and how they went", FormRules: "Forms",
    FieldKey: "Duplicates and deleted records",
}  # fmt: skip
"""The section for the keys of a model that does not have a section of its own."""


def test_every_key_is_documented() -> None:
    """The section about a part of the file names each of its keys in backticks."""
    every = models(MappingFile, set())
    assert set(WHERE) <= every
    for model in every:
        shared = set(keys_of(RecordRules)) if model is MeetingRules else set()
        for key in set(keys_of(model)) - shared:
            text = section(WHERE[model]) if model in WHERE else PAGE
            assert f"`{key}`" in text, (model.__name__, key)


def test_every_word_that_a_key_takes_is_documented() -> None:
    """The page names each word that a key accepts: `keep_history`, `round_robin`, `flag`."""
    for model in models(MappingFile, set()):
        for name, field in model.model_fields.items():
            for word in words_in(field.annotation):
                assert f"`{word}`" in PAGE or f": {word}" in PAGE, (model.__name__, name, word)


def words_in(annotation: Any) -> set[str]:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return {item.value for item in annotation}
    if typing.get_origin(annotation) is typing.Literal:
        return {str(getattr(w, "value", w)) for w in typing.get_args(annotation)}
    return set().union(*map(words_in, typing.get_args(annotation)), set())


def test_the_defaults_on_the_page_are_those_of_the_code() -> None:
    """Each default in a table equals the model's default, and each key called required is required."""
    defaults: dict[str, list[Any]] = {}
    for model in models(MappingFile, set()):
        for key, value in keys_of(model).items():
            defaults.setdefault(key, []).append(value)
    checked = 0
    heads = ("key", "key of an entry under `skip`", "key of `stage`")
    rows = [row for head in heads for table in guide.tables(head) for row in table if len(row) > 2]
    for row in rows:
        for key in guide.code(row[0]):
            said = guide.code(row[1])
            if said and said[0] != "none":
                values = [str(getattr(value, "value", value)) for value in defaults[key]]
                assert said[0] in [v.lower() if v in ("True", "False") else v for v in values], key
                checked += 1
            elif row[1] == "required":
                assert ... in defaults[key], key
                checked += 1
    assert checked > 20


# CRMs


def test_the_objects_of_each_crm_are_as_the_page_says() -> None:
    """The table of objects has a dash exactly if the adapter does not write the object."""
    (table,) = guide.tables("section")
    assert [guide.code(row[0])[0] for row in table] == [
        "company", "contact", "lead", "deal", "case", "meeting",
    ]  # fmt: skip
    for row in table:
        name = ObjectName(guide.code(row[0])[0])
        there = [name in SHAPES[crm].objects for crm in ("hubspot", "pipedrive", "salesforce")]
        assert [cell != "–" for cell in row[1:4]] == there, name


def test_the_match_keys_of_each_crm_are_as_the_page_says() -> None:
    """The table has a key for an object and CRM exactly if a mapping may use it there."""
    (table,) = [t for t in guide.tables("key") if len(t[0]) == 6]
    crms = ("hubspot", "pipedrive", "salesforce")
    said = {
        (guide.code(row[0])[0], row[1], crm): cell != "–"
        for row in table
        for crm, cell in zip(crms, row[2:5], strict=True)
    }
    usable = {
        (key.value, name.value, crm): not list(
            Checker(SHAPES[crm], Directory(), crm)._match(name, (key.value,), ())
        )
        for crm in crms
        for name in (ObjectName.CONTACT, ObjectName.LEAD, ObjectName.COMPANY)
        for key in (MatchKey.EMAIL, MatchKey.SECONDARY_EMAIL, MatchKey.PHONE, MatchKey.DOMAIN)
        if name in SHAPES[crm].objects
    }
    for place, works in usable.items():
        assert said.get(place, False) is works, place
    assert all(said[("record_id", "every object", crm)] for crm in crms)


def test_what_the_page_links_to_is_there() -> None:
    """Every link within the page leads to one of its headings."""
    heads = re.findall(r"^#+ (.+)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    for target in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert target in anchors, target


def test_providers_and_names_are_all_there() -> None:
    """The page begins with files of existing CRMs, and says correctly that first and last name are
    written together.
    """
    named = re.findall(r"`(\w+)\.yaml`", PAGE.partition("\n\n")[2].partition("\n\n")[0])
    assert named[:3] == ["hubspot", "pipedrive", "salesforce"] and set(named) <= set(PROVIDERS)
    assert {"attendee.first_name", "attendee.last_name"} <= NAME_PATHS
