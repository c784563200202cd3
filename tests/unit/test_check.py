"""Checking a mapping file reports every mistake once, on its own line, with the possible values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.crm.lookup import MatchKey
from app.crm.objects import ObjectName
from app.crm.schema import (
    CrmField,
    CrmShape,
    Directory,
    FieldKind,
    FieldOption,
    NewField,
    Pipeline,
    Stage,
)
from app.domain.errors import MappingError
from app.mapping.check import check_against
from app.mapping.load import MappingText
from app.mapping.provision import AFTER
from app.mapping.transforms import PLAIN, WITH_ARGUMENT

HEAD = "version: 1\ncrm: test\n"
SHAPE = CrmShape(
    owner_fields=dict.fromkeys(ObjectName, "owner"),
    pipeline_field="pipe",
    stage_field="stage",
    stage_by_label=False,
    text_limits={},
    objects=(ObjectName.CONTACT, ObjectName.COMPANY, ObjectName.DEAL, ObjectName.MEETING),
    native_keys={ObjectName.CONTACT: MatchKey.EMAIL},
    match_keys={ObjectName.CONTACT: (MatchKey.PHONE,), ObjectName.COMPANY: (MatchKey.DOMAIN,)},
    needs={
        ObjectName.CONTACT: (("mail", "name"),),
        ObjectName.MEETING: (("at",), ("end", "minutes")),
    },
    new_fields={ObjectName.CONTACT: "[a-z_]+"},
)
OPTIONS = (FieldOption("LEAD", "A lead"), FieldOption("CUSTOMER", "A customer"))
FIELDS = {
    field.name: field
    for field in (
        CrmField("mail", "E-mail"),
        CrmField("name", "Full name"),
        CrmField("score", "Score", FieldKind.NUMBER),
        CrmField("seats", "Seats", FieldKind.WHOLE),
        CrmField("optin", "Opt-in", FieldKind.FLAG),
        CrmField("day", "Day", FieldKind.DATE),
        CrmField("at", "At", FieldKind.MOMENT),
        CrmField("clock", "Clock", FieldKind.TIME),
        CrmField("stage_of_life", "Lifecycle", FieldKind.CHOICE, options=OPTIONS),
        CrmField("tags", "Tags", FieldKind.CHOICES, options=OPTIONS),
        CrmField("other", "Other", FieldKind.OTHER),
        CrmField("parent", "Parent", FieldKind.REFERENCE),
        CrmField("made", "Made", FieldKind.MOMENT, writable=False),
        CrmField("blob", "Blob", searchable=False),
    )
}
DIRECTORY = Directory(
    owners={"john@acme.example": "1", "mary@acme.example": "2"},
    pipelines=(
        Pipeline("p1", "Sales", (Stage("s1", "New"), Stage("s2", "Won", closed=True))),
        Pipeline("p2", "Renewals", (Stage("r1", "Due"), Stage("r2", "Talks"))),
    ),
    schema={
        ObjectName.CONTACT: FIELDS,
        ObjectName.DEAL: {
            "title": CrmField("title", "Title", required=True),
            "owner": CrmField("owner", "Owner", required=True),
            "stage": CrmField("stage", "Stage", required=True),
        },
    },
)


def said(text: str, directory: Directory = DIRECTORY) -> list[str]:
    """Return the mistakes of a file, as `line: words`."""
    document = MappingText("f.yaml", HEAD + text, "test")
    if document.mapping:
        for complaint in check_against(document.mapping, SHAPE, directory):
            if not document.left_out(complaint.location):
                document.note(complaint.location, complaint.message)
    return [line.removeprefix("f.yaml:") for line in document.lines()]


def test_a_good_file_has_nothing_said_of_it() -> None:
    """A valid file with names and labels of pipelines and stages, several rules and overrides gives
    no mistake.
    """
    text = """
