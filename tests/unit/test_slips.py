"""Each slip in a mapping file is reported with file, line, key and the correction."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import MappingError
from app.mapping.load import MappingText, read_text

HEAD = "version: 1\ncrm: hubspot\n"


def said(text: str) -> list[str]:
    """Return the mistakes of a file, without its name."""
    try:
        found = MappingText("m.yaml", text, "hubspot").lines()
    except MappingError as error:
        found = str(error).splitlines()
    return [line.removeprefix("m.yaml:") for line in found]


def field(source: str) -> str:
    """Return a file with one field, `goal`, in line 5."""
    return f"{HEAD}contact:\n  fields:\n    goal: {source}\n"


WHOLE = [
    (HEAD + "contact:\n\tfields: {}\n", "4: fields: this line begins with a tab; indent with blanks, two for each level"),
    (field("\tattendee.email"), "5: goal: this line contains a tab; write a blank instead"),
    (field("attendee.email\n   phone: attendee.phone"), "6: phone: this line begins with 3 blanks, but no section above has keys with that indent: indent it like the keys beside it"),
    (field("attendee.email\n      phone: attendee.phone"), "6: phone: this line is indented deeper than line 5, which has a value already: begin it with the same number of blanks, 4"),
    (HEAD + " contact: {}\n", "3: contact: this line is indented deeper than line 2, which has a value already: begin it with the same number of blanks, 0"),
    (field("x\n    - phone: y"), "6: phone: this part has keys and values, but a dash begins a list; remove the dash"),
    (field("answers.What: your goal"), """5: goal: a colon with a blank ends a key; a value that contains them needs quotes: 'answers["What: your goal"]'"""),
    (field('answers["What: goal"]  # mine'), """5: goal: a colon with a blank ends a key; a value that contains them needs quotes: 'answers["What: goal"]'"""),
    (field("{value: Demo: it's}"), "5: goal: a colon with a blank ends a key; a value that contains them needs quotes: 'Demo: it''s'"),
    (field('{from: answers["Budget"], as: number}'), """5: goal: inside braces and lists this value needs quotes: 'answers["Budget"]'"""),
    (field('{first_of: [answers["A: b"], answers.C]}'), """5: goal: inside braces and lists this value needs quotes: 'answers["A: b"]'"""),
    (HEAD + 'contact:\n  when: {answers["Budget"]: 4}\n', """4: when: inside braces and lists this value needs quotes: 'answers["Budget"]'"""),
    (field("{value: a[b]}"), "5: goal: inside braces and lists this value needs quotes: 'a[b]'"),
    (field("{template: {{ attendee.email }}: x}"), '5: goal: a template needs quotes: template: "{{ attendee.email }}"'),
    (field("{template: Demo: {{ attendee.email }}}"), '5: goal: a template needs quotes: template: "Demo: {{ attendee.email }}"'),
    (HEAD + "contact:\n  fields:\n    goal:\n      template: {{ attendee.email }} x\n", '6: template: a template needs quotes: template: "{{ attendee.email }}"'),
    (field("{from: ‘answers[“Budget”]’}"), "5: goal: YAML does not accept curly quotes; write straight ones, ' or \""),
    (field("{template: “{{ attendee.email }}”}"), "5: goal: YAML does not accept curly quotes; write straight ones, ' or \""),
    (field("{from: answers.A, as: map: {x: y}}"), "5: goal: map needs braces around it and its value: as: {map: {answer: value}}"),
    (field("\n      from: answers.A\n      as: truncate: 5"), "7: as: truncate needs braces around it and its value: as: {truncate: …}"),
    (HEAD + "contact:\n  fields: {email: attendee.email\ndeal: none\n", "4: fields: a comma or the closing } is missing after this { before line 5"),
    (field("{from: attendee.email as: lower: x, b}"), "5: goal: a colon with a blank ends a key; a value that contains them needs quotes: 'attendee.email as: lower: x'"),
    (field("'answers.X\n    phone: y"), "5: goal: the quote that begins here is never closed"),
    (field("'What's up'"), "5: goal: text follows after the end of this value: put quotes around all of it, and use the other kind of quote inside"),
    (field("@home"), "5: goal: a value that begins with @ needs quotes: '@…'"),
    (field("*x"), "5: goal: a value that begins with * needs quotes: '*x'"),
    (HEAD + "contact: {}\ncontact: {}\n", "4: contact: the key 'contact' occurs twice here; keep one of them"),
    (HEAD + "contact:\n  fields:\n    email:attendee.email\n    phone: attendee.phone\n", "5: a blank is missing after the colon: email: attendee.email"),
    (HEAD + "contact\ndeal: none\n", "3: a colon and a blank are missing here: write key: value"),
    ("", "1: the file is empty; it must begin with two lines, version: 1 and crm: with the CRM's name"),
    ("# nothing yet\n", "1: the file is empty; it must begin with two lines, version: 1 and crm: with the CRM's name"),
    ("- version: 1\n- crm: hubspot\n", "1: the file must hold keys and values, not a list: remove the dashes"),
]  # fmt: skip
"""Files that are no YAML or no table: each gives one sentence for the whole file."""


@pytest.mark.parametrize(("text", "sentence"), WHOLE)
def test_slips_in_yaml_are_named(text: str, sentence: str) -> None:
    """A YAML error is reported by its most likely cause, with line and key."""
    assert said(text) == [sentence]


PLACED = [
    ("answers.Which plan", """there is no path 'answers.Which plan'; write 'answers["Which plan"]', with both kinds of quotes"""),
    ("answers.Budget?", """there is no path 'answers.Budget?'; write 'answers["Budget?"]', with both kinds of quotes"""),
    ("answers[What's up]", """there is no path "answers[What's up]"; write 'answers["What''s up"]', with both kinds of quotes"""),
    ("answers[“Budget”]", """there is no path 'answers[“Budget”]'; write 'answers["Budget"]', with both kinds of quotes"""),
    ("link.deal id", """there is no path 'link.deal id'; write 'link["deal id"]', with both kinds of quotes"""),
    ("answers", """there is no path 'answers'; write 'answers["…"]', with both kinds of quotes"""),
    ("lead", "there is no path 'lead'; a constant is written {value: lead}"),
    ("Web: no", "a colon with a blank ends a key; a value that contains them needs quotes: 'Web: no'"),
    ("'from: us'", "there is no path 'from: us'; a constant is written {value: 'from: us'}"),
    ("5", "this must be keys and values, not '5'; a constant is written {value: 5}"),
    ("true", "this must be keys and values, not 'True'; a constant is written {value: true}"),
    ("attendee.emial", "there is no path 'attendee.emial'; did you mean attendee.email?"),
    ("'{{ attendee.email }}'", """there is no path '{{ attendee.email }}'; a template is written {template: "{{ attendee.email }}"}"""),
    ("{{ attendee.email }}", 'a template needs quotes: {template: "{{ attendee.email }}"}'),
]  # fmt: skip


@pytest.mark.parametrize(("source", "sentence"), PLACED)
def test_slips_where_a_path_belongs(source: str, sentence: str) -> None:
    """A question, constant or template in the place of a path is shown in its correct form."""
    (line,) = said(field(source))
    assert line in (f"5: contact.fields.goal: {sentence}", f"5: goal: {sentence}")


WITHIN = [
    ("{template: {{ attendee.email }}}", "template", 'a template needs quotes: "{{ attendee.email }}"'),
    ("{template: '{{ attendee.email or “x” }}'}", "template", "the template does not compile: unexpected char '“' at 21; templates do not accept curly quotes: write straight ones, ' or \""),
    ("{template: '{{ answers.Which plan }}'}", "template", "the template does not compile: expected token 'end of print statement', got 'plan'; a question with blanks or signs is written answers['…']"),
    ("{first_of: [answers.A, unknown]}", "first_of", "there is no path 'unknown'; a value for an empty path is written as: {default: …}"),
    ("{from: attendee.email, value: x}", "", "give exactly one of: from, value, template, first_of, summary, answers; this entry has from and value; a value for an empty path is written as: {default: …}"),
    ("{as: lower}", "", "give exactly one of: from, value, template, first_of, summary, answers"),
    ("{from: answers.A, as: map}", "as", "the transform 'map' needs a value; it is written {map: {answer: value}}"),
    ("{from: answers.A, as: }", "as", "there is no transform: indent the lines under as deeper than as"),
    ("{from: answers.A, map: {x: y}}", "map", "this key is not known here; a transform belongs under as: {as: {map: …}}"),
    ("{from: booking.start, as: {date: DD.MM.YYYY}}", "as", """'DD.MM.YYYY' would be written in these very letters; write "%d.%m.%Y\""""),
    ("{from: booking.start, as: {date: TT.MM.JJ}}", "as", """'TT.MM.JJ' would be written in these very letters; write "%d.%m.%y\""""),
    ("{from: booking.start, as: {time: 'HH:mm'}}", "as", """'HH:mm' would be written in these very letters; write "%H:%M\""""),
    ("{from: booking.start, as: {datetime: 'YYYY-MM-DDTHH:mm:ss'}}", "as", """'YYYY-MM-DDTHH:mm:ss' would be written in these very letters; write "%Y-%m-%dT%H:%M:%S\""""),
    ("{from: booking.start, as: {date: the day}}", "as", """'the day' would be written in these very letters; write "%d.%m.%Y\""""),
    ("""{template: "{{ booking.start | date('Europe/Berlin', 'DD.MM.YYYY') }}"}""", "template", """'DD.MM.YYYY' would be written in these very letters; write "%d.%m.%Y\""""),
    ("""{template: "{{ booking.start | time(form='HH:mm') }}"}""", "template", """'HH:mm' would be written in these very letters; write "%H:%M\""""),
    ("""{template: "{{ booking.start | date('%d.%m.%Y') }}"}""", "template", "there is no time zone '%d.%m.%Y'; a zone comes first, then the form: date('Europe/Berlin', '%d.%m.%Y')"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "key", "sentence"), WITHIN)
