"""Hostile texts from strangers arrive in every CRM as plain text."""

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
"""Characters of a name that every CRM accepts."""


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


@pytest.fixture(scope="module")
def bridges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bridge]]:
    """Services for each CRM, created when first needed; they take the texts one by one."""
    made: dict[str, Bridge] = {}
    yield made
    for bridge in made.values():
        bridge.close()


def bare(text: str) -> str:
    """Return a text without the blanks, line ends and invisible characters that may change at its
    edge.

    A blank or a joiner between two characters stops a machine from parsing them; people read the
    same.
    """
    shown = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp"))
    return re.sub(r"\s+", "", shown)


def holds(text: str | None, hostile: str) -> bool:
    return bare(hostile)[:SHORTEST] in bare(text or "")


@pytest.mark.parametrize(("crm", "text"), RUNS)
def test_hostile_text_is_text(
    crm: str, text: str, bridges: dict[str, Bridge], tmp_path: Any
) -> None:
    """Hostile text in names, answers, place, meeting type and cancel reason is stored as plain text."""
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
        (meeting,) = [m for m in sandbox.view().meetings if m.id not in known]
        assert meeting.cancelled
        assert bare(meeting.body).count(bare(text)) >= 2, meeting.body
    except BaseException:
        # The next text gets a new service, without leftovers of this one.
        bridges.pop(crm).close()
        raise


def settled(bridge: Bridge, payload: dict[str, Any]) -> None:
    """Post a webhook and check that its booking is synced."""
    assert bridge.post(payload).status_code == 202
    bridge.drain()
    states = [(row.state, row.error_message) for row in bridge.deliveries()]
    assert {state for state, _ in states} == {"synced"}, [s for s in states if s[0] != "synced"]
