"""Texts of strangers stand in every CRM as the texts that they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest

from app.services.rate_limits import SharedRateLimiter
from tests.bridge import PROVIDERS, Bridge, sample
from tests.contract.account_faults import XFAIL
from tests.contract.case_files import DESKS
from tests.hostile import HOSTILE

RUNS = [
    pytest.param(
        crm, text, id=f"{name}-{crm}",
        marks=[pytest.mark.xfail(strict=True, reason=XFAIL[f"{name}-{crm}"])]
        if f"{name}-{crm}" in XFAIL else [],
    )
    for crm in PROVIDERS for name, text in HOSTILE.items()
]  # fmt: skip
SHORTEST = 30
"""Characters of a name that every CRM takes."""


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping allowances has tests of its own; here nobody waits for a window to open."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


@pytest.fixture(scope="module")
def bridges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bridge]]:
    """A service for each CRM, begun when it is wanted: the texts come one after the other."""
    made: dict[str, Bridge] = {}
    yield made
    for bridge in made.values():
        bridge.close()


def bare(text: str) -> str:
    """A text without what may be changed at its edge: blanks, line ends, signs that show nothing.

    A blank or a joiner between two signs keeps a machine from reading them; people read the same.
    """
    shown = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp"))
    return re.sub(r"\s+", "", shown)


def holds(text: str | None, hostile: str) -> bool:
    return bare(hostile)[:SHORTEST] in bare(text or "")


@pytest.mark.parametrize(("crm", "text"), RUNS)
def test_hostile_text_is_text(
    crm: str, text: str, bridges: dict[str, Bridge], tmp_path: Any
) -> None:
    """In names, an answer, the place, the meeting type and the reason of a cancel it is just text."""
    place = f"sqlite:///{tmp_path}/bridge.sqlite3"
    bridge = bridges.get(crm) or bridges.setdefault(crm, Bridge(place, (crm,)).connect_all())
    sandbox = bridge.sandbox(crm)
    DESKS[crm](sandbox).lift_limits()
    known = {meeting.id for meeting in sandbox.view().meetings}
    key = f"{abs(hash(text))}"
    who = {"email": f"guest{key}@globex.example", "firstname": text, "lastname": text,
           "fullname": f"{text} {text}", "notes": {"Your question": text}}  # fmt: skip
    created = sample("booking_created", id=key, attendees=[who], location=text)
    created["meetingType"]["meetingInfo"]["name"] = text
    created["meetingInfo"]["meetingLink"] = None
    try:
        settled(bridge, created)
        (meeting,) = [m for m in sandbox.view().meetings if m.id not in known]
        (contact,) = [c for c in sandbox.view().contacts if c.email == who["email"]]
        assert holds(contact.last, text), contact
        assert not DESKS[crm].has_first_names() or holds(contact.first, text), contact
        assert holds(meeting.title, text), meeting.title
        assert bare(text) in bare(meeting.body), meeting.body
        cancelled = {**created, "webhookType": "booking_cancelled", "isCancelled": True}
        cancelled["cancel"] = {"reason": text, "actionBy": {"name": "Kim"}}
        settled(bridge, {**cancelled, "updatedAt": "2026-11-25T00:00:00Z"})
        (meeting,) = [m for m in sandbox.view().meetings if m.id == meeting.id]
        assert meeting.cancelled
        assert bare(meeting.body).count(bare(text)) >= 2, meeting.body
    except BaseException:
        # What is left of it is in nobody's way.
        bridges.pop(crm).close()
        raise


def settled(bridge: Bridge, payload: dict[str, Any]) -> None:
    """Post a webhook and see its booking synced."""
    assert bridge.post(payload).status_code == 202
    bridge.drain()
    states = [(row.state, row.error_message) for row in bridge.deliveries()]
    assert {state for state, _ in states} == {"synced"}, [s for s in states if s[0] != "synced"]
