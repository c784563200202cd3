"""The questions that stored bookings answer, and the check's warnings, on command line and pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app.mapping.load import MappingText, load_mapping
from app.services.questions import questions_seen, warn
from tests.bridge import Bridge, sample
from tests.integration.test_pages_mapping import press, see, text_of

PLAN = "Which plan do you like?"
FILE = """version: 1
crm: hubspot
contact:
  fields:
    email: attendee.email
    jobtitle: 'answers["Which plan do you want?"]'
    lastname: {template: "{{ answers.budget }}"}
meeting_types:
  dmeo: {deal: none}
"""
WARNINGS = [
    "m.yaml:6: contact.fields.jobtitle: no stored booking answers 'Which plan do you want?'; did you "
    "mean 'Which plan do you like?'?; there are: 'Budget', 'Which plan do you like?'",
    "m.yaml:9: meeting_types.dmeo: no stored booking is of the meeting type 'dmeo'; did you mean "
    "'demo'?; there are: 'demo', 'support'",
]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Bridge]:
    """One CRM without bookings."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", ("hubspot",)).connect_all()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A mapping file with a question that no booking has answered."""
    path = tmp_path / "m.yaml"
    path.write_text(FILE, encoding="utf-8")
    return str(path)


def run(bridge: Bridge, *words: str) -> Result:
    """Run a command; return its result."""
    runner = bridge.app.test_cli_runner(env={"COLUMNS": "200"})
    return runner.invoke(args=["mappings", *words])


def book(bridge: Bridge, number: int, slug: str, **answers: Any) -> None:
    """Store a booking of a meeting type, with answers by question label."""
    person = {"email": f"p{number}@globex.example", "fullname": f"P{number} Test", "notes": answers}
    kind = {"id": f"mt-{slug}", "slug": slug, "meetingInfo": {"name": slug.title()}}
    payload = sample("booking_created", id=f"b-{number}", attendees=[person], meetingType=kind)
    assert bridge.post(payload).status_code == 202


def some(bridge: Bridge) -> None:
    """Store three bookings of two meeting types."""
    book(bridge, 1, "demo", **{PLAN: "Pro", "Budget": "500"})
    book(bridge, 2, "support", Budget="700")
    book(bridge, 3, "demo")


def test_check_warns_of_what_no_booking_has(hub: Bridge, file: str) -> None:
    """Check prints warnings with lines, apart from the verdict and with exit code 0, also against
    an account.
    """
    assert run(hub, "check", file).output == "m.yaml is good.\n"
    some(hub)
    for words in ([], ["--connection", "1"]):
        done = run(hub, "check", file, *words)
        assert done.exit_code == 0 and done.stdout.startswith("m.yaml is good")
        assert done.stderr.splitlines() == [f"Warning: {line}" for line in WARNINGS]


def test_mistakes_and_warnings_come_together(hub: Bridge, file: str) -> None:
    """With a mistake the exit code is 1, and the warnings follow it."""
    some(hub)
    Path(file).write_text(FILE.replace("attendee.email", "attendee.emial"), encoding="utf-8")
    done = run(hub, "check", file)
    lines = done.stderr.splitlines()
    assert done.exit_code == 1 and done.stdout == ""
    assert lines[0].startswith("Error: m.yaml:5: contact.fields.email: there is no path")
    assert lines[1:] == [f"Warning: {line}" for line in WARNINGS]


def test_preview_warns_but_of_what_it_shows(hub: Bridge, file: str, tmp_path: Path) -> None:
    """Preview warns of a misspelt question next to the empty field, not of one that the booking
    answers.
    """
    some(hub)
    words = ["preview", "hubspot", "--booking", "b-1", "--mapping", file]
    done = run(hub, *words, "--json")
    assert done.stderr.splitlines() == [f"Warning: {line}" for line in WARNINGS]
    assert "jobtitle" in json.loads(done.stdout)[0]["records"][0]["fields"]
    person = {"email": "new@globex.example", "notes": {"which plan do you want?": "Pro"}}
    payload = sample("booking_created", id="b-9", attendees=[person])
    (tmp_path / "p.json").write_text(json.dumps(payload), encoding="utf-8")
    done = run(hub, "preview", "hubspot", str(tmp_path / "p.json"), "--mapping", file)
    assert "Which plan" not in done.stderr and "dmeo" in done.stderr


def test_questions_are_listed(hub: Bridge) -> None:
    """Each question is listed with the number of bookings, their types and the files that name it, as
    a table and as JSON.
    """
    assert run(hub, "questions").output == "0 questions in 0 bookings, all that are stored.\n"
    some(hub)
    done = run(hub, "questions")
    assert re.search(
        r"Budget\s+│ 2\s+│ (demo \(1\), support \(1\)|support \(1\), demo \(1\)) ", done.output
    ), done.output
    assert re.search(rf"{re.escape(PLAN)}\s+│ 1\s+│ demo \(1\) ", done.output)
    assert done.output.endswith(
        "2 questions in 3 bookings, all that are stored. No mapping file names 2 of them.\n"
    )
    shown = json.loads(run(hub, "questions", "--json").stdout)
    assert (shown["bookings"], shown["every"]) == (3, True)
    assert [q["label"] for q in shown["questions"]] == ["Budget", PLAN]
    assert shown["questions"][1] == {
        "label": PLAN, "bookings": 1, "meeting_types": ["demo"], "by_type": {"demo": 1},
        "used_by": [],
    }  # fmt: skip


def test_a_question_that_a_file_names_is_not_called_unused(hub: Bridge, tmp_path: Path) -> None:
    """A question counts as used by the file that names it anywhere, in whatever spelling."""
    some(hub)
    book(hub, 4, "support", **{"Long " + "x" * 400: "y"})
    mine = load_mapping(_write(tmp_path, "hubspot", FILE), "hubspot")
    seen = questions_seen(hub.services.store, hub.services.cipher, files={"hubspot": mine})
    used = {question.label[:6]: question.used_by for question in seen.questions}
    assert used == {"Budget": ("hubspot",), PLAN[:6]: (), "Long x": ()}
    longer = FILE.replace("answers.budget", "answers['LONG " + "x" * 400 + "']")
    mine = load_mapping(_write(tmp_path, "hubspot", longer), "hubspot")
    seen = questions_seen(hub.services.store, hub.services.cipher, files={"hubspot": mine})
    used = {question.label[:6]: question.used_by for question in seen.questions}
    assert used == {"Budget": (), PLAN[:6]: (), "Long x": ("hubspot",)}


def _write(folder: Path, crm: str, text: str) -> Path:
    path = folder / f"{crm}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_only_the_newest_bookings_are_looked_at(hub: Bridge) -> None:
    """Only a limited number of newest bookings is read, and the list says so; older meeting types
    are known.
    """
    book(hub, 1, "dmeo", **{"Which plan do you want?": "Pro"})
    for number in range(2, 5):
        book(hub, number, "demo", Budget="5")
    services = hub.services
    seen = questions_seen(services.store, services.cipher, 3)
    assert (seen.bookings, seen.every) == (3, False)
    (line,) = warn(MappingText("m.yaml", FILE, "hubspot"), seen)
    assert "none of the 3 bookings that changed last answers 'Which plan do you want?'" in line
    assert questions_seen(services.store, services.cipher, 4).every


def test_pages_show_questions_and_warnings(hub: Bridge) -> None:
    """The Mappings page lists the questions, a trial shows the warnings, and texts stay plain text."""
    assert "No booking is stored yet." in text_of(see(hub, "/mappings"))
    some(hub)
    book(hub, 4, "demo", **{"<b>Bold?</b>": "x"})
    page = see(hub, "/mappings")
    assert "<b>Bold" not in page and "<b>Bold?</b> 1 demo (1) no field" in text_of(page)
    assert f"{PLAN} 1 demo (1) no field" in text_of(
        page
    ) and "the stored bookings answer" in text_of(page)
    tried = text_of(press(hub, "/mappings/hubspot/try", 200, mapping=FILE, connection=0))
    assert "has no mistake" in tried and "Possible mistakes, or new names" in tried
    assert "hubspot.yaml:6: contact.fields.jobtitle: no stored booking answers" in tried
