"""Questions with a list of answers: the fields that are created for them, and how previews show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.crm.objects import ObjectName
from app.crm.schema import FieldKind
from tests.bridge import Bridge, sample
from tests.integration.test_mappings import (
    DESKS,
    account,
    folder,
    live,
    person,
    run,
    unhurried,
    write,
)  # fmt: skip

__all__ = ["account", "folder", "unhurried"]
PLANS = ("Basic", "Pro", "pro ", "Basic", "Team", "Team", "Pro")


def book(bridge: Bridge, number: int, **answers: Any) -> None:
    """Store a booking with answers."""
    someone = person(number, notes=answers)
    assert bridge.post(sample("booking_created", id=f"c-{number}", attendees=[someone])).status_code == 202  # fmt: skip


def fields(provider: str, **sources: Any) -> dict[str, Any]:
    """Return mapping changes with custom fields of the contact, by their label."""
    named = {DESKS[provider].custom_name(label): source for label, source in sources.items()}
    return {"contact": {"fields": named}}


def shown(item: dict[str, Any], name: str) -> tuple[Any, Any]:
    """Return what a preview shows for a field of the contact: now and then."""
    contact = next(record for record in item["records"] if record["object"] == "contact")
    field = next(field for field in contact["fields"] if field["name"] == name)
    return field["now"], field["then"]


def test_answers_of_one_choice_make_a_list(account: Bridge, provider: str, folder: Path) -> None:
    """Answers that repeat make a list with their labels, said before it is created; free text stays
    text, with the reason.
    """
    for number, plan in enumerate(PLANS):
        book(account, number, Plan=plan, Goal=f"Goal {number}", Seats=str(number % 2 + 5))
    sources = {
        "Plan": "answers.Plan",
        "Goal": "answers.Goal",
        "Seats": "answers.Seats",
        "New": "answers.New",
    }
    write(folder, provider, fields(provider, **sources))
    plan, goal, seats, new = (DESKS[provider].custom_name(label) for label in sources)
    words = ("check", "--connection", "1", "--provision")
    no = run(account, *words, answer="n\n", code=1)
    assert (
        f"contact.{plan} (one of a list: Basic, Pro, Team): each of the 7 answers so far is" in no
    )
    assert f"contact.{goal} (text): the 7 answers so far are no choices of a list" in no
    assert f"contact.{seats} (text): the 7 answers so far are no choices of a list" in no
    assert f"contact.{new} (text): no stored booking answers this question" in no
    assert account.sandbox(provider).writes() == 0
    assert "is good for connection 1" in run(account, *words, "--yes")
    account.sync()
    assert {delivery.state for delivery in account.deliveries()} == {"synced"}
    file = folder / "p.json"
    booked = sample("booking_created", id="c-9", attendees=[person(9, notes={"Plan": "Team"})])
    file.write_text(json.dumps(booked), encoding="utf-8")
    (found,) = live(account, provider, str(file))
    assert shown(found, plan) == (None, "Team")


def test_a_script_says_the_type(account: Bridge, provider: str, folder: Path) -> None:
    """--type gives a new field its type without a question; a wrong one is refused, nothing is made."""
    write(folder, provider, fields(provider, Size="answers.Size"))
    size = DESKS[provider].custom_name("Size")
    words = ("check", "--connection", "1", "--provision", "--yes", "--type")
    refused = run(account, *words, f"contact.{size}: colour", code=2)
    assert "There is no type 'colour'" in refused and account.sandbox(provider).writes() == 0
    run(account, "check", "--connection", "1", "--type", f"{size}: text", code=2)
    made = run(account, *words, f"{size}: some of a list: S, M, L")
    assert f"contact.{size} (some of a list: S, M, L)" in made
    account.sync(sample("booking_created", attendees=[person(1, notes={"Size": ["L", "S"]})]))
    assert account.delivery(provider).state == "synced", account.delivery(provider).error_message


def test_previews_show_labels(account: Bridge, provider: str, folder: Path) -> None:
    """A preview shows the labels of options and several options, before and after, on the command
    line and as JSON; the page shows the same.
    """
    write(folder, provider, fields(provider, Plan="answers.Plan", Topics="answers.Topics"))
    plan, topics = (DESKS[provider].custom_name(label) for label in ("Plan", "Topics"))
    types = ("--type", f"{plan}: one of a list: Basic plan, Pro plan",
             "--type", f"{topics}: some of a list: Form fields, Routing rules, Poll votes")  # fmt: skip
    run(account, "check", "--connection", "1", "--provision", "--yes", *types)
    before = {"Plan": "Pro plan", "Topics": ["Form fields", "Routing rules"]}
    booked = sample("booking_created", attendees=[person(1, notes=before)])
    account.sync(booked)
    assert account.delivery(provider).state == "synced", account.delivery(provider).error_message
    after = {"Plan": "Basic plan", "Topics": ["Poll votes", "Routing rules"]}
    changed = {**booked, "attendees": [person(1, notes=after)], "updatedAt": "2030-01-01T00:00:00Z"}
    file = folder / "p.json"
    file.write_text(json.dumps(changed), encoding="utf-8")
    (found,) = live(account, provider, str(file))
    assert shown(found, plan) == ("Pro plan", "Basic plan")
    now, then = shown(found, topics)
    assert sorted(now) == ["Form fields", "Routing rules"]
    assert sorted(then) == ["Poll votes", "Routing rules"]
    table = run(account, "preview", provider, str(file), "--connection", "1")
    row = next(line for line in table.splitlines() if topics in line)
    assert "Form fields" in row and "Poll votes" in row and "['" not in table


def test_check_tells_which_answers_did_not_fit(
    account: Bridge, provider: str, folder: Path
) -> None:
    """A check against an account warns of answers so far that a list or number field cannot hold;
    it is no mistake.
    """
    for number, plan in enumerate(("Basic", "pro", "Custom", "Team")):
        book(account, number, Plan=plan, Seats=("7", "many")[number % 2])
    sources = {
        "Plan": "answers.Plan",
        "Seats": {"from": "answers.Seats", "as": "number", "on_error": "skip"},
    }
    write(folder, provider, fields(provider, **sources))
    plan, seats = (DESKS[provider].custom_name(label) for label in sources)
    said = run(account, "check", "--connection", "1", "--provision", "--yes",
               "--type", f"{plan}: one of a list: Basic, Pro")  # fmt: skip
    assert "do not fit" not in said
    said = " ".join(run(account, "check", "--connection", "1").split())
    kept = account.services.adapter(1).directory().field(ObjectName.CONTACT, plan)
    if kept and kept.kind is FieldKind.CHOICE:  # a list that takes any text is a text here
        assert f"contact.fields.{plan}: 2 of 4 answers so far do not fit {plan}" in said
        assert "'Team', 'Custom'; such a booking fails; add options in the CRM, or map them" in said
    assert f"2 of 4 answers so far do not fit {seats}" in said
    assert "'many'; the field is then left out" in said and "is good for connection 1" in said


@pytest.mark.parametrize("provider", ["hubspot"], indirect=True)
def test_a_trial_tells_it_too(account: Bridge, provider: str, folder: Path) -> None:
    """The page to try a file warns of such answers as the command does."""
    from tests.integration.test_pages_mapping import press, text_of

    for number, plan in enumerate(("Basic", "Custom")):
        book(account, number, Plan=plan)
    text = write(folder, provider, fields(provider, Plan="answers.Plan"))
    run(account, "check", "--connection", "1", "--provision", "--yes",
        "--type", "plan: one of a list: Basic, Pro")  # fmt: skip
    page = press(account, "/mappings/hubspot/try", 200, mapping=text.read_text(), connection=1)
    assert "1 of 2 answers so far do not fit plan" in text_of(page)
