"""docs/recipes.md: every recipe is played for its CRM and has its promised effect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import time_machine
from ruamel.yaml import YAML

from app.services.rate_limits import SharedRateLimiter
from tests.bridge import PROVIDERS
from tests.contract.case_files import case_for
from tests.contract.desk import CustomField, load_desks
from tests.contract.play import START, Play

PAGE = Path(__file__).parent.parent.parent / "docs" / "recipes.md"
PERSON = {"id": "a1", "email": "kim@gmail.com", "fullname": "Kim Lee"}
ANSWERS = {
    "Which plan?": "business", "Topics": ["Forms", "Routing"], "Seats": "1.200", "Budget": "500",
    "Go live?": "14.01.2027", "Newsletter": "ja",
}  # fmt: skip
CHOICE = {"Plan": ["Basic", "Pro"], "Topics": ["Forms", "Routing", "Polls"]}
FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "A pick list": {"plan": ("deal", "choice")},
    "A multi-select": {"topics": ("contact", "choices")},
    "A number": {"seats": ("deal", "number")},
    "Money": {"budget": ("deal", "money")},
    "A date": {"go_live": ("deal", "date")},
    "A check box": {"newsletter": ("contact", "flag")},
    "An owner, and a user beside the owner": {"account_manager": ("deal", "user")},
}
"""Recipe -> custom fields that the company created: name, object, type."""
THEN: dict[str, dict[str, Any]] = {
    "A pick list": {"deals": [{"plan": "Pro"}]},
    "A multi-select": {"contacts": [{"topics": ["Forms", "Routing"]}]},
    "A number": {"deals": [{"seats": 1200}]},
    "Money": {"deals": [{"amount": 500}]},
    "A date": {"deals": [{"go_live": "2027-01-14", "close_date": {"contains": "2026-12-31"}}]},
    "A check box": {"contacts": [{"newsletter": True}]},
    "An owner, and a user beside the owner": {"deals": [{"owner": "mary@acme.example"}]},
    "Lead routing": {"meetings": [{"owner": "mary@acme.example"}]},
    "One open deal a person": {"deals": [{"stage": "Demo booked"}], "meetings": 2},
}  # fmt: skip


def recipes() -> list[tuple[str, str, str]]:
    """Return title, CRM and text of every recipe of the page."""
    found, title = [], ""
    parts = re.compile(r"^## (.+?)$|^```yaml (\w+)\n(.*?)^```$", re.S | re.M)
    for match in parts.finditer(PAGE.read_text("utf-8")):
        title = match[1] or title
        if match[2]:
            found.append((title, match[2], match[3]))
    return found


RECIPES = recipes()


def test_every_recipe_is_there_for_every_crm() -> None:
    """Each heading has one block for each CRM of the page, and the tests know its effect."""
    crms = {crm for _, crm, _ in RECIPES}
    assert {"hubspot", "pipedrive", "salesforce"} <= crms <= set(PROVIDERS)
    for title in dict.fromkeys(title for title, _, _ in RECIPES):
        assert [crm for name, crm, _ in RECIPES if name == title] == sorted(crms)
    assert list(THEN) == list(dict.fromkeys(title for title, _, _ in RECIPES))


def named(crm: str, field: str) -> str:
    """Return a custom field's name in a mapping file."""
    return load_desks()[crm].custom_name(field.replace("_", " ").capitalize())


@pytest.mark.parametrize(
    ("title", "crm", "text"), RECIPES, ids=[f"{t}-{c}".replace(" ", "_") for t, c, _ in RECIPES]
)
def test_recipe(
    title: str, crm: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file on the page is valid for an account with these fields, and a booking gives the
    recipe's promised result.
    """
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())
    booking = {
        "webhook": "booking_created",
        "change": {"attendees": [{**PERSON, "notes": ANSWERS}]},
    }
    steps = [booking]
    if title == "One open deal a person":
        steps.append({**booking, "booking": "second"})
    raw = {
        "title": title, "wanted": "What docs/recipes.md promises for it.",
        "mapping": {crm: YAML(typ="safe").load(text)},
        "pipelines": {"Sales": ["New", "Demo booked", "Offer"]},
        "steps": steps, "then": _renamed(crm, THEN[title]),
    }  # fmt: skip
    with time_machine.travel(START, tick=True) as clock:
        play = Play({crm: case_for(raw, crm)}, tmp_path, clock)
        try:
            for field, (name, kind) in FIELDS.get(title, {}).items():
                _add(play, crm, name, field, kind)
            play.run()
            _look_beside(play, crm, title)
        finally:
            play.close()


def _renamed(crm: str, then: dict[str, Any]) -> dict[str, Any]:
    ours = {field for fields in FIELDS.values() for field in fields}
    return {"deliveries": "synced"} | {
        name: [{named(crm, k) if k in ours else k: v for k, v in row.items()} for row in rows]
        if isinstance(rows, list) else rows
        for name, rows in then.items()
    }  # fmt: skip


def _add(play: Play, crm: str, name: str, field: str, kind: str) -> None:
    options = CHOICE.get(field.capitalize(), [])
    play.desks[crm].add_field(name, named(crm, field), CustomField(kind=kind, options=options))


def _look_beside(play: Play, crm: str, title: str) -> None:
    """Check what the desk's words do not show: structured values and ids of users."""
    deal = next(iter(play.desks[crm].records("deal")), {})
    if title == "Money" and crm == "pipedrive":
        assert deal[named(crm, "budget")] == {"value": 500, "currency": "USD"}
    if title.startswith("An owner"):
        john = play.desks[crm].user_id("john@acme.example")
        assert deal[named(crm, "account_manager")] == john