def test_slips_within_a_field(source: str, key: str, sentence: str) -> None:
    """A slip within a field is reported once, at its key."""
    place = ".".join(filter(None, ("contact.fields.goal", key)))
    assert said(field(source)) == [f"5: {place}: {sentence}"]


SECTION = [
    ("contact:\n  email: attendee.email\n", "4: contact.email: this key is not known here; a field of the CRM belongs under fields: {fields: {email: …}}"),
    ("deal:\n  - dealname: {value: x}\n", "4: deal.0.dealname: this key is not known here; a field of the CRM belongs under fields: {fields: {dealname: …}}"),
    ("contact:\n  math: [email]\n", "4: contact.math: this key is not known here; did you mean match?"),
    ("contact:\nfields: {}\n", "4: fields: this key is not known here; check its indent, or it belongs into another section"),
    ("meeting_types:\n  demo:\n    meeting: {title: meeting_type.name}\n", "5: meeting_types.demo.meeting.title: this key is not known here; a field of the CRM belongs under fields: {fields: {title: …}}"),
    ("contact:\n  fields:\n    - email: attendee.email\n", "4: contact.fields: this must be keys and values, not a list: remove the dashes or brackets"),
    ("meeting_types:\n  - demo: {deal: none}\n", "3: meeting_types: this must be keys and values, not a list: remove the dashes or brackets"),
    ("contact:\n  fields:\n    email:attendee.email\n", "4: contact.fields: this must be keys and values, not 'email:attendee.email'; a blank is missing after the colon"),
    ("contact:\n\u00a0\u00a0fields: {}\n", "4: \u00a0\u00a0fields: this key begins with a no-break blank, copied from a web page; write a normal blank"),
    ("contact:\n  when: {answers.Which plan: x}\n", """4: contact.when: there is no path 'answers.Which plan'; write 'answers["Which plan"]', with both kinds of quotes"""),
    ("hosts:\n  mary: {deal: none}\n", "4: hosts.mary: 'mary' is not an e-mail address, so no host has it; write one, as mary@yourcompany.example"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), SECTION)
