"""Mistakes of newcomers in a mapping file, through the command that they run: `bridge mappings check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge import Bridge

HEAD = "version: 1\ncrm: hubspot\n"


def field(source: str) -> str:
    """Return a file with one field, `goal`, in line 5."""
    return f"{HEAD}contact:\n  fields:\n    goal: {source}\n"


SLIPS: dict[str, tuple[str | bytes, list[str]]] = {
    "a tab": (
        HEAD + "contact:\n\tfields: {}\n",
        ["4: fields: this line begins with a tab; indent with blanks, two for each level"],
    ),
    "an indent that no section has": (
        field("attendee.email\n   phone: attendee.phone"),
        ["6: phone: this line begins with 3 blanks, but no section above has keys with that "
         "indent: indent it like the keys beside it"],
    ),
    "an indent too deep": (
        field("attendee.email\n      phone: attendee.phone"),
        ["6: phone: this line is indented deeper than line 5, which has a value already: begin it "
         "with the same number of blanks, 4"],
    ),
    "an indent too small": (
        HEAD + "contact:\n  fields:\n  email: attendee.email\n",
        ["4: contact.fields: this must be keys and values; indent the lines that belong to it "
         "deeper, or remove it",
         "5: contact.email: this key is not known here; a field of the CRM belongs under fields: "
         "{fields: {email: …}}"],
    ),
    "a colon in a question": (
        field("answers.Which plan: do you want"),
        ["5: goal: a colon with a blank ends a key; a value that contains them needs quotes: "
         "'answers[\"Which plan: do you want\"]'"],
    ),
    "blanks in a question": (
        field("answers.Which plan"),
        ["5: contact.fields.goal: there is no path 'answers.Which plan'; write "
         "'answers[\"Which plan\"]', with both kinds of quotes"],
    ),
    "a bracket in braces": (
        field('{from: answers["Budget"], as: number}'),
        ["5: goal: inside braces and lists this value needs quotes: 'answers[\"Budget\"]'"],
    ),
    "a template without quotes": (
        field("{{ attendee.email }}"),
        ['5: contact.fields.goal: a template needs quotes: {template: "{{ attendee.email }}"}'],
    ),
    "a template of text and braces": (
        field("{template: Hello {{ attendee.email }}}"),
        ['5: goal: a template needs quotes: template: "Hello {{ attendee.email }}"'],
    ),
    "a bare constant": (
        field("lead"),
        ["5: contact.fields.goal: there is no path 'lead'; a constant is written {value: lead}"],
    ),
    "a field outside fields": (
        HEAD + "deal:\n  dealname: meeting_type.name\n",
        ["4: deal.dealname: this key is not known here; a field of the CRM belongs under fields: "
         "{fields: {dealname: …}}"],
    ),
    "a field outside every section": (
        HEAD + "goal: answers.Goal\n",
        ["3: goal: this key is not known here; a field of the CRM belongs into a section: "
         "{contact: {fields: {goal: …}}}"],
    ),
    "the CRM in capitals": (
        "version: 1\ncrm: HubSpot\ncontact: {fields: {email: attendee.email}}\n",
        ["2: crm: there is no CRM 'HubSpot'; did you mean hubspot?"],
    ),
    "no such CRM": (
        "version: 1\ncrm: zoho\n",
        ["2: crm: there is no CRM 'zoho'; there are: hubspot, pipedrive, salesforce"],
    ),
    "a list instead of keys": (
        HEAD + "contact:\n  fields:\n    - email: attendee.email\n",
        ["4: contact.fields: this must be keys and values, not a list: remove the dashes or "
         "brackets"],
    ),
    "an empty file": (
        "",
        ["1: the file is empty; it must begin with two lines, version: 1 and crm: with the CRM's "
         "name"],
    ),
    "no version": ("crm: hubspot\n", ["1: version is missing; a file begins with version: 1"]),
    "curly quotes": (
        field("{from: ‘answers[“Budget”]’}"),
        ["5: goal: YAML does not accept curly quotes; write straight ones, ' or \""],
    ),
    "curly quotes around a question": (
        field("answers[“Budget”]"),
        ["5: contact.fields.goal: there is no path 'answers[“Budget”]'; write "
         "'answers[\"Budget\"]', with both kinds of quotes"],
    ),
    "curly quotes around a constant": (
        field("{value: “lead”}"),
        ["5: contact.fields.goal.value: '“lead”' would be written with its curly quotes; write "
         "{value: lead}, or a template if you want them"],
    ),
    "as: map: in one line": (
        field("{from: answers.A, as: map: {x: y}}"),
        ["5: goal: map needs braces around it and its value: as: {map: {answer: value}}"],
    ),
    "map: without braces": (
        field("\n      from: answers.A\n      as:\n        map: x: y"),
        ["8: map: map needs braces around its answers and values: map: {x: y}"],
    ),
    "map beside as": (
        field("\n      from: answers.A\n      as:\n      map:\n        x: y"),
        ["7: contact.fields.goal.as: there is no transform: indent the lines under as deeper than "
         "as",
         "8: contact.fields.goal.map: this key is not known here; a transform belongs under as: "
         "{as: {map: …}}"],
    ),
    "Latin-1": (
        field("answers.Größe").encode("latin-1"),
        ["5: this line is not readable as UTF-8; let your editor save the file as UTF-8"],
    ),
    "a question mark": (
        field("answers.Budget?"),
        ["5: contact.fields.goal: there is no path 'answers.Budget?'; write "
         "'answers[\"Budget?\"]', with both kinds of quotes"],
    ),
    "a date of letters": (
        field('{from: booking.start, as: {date: "DD.MM.YYYY"}}'),
        ["5: contact.fields.goal.as: 'DD.MM.YYYY' would be written in these very letters; write "
         '"%d.%m.%Y"'],
    ),
}  # fmt: skip
"""What people got wrong in their first hour -> the sentences that tell them the right form."""


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A service with one CRM, which the tests leave as it is."""
    folder = tmp_path_factory.mktemp("slips")
    made = Bridge(f"sqlite:///{folder}/bridge.sqlite3", ("hubspot",))
    yield made
    made.close()


@pytest.mark.parametrize("name", SLIPS)
def test_a_newcomers_slip_is_told_with_the_right_form(
    still: Bridge, tmp_path: Path, name: str
) -> None:
    """Each slip ends in exit code 1 and a sentence with line, key and the form that works."""
    text, sentences = SLIPS[name]
    file = tmp_path / "m.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = still.app.test_cli_runner().invoke(args=["mappings", "check", str(file)])
    assert (done.exit_code, done.stdout) == (1, "")
    wanted = "\n".join(f"m.yaml:{sentence}" for sentence in sentences)
    assert done.stderr.strip() == f"Error: {wanted}"