owner: {rule: table, table: {a@x.example: JOHN@acme.example}, fallback: mary@acme.example}
contact:
  match: [record_id, email, phone, {field: name, from: attendee.full_name}]
  record_id: meeting_type.metadata.contact
  fields:
    mail: attendee.email
    score: {from: answers.Score, as: number}
    day: booking.start
    at: {value: 2026-12-01}
    optin: attendee.is_booker
    stage_of_life: {value: a LEAD}
    tags: {value: [LEAD, a customer]}
deal:
  - when: {booking.minutes: {above: 30}}
    pipeline: p2
    stage: {created: due, cancelled: R2}
    fields: {title: meeting_type.name}
  - fields: {title: meeting_type.name}
meeting_types:
  demo: {deal: none}
  empty:
"""
    assert said(text) == []


KINDS = [
    ("score", "attendee.email", True), ("score", "booking.minutes", False),
    ("score", "booking.start", True), ("score", "answers.Score", False),
    ("seats", "attendee.position", False), ("seats", "booking.cancelled", True),
    ("optin", "booking.cancelled", False), ("optin", "attendee.email", True),
    ("day", "booking.start", False), ("day", "booking.minutes", True),
    ("day", "{from: booking.start, as: date}", False),
    ("day", "{from: booking.start, as: time}", True),
    ("at", "{from: booking.start, as: iso}", False), ("at", "meeting_type.name", True),
    ("at", "{from: booking.start, as: {add_days: 3}}", False),
    ("clock", "{from: booking.start, as: time}", False), ("clock", "booking.start", True),
    ("clock", "{from: booking.minutes, as: hh_mm}", False),
    ("tags", "booking.host_names", False), ("tags", "booking.start", True),
    ("stage_of_life", "{from: booking.start, as: {date: '%Y'}}", False),
    ("parent", "booking.start", True), ("parent", "attendee.id", False),
    ("other", "booking.start", False),
    ("score", "{first_of: [booking.minutes, attendee.email]}", True),
    ("score", "{from: booking.minutes, as: {map: {'30': 5}}}", False),
    ("score", "{from: booking.minutes, as: {map: {'30': five}}}", True),
    ("score", "{from: answers.X, as: [number, {default: none}]}", True),
    ("score", "{value: 5}", False), ("score", "{value: '5'}", False), ("score", "{value: x}", True),
    ("seats", "{value: 5.5}", True), ("optin", "{value: true}", False),
    ("day", "{value: soon}", True), ("day", "{value: 2026-12-24}", False),
    ("stage_of_life", "{value: boss}", True),
    ("stage_of_life", "{template: boss}", True), ("stage_of_life", "{template: a lead}", False),
    ("stage_of_life", "{template: '{{ answers.X }}'}", False), ("tags", "{template: boss}", True),
    ("stage_of_life", "{template: x, as: {map: {x: LEAD}}}", False),
    ("score", "{summary: all}", True), ("score", "{template: '{{ booking.minutes }}'}", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "wrong"), KINDS)
def test_types(name: str, source: str, wrong: bool) -> None:
    """A value that never fits a field's type is a mistake; one that depends on the booking is not."""
    found = said(f"contact:\n  fields:\n    mail: attendee.email\n    {name}: {source}\n")
    assert len(found) == wrong
    if wrong:
        assert found[0].startswith(f"6: contact.fields.{name}")


def test_the_kind_after_every_transform_is_known() -> None:
    """A transform makes one kind of value, or keeps the kind that it gets."""
    others = {"strip", "datetime", "first_of", "map", "default"}
    unknown = {*PLAIN, *WITH_ARGUMENT} - set(AFTER) - others
    assert unknown == set(), "add what these make to AFTER in app/mapping/provision.py, or here"


