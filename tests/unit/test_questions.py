"""The questions and meeting types of a mapping file are compared with those of stored bookings."""

from __future__ import annotations

import pytest

from app.mapping.load import MappingText
from app.mapping.questions import MOST_NAMED, KnownQuestions, doubts, questions_of

HEAD = "version: 1\ncrm: hubspot\n"
EVERYWHERE = """
skip: [{when: {any: [{answers.Skip: x}, {all: [{'answers["Skip too"]': y}]}]}}]
attendees: {when: {answers.Who: {not: me}}}
contact:
  when: {answers.Contact: yes}
  record_id: {first_of: [link.contact, answers.Id]}
  match: [record_id, email, {field: number, from: answers.Number}]
  fields:
    a: answers.A
    b: {first_of: [answers.B, 'answers["B too"]']}
    c: {template: "{{ answers['C'] or answers.get('C too') or answers.CC }}{% for q, a in answers.items() %}{{ a }}{% endfor %}"}
    d: {value: x, when: {answers.D: {empty: false}}}
    e: {first_of: [attendee.email, link.E, meeting_type.metadata.E, payload.answers.E]}
    f: {answers: unmapped}
deal:
  - when: {answers.Deal: x}
    fields: {g: answers.G}
  - fields: {g: answers.H}
meeting_types:
  demo:
    contact: {fields: {a: answers.A, h: answers.I}}
form_submission:
  fields: {j: answers.J}
"""


def known(*questions: str, types: tuple[str, ...] = ("demo",), bookings: int = 5) -> KnownQuestions:
    """Return the questions and types of stored bookings."""
    return KnownQuestions(bookings, True, questions, types)


def said(text: str, there: KnownQuestions) -> list[str]:
    """Return the printed warnings of a file."""
    document = MappingText("m.yaml", HEAD + text, "hubspot")
    assert document.lines() == []
    assert document.mapping
    for doubt in doubts(document.mapping, there):
        document.warn(doubt.location, doubt.message)
    return [line.removeprefix("m.yaml:") for line in document.warning_lines()]


def test_every_place_of_a_question_is_known() -> None:
    """Questions are found in conditions, record ids, keys, paths, templates, overrides and forms;
    an inherited one counts once.
    """
    mapping = MappingText("m.yaml", HEAD + EVERYWHERE, "hubspot").mapping
    assert mapping
    found = [(".".join(map(str, place)), label) for place, label in questions_of(mapping)]
    assert found == [
        ("skip.0.when", "Skip"), ("skip.0.when", "Skip too"), ("attendees.when", "Who"),
        ("contact.when", "Contact"), ("contact.record_id", "Id"), ("contact.match.2", "Number"),
        ("contact.fields.a", "A"), ("contact.fields.b", "B"), ("contact.fields.b", "B too"),
        ("contact.fields.c", "C"), ("contact.fields.c", "C too"), ("contact.fields.c", "CC"),
        ("contact.fields.d", "D"), ("deal.0.when", "Deal"), ("deal.0.fields.g", "G"),
        ("deal.1.fields.g", "H"), ("meeting_types.demo.contact.fields.a", "A"),
        ("meeting_types.demo.contact.fields.h", "I"), ("form_submission.fields.j", "J"),
    ]  # fmt: skip


def test_what_no_booking_answers_is_told_with_what_there_is() -> None:
    """The warning names the question, the nearest one and all existing ones, at the field's line."""
    text = "contact:\n  fields:\n    goal: 'answers[\"Which plan do you want?\"]'\n"
    assert said(text, known("Budget", "Which plan do you like?")) == [
        "5: contact.fields.goal: no stored booking answers 'Which plan do you want?'; did you mean "
        "'Which plan do you like?'?; there are: 'Budget', 'Which plan do you like?'"
    ]
    assert said(text, known()) == [
        "5: contact.fields.goal: no stored booking answers 'Which plan do you want?'; there is none"
    ]


@pytest.mark.parametrize("label", ["budget", "  BUDGET ", "Budget"])
def test_case_and_blanks_make_no_other_question(label: str) -> None:
    """A question is the same in any case and with any blanks, as in the sync."""
    assert said(f"contact: {{fields: {{a: 'answers[\"{label}\"]'}}}}\n", known("Budget")) == []


def test_a_meeting_type_that_nobody_booked() -> None:
    """A key under meeting_types without a booking gives a warning; one with a booking does not."""
    text = "meeting_types:\n  dmeo: {deal: none}\n  demo: {deal: none}\n"
    assert said(text, known(types=("demo", "support"))) == [
        "4: meeting_types.dmeo: no stored booking is of the meeting type 'dmeo'; did you mean "
        "'demo'?; there are: 'demo', 'support'"
    ]


def test_nothing_is_said_where_no_booking_is_stored() -> None:
    """Before the first booking no question is known, so there is no warning."""
    assert said(EVERYWHERE, known(bookings=0, types=())) == []


def test_sentences_stay_short() -> None:
    """Many or long questions are shown in part, with the number of the others."""
    many = tuple(f"{n:03} " + "x" * 500 for n in range(MOST_NAMED + 7))
    (line,) = said("contact: {fields: {a: answers.A}}\n", known(*many))
    assert line.endswith(" and 7 more") and len(line) < 2_000
    there = KnownQuestions(1_000, False, ("B",))
    assert said("contact: {fields: {a: answers.A}}\n", there) == [
        "3: contact.fields.a: none of the 1,000 bookings that changed last answers 'A'; there are: 'B'"
    ]