def test_slips_of_shape(text: str, sentence: str) -> None:
    """A key in the wrong place is reported with its right place."""
    assert said(HEAD + text) == [sentence]


@pytest.mark.parametrize(("name", "wanted"), [("HubSpot", "hubspot"), ("hubspt", "hubspot")])
def test_a_crm_of_another_spelling(name: str, wanted: str) -> None:
    """A misspelt CRM name is reported with the nearest one, and the rest of the file is still checked."""
    assert said(f"version: 1\ncrm: {name}\ncontact: {{fields: {{email: attendee.emial}}}}\n") == [
        f"2: crm: there is no CRM '{name}'; did you mean {wanted}?",
        "3: contact.fields.email: there is no path 'attendee.emial'; did you mean attendee.email?",
    ]


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 5), ("cp1252", 5), ("utf-16", 1)])
def test_other_encodings_are_told(tmp_path: Path, encoding: str, line: int) -> None:
    """A file that is not UTF-8 is reported with its line and the solution."""
    file = tmp_path / "m.yaml"
    file.write_bytes(field("answers.Größe").encode(encoding))
    with pytest.raises(MappingError) as caught:
        read_text(file, "hubspot")
    words = "this line is not readable as UTF-8; let your editor save the file as UTF-8"
    assert str(caught.value) == f"m.yaml:{line}: {words}"


GOOD = [
    'answers["What’s your „goal“?"]', "{from: 'answers[\"What: goal\"]'}", "answers.Größe",
    '{template: "{{ answers[\'Which plan\'] }} “{{ attendee.email }}”"}', "{value: '@home'}",
    "{from: booking.start, as: [{tz: Europe/Berlin}, {date: '%d.%m.%Y'}]}",
    "{template: \"{{ booking.start | date(attendee.timezone, '%d %b') }}\"}", "{value: DD.MM.YYYY}",
]  # fmt: skip


@pytest.mark.parametrize("source", GOOD)
def test_what_is_good_stays_good(source: str) -> None:
    """Questions with any characters and templates with any quotes are no mistakes."""
    assert said(field(source)) == []


LINES = st.lists(
    st.sampled_from(
        ["contact:", "  fields:", "    a: ", "\t", "{{", "}}", "{", "}", "[", "]", "'", '"', "“", ":", ": ",
         "answers", '["', '"]', "as: map", "- ", "@", "*x", "&x", "\n", "\n  ", "\n    ", "email", "#", ","]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@given(LINES)
def test_any_muddle_ends_in_a_sentence_with_a_line(text: str) -> None:
    """Any file content gives mistakes of one line each, with an existing line number."""
    for line in said(HEAD + text):
        number, _, words = line.partition(": ")
        assert 1 <= int(number) <= (HEAD + text).count("\n") + 1 and words.strip()


@pytest.mark.parametrize("part", ["- ", "{", "a: ", "answers[", "'", "{{ ", "x:y ", '"a" '])
def test_a_line_without_end_is_told_in_no_time(part: str) -> None:
    """Even a very long line is searched for slips in almost no time."""
    begun = time.process_time()
    assert said(HEAD + "contact: " + part * 30_000)
    assert time.process_time() - begun < 20