def test_every_mistake_of_a_list_has_its_own_line() -> None:
    """Mistakes in one list do not hide each other, nor the CRM's complaints about the rest."""
    text = """contact:
  match:
    - emial
    - email
    - {field: nope, from: attendee.email}
    - {feild: name, from: attendee.email}
    - {field: blob, from: attendee.email}
    - fone
  fields: {mail: attendee.email}
skip:
  - {when: {attendee.email: a}}
  - {when: {attendee.emial: a}}
  - {because: x}
  - {when: {booking.state: done}}
"""
    assert [line.split(":")[0] for line in said(text)] == ["5", "7", "8", "8", "9", "10", "14", "15", "16"]  # fmt: skip
    assert "9: contact.match.4: a contact of test cannot be looked up by blob (Blob)" in said(text)


def test_one_slip_is_one_mistake() -> None:
    """If a place allows several forms, only mistakes of the intended form are reported."""
    text = (
        "contact:\n  match: [emial]\n  fields:\n    mail: [attendee.email]\nattendees: {wen: {}}\n"
    )
    assert said(text) == [
        "4: contact.match.0: there is no 'emial' here; did you mean email?; there are: record_id, "
        "email, secondary_email, phone",
        "6: contact.fields.mail: this must be keys and values, not a list: remove the dashes or "
        "brackets",
        "7: attendees: when is missing",
        "7: attendees.wen: this key is not known here; did you mean when?",
    ]


def test_a_mistake_is_no_lacking_field() -> None:
    """A required field with a mistake is not also reported as missing."""
    assert said("deal: {fields: {title: meeting_type.nme}}") == [
        "3: deal.fields.title: there is no path 'meeting_type.nme'; did you mean meeting_type.name?"
    ]
    assert said("deal:\n  fields: {}\n") == [
        "4: deal.fields: test requires title (Title) for every deal"
    ]
    assert said("deal: {create: false, fields: {}}") == []
    assert said("contact:\n  fields: {day: booking.start}\n") == [
        "4: contact.fields: test requires mail or name for every contact"
    ]


def test_each_group_of_demanded_fields_is_asked_for() -> None:
    """Each group of required fields needs one of its fields, whichever it is."""
    assert said("meeting:\n  fields: {}\n") == [
        "4: meeting.fields: test requires at for every meeting",
        "4: meeting.fields: test requires end or minutes for every meeting",
    ]
    assert said("meeting: {fields: {at: booking.start, minutes: booking.minutes}}") == []
    assert said("meeting: {create: false}") == []


def test_what_keys_of_the_file_set_is_not_set_twice() -> None:
    """A field that another key sets, such as stage, pipeline or owner, is a mistake that names this
    key.
    """
    text = """contact: {fields: {mail: attendee.email, owner: host.email}}
deal:
  fields:
    title: meeting_type.name
    stage: {value: s1}
    pipe: {value: p1}
    owner: {value: mary@acme.example}
"""
    directory = replace(
        DIRECTORY,
        schema={
            ObjectName.CONTACT: {**FIELDS, "owner": CrmField("owner", "Owner")},
            ObjectName.DEAL: {n: CrmField(n, n) for n in ("title", "stage", "pipe", "owner")},
        },
    )
    owner = (
        "owner takes the CRM's ids, but this value may be another text; the key owner finds the "
        "user by e-mail: owner: {rule: host_email}, or {rule: fixed, user: …}"
    )
    assert said(text, directory) == [
        f"3: contact.fields.owner: {owner}",
        "7: deal.fields.stage: stage is overwritten by the key stage: write deal: "
        "{stage: {created: …, cancelled: …}}",
        "8: deal.fields.pipe: pipe is overwritten by the key pipeline: write deal: {pipeline: …}",
        f"9: deal.fields.owner: {owner}",
    ]
    for good in ("{value: 00G5e000001}", "{from: answers.Team, as: {map: {a: 7, b: 8}}}"):
        text = f"contact: {{fields: {{mail: attendee.email, owner: {good}}}}}"
        assert said(text, directory) == []


def test_version_and_crm_are_asked_for() -> None:
    """A file without version or crm still has its other parts checked."""
    document = MappingText("f.yaml", "contact: {fields: {mail: attendee.emial}}\n", "test")
    assert sorted(document.lines()) == [
        "f.yaml:1: contact.fields.mail: there is no path 'attendee.emial'; did you mean attendee.email?",
        "f.yaml:1: crm is missing",
        "f.yaml:1: version is missing; a file begins with version: 1",
    ]
    other = MappingText("f.yaml", "version: 3\ncrm: other\n", "test")
    assert [line[:8] for line in other.lines()] == ["f.yaml:1", "f.yaml:2"]


def test_what_is_inherited_is_said_once() -> None:
    """An override reports only its own mistakes, even if it repeats an inherited one."""
    text = """contact:
  fields:
    mail: attendee.email
    nope: attendee.email
meeting_types:
  a: {contact: {fields: {score: booking.minutes}}}
  b: {contact: {fields: {nope: attendee.email}}}
hosts:
  X@acme.example: {contact: {fields: {nope: attendee.phone}}}
"""
    assert [line.split(":")[:2] for line in said(text)] == [
        ["6", " contact.fields.nope"],
        ["9", " meeting_types.b.contact.fields.nope"],
        ["11", " hosts.X@acme.example.contact.fields.nope"],
    ]


def test_a_type_and_a_host_together_are_checked() -> None:
    """A stage of one pipeline is a mistake in an override that uses another pipeline."""
    text = """deal:
  fields: {title: meeting_type.name}
meeting_types:
  renewal: {deal: {pipeline: Renewals}}
hosts:
  mary@acme.example:
    deal:
      stage: {created: Won}
"""
    assert said(text) == [
        "10: hosts.mary@acme.example.deal.stage.created: there is no stage 'Won' in Renewals; "
        "there are: Due, Talks"
    ]


def test_owners_are_users() -> None:
    """Each named owner must be a user of the CRM, if the users are known."""
    text = """owner:
  rule: table
  table:
    a@x.example: jon@acme.example
    b@x.example: mary@acme.example
  fallback: nobody
"""
    found = said(text)
    assert found == [
        "6: owner.table.a@x.example: jon@acme.example is not a user of this test account; "
        "did you mean john@acme.example?",
        "8: owner.fallback: nobody is not a user of this test account",
    ]
    assert said(text, Directory()) == []


def test_owner_rules_need_their_key() -> None:
    """An owner rule without its key is refused at its line."""
    assert said("owner: {rule: fixed}") == ["3: owner: the rule fixed needs user"]
    assert said("contact: {match: [record_id], fields: {mail: attendee.email}}") == [
        "3: contact: match by record_id needs the key record_id with the path of the id"
    ]
    assert said(
        "meeting: {record_id: {from: link.m, of: attendee}, fields: {a: booking.start}}"
    ) == ["3: meeting: of: attendee works only in contact, lead, company, deal and case"]
    assert said("company: {record_id: {from: link.d, of: atendee}}", Directory()) == [
        "3: company.record_id.of: there is no 'atendee' here; did you mean attendee?; there are: anybody, attendee"
    ]


def test_forms_are_checked() -> None:
    """The form_submission section is checked against the CRM's schema too."""
    assert said("form_submission: {as: lead}") == ["3: form_submission.as: test has no lead here"]
    assert said(
        "form_submission:\n  fields:\n    mail: attendee.email\n    nam: attendee.email\n"
    ) == ["6: form_submission.fields.nam: the CRM's contact has no field 'nam'; did you mean name?"]
    assert said("form_submission: {fields: {score: booking.minutes}}") == [
        "3: form_submission.fields: test requires mail or name for every contact"
    ]


def test_which_fields_can_be_made() -> None:
    """A missing field is offered with the type of its values, if the CRM allows it."""
    text = """contact:
  fields:
    mail: attendee.email
    a: {value: 5}
    b: {value: true}
    c: booking.start
    d: {from: booking.start, as: date}
    e: booking.minutes
    f: booking.cancelled
    g: answers.X
    h: {from: answers.X, as: number}
    Not Usable: attendee.email
deal: {fields: {title: meeting_type.name, i: attendee.email}}
"""
    document = MappingText("f.yaml", HEAD + text, "test")
    assert document.mapping
    made = [c.missing for c in check_against(document.mapping, SHAPE, DIRECTORY) if c.missing]
    kinds = [FieldKind.NUMBER, FieldKind.FLAG, FieldKind.MOMENT, FieldKind.DATE, FieldKind.WHOLE, FieldKind.FLAG, FieldKind.TEXT,
             FieldKind.NUMBER]  # fmt: skip
    assert made == [
        NewField(ObjectName.CONTACT, name, kind)
        for name, kind in zip("abcdefgh", kinds, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contact: {a: 1, a: 2}", "3: contact: the key 'a' occurs twice here"),
        ("contact: [", "3: "),
        ("contact: &a {fields: *a}", "keys and values"),
        ("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 8)}]\n" for p, n in zip("abcdefg", "bcdefgh", strict=True)), "aliases"),
        ("contact: !!python/object:os.system {}", "3: "),
        ("contact: {fields: {mail: !env x}}", ""),
    ],
)  # fmt: skip
def test_odd_yaml_is_refused(text: str, words: str) -> None:
    """Duplicate keys, loops of aliases and tags are refused with a sentence and a line."""
    try:
        found = said(text)
    except MappingError as error:
        found = [str(error).removeprefix("f.yaml:")]
    assert found and any(words in line for line in found)


def test_days_need_no_quotes() -> None:
    """A day in YAML without quotes is a text like any other."""
    text = "contact: {fields: {mail: attendee.email, name: {value: 2026-12-01}}}\n"
    document = MappingText("f.yaml", HEAD + text, "test")
    assert document.lines() == []
    assert document.mapping
    contact = document.mapping.rules_for(None).contact
    assert contact and contact.fields["name"].value == "2026-12-01"


WORDS = """version crm contact company deal meeting lead case owner skip attendees fields match when
record_id several create as from value template first_of summary answers write on_error rule user
users table fallback pipeline stage created rescheduled cancelled per backwards on_reschedule
on_cancel meeting_types hosts recheck_links_after assignment_rules form_submission after_hours
because field any all not above contains"""
keys = st.sampled_from(WORDS.split())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["attendee.email", "none", "first", "keep", "email", "{{ x }}", "always"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(keys | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(keys, values, max_size=6))
def test_any_document_is_a_mapping_or_has_mistakes(document: dict[str, Any]) -> None:
    """Any document is a valid mapping, or has mistakes with words and lines."""
    text = json.dumps({"version": 1, "crm": "test", **document}, indent=1)
    found = MappingText("f.yaml", text, "test")
    for mistake in found.mistakes:
        assert mistake.message and 1 <= mistake.line <= text.count("\n") + 1
        assert "Input should" not in mistake.message
    if not found.mistakes:
        assert found.mapping
        check_against(found.mapping, SHAPE, DIRECTORY)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_read(text: str) -> None:
    """Any file gives mistakes, or a MappingError with file and line."""
    try:
        MappingText("f.yaml", text, "test")
    except MappingError as error:
        assert str(error).startswith("f.yaml:")


def test_leads_that_stand_for_deals_where_there_are_none() -> None:
    """A file that uses leads as deals has a mistake at each place, unless the CRM has such leads."""
    text = """
deal:
  as: lead
  fields: {title: meeting_type.name}
meeting_types:
  demo: {deal: [{when: {booking.minutes: {above: 30}}}, {as: lead}]}
"""
    words = "test cannot use leads in place of deals here"
    missing = "test requires title (Title) for every deal"
    found = [line for line in said(text) if missing not in line]
    assert found == [f"5: deal.as: {words}", f"8: meeting_types.demo.deal.1.as: {words}"]
