"""Realistic accounts: the cases of tests/accounts, and the core of the contract in four kinds.

Tests that fail today because of the service are in account_faults.py with the reason. After a fix,
remove the name there; the tests fail if somebody forgets this (strict).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine

from app.services.rate_limits import SharedRateLimiter
from sandbox.accounts import dress, kinds_of
from sandbox.serve import Served, load_sandbox
from tests.bridge import PROVIDERS, Bridge, sample, wait_for
from tests.contract.account_faults import XFAIL
from tests.contract.case_files import ACCOUNTS, case_for, crms_of, read
from tests.contract.desk import desk_in
from tests.contract.play import START, Play

FILES = {path.stem: read(path) for path in sorted(ACCOUNTS.glob("*.yaml"))}


def marked(*values: Any, name: str) -> Any:
    """Return test parameters with a name, marked as expected to fail if XFAIL names them."""
    reason = XFAIL.get(name)
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(*values, id=name, marks=marks)


RUNS = [
    marked(name, crm, name=f"{name}-{crm}") for name, raw in FILES.items() for crm in crms_of(raw)
]
DRESSED = [(kind, provider) for provider in PROVIDERS for kind in kinds_of(provider)]
CORE = ("created", "moved and cancelled", "replayed", "group")


@pytest.fixture(autouse=True)
def nobody_waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


@pytest.mark.variants(14)
@pytest.mark.parametrize(("name", "crm"), RUNS)
def test_case(name: str, crm: str, tmp_path: Path) -> None:
    """In an account with the file's switches, every booking ends as the file says."""
    with time_machine.travel(START, tick=True) as clock:
        play = Play({crm: case_for(FILES[name], crm)}, tmp_path, clock, odd=True)
        try:
            play.run()
        finally:
            play.close()


@pytest.fixture
def dressed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bridge]:
    """A service with one CRM whose account is of one of the four kinds."""
    kind, provider = request.param
    sandbox = load_sandbox(provider)()
    dress(sandbox, kind)
    served = {provider: Served(sandbox)}
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", (provider,), served).connect_all(
        warm=False
    )
    yield made
    made.close()


def runs_of(part: str) -> list[Any]:
    """Return all kinds of accounts for one part of the contract's core."""
    return [
        marked((kind, provider), name=f"{part}-{kind}-{provider}") for kind, provider in DRESSED
    ]


def sync(bridge: Bridge, name: str) -> None:
    """Post a sample and process it; wait for the CRM's pauses, but not for a broken account."""
    assert bridge.post(sample(name)).status_code == 202
    drain(bridge)


def drain(bridge: Bridge) -> None:
    """Work until every delivery has ended or the connection is reported as broken."""
    ended = {"synced", "failed", "parked"}

    def over() -> bool:
        bridge.drain()
        if all(row.state in ended for row in bridge.deliveries()):
            return True
        return any(bridge.connection(provider).last_error for provider in bridge.served)

    wait_for(over)


def seen(bridge: Bridge) -> Any:
    (served,) = bridge.served.values()
    return served.sandbox.view()


def all_synced(bridge: Bridge) -> None:
    states = [(row.state, row.error_message) for row in bridge.deliveries()]
    assert [state for state, _ in states] == ["synced"] * len(states), states


def all_of_ours(bridge: Bridge) -> tuple[Any, Any, Any]:
    """Return the only contact of the sample, its deal and its meeting; check their links."""
    view = seen(bridge)
    (contact,) = [c for c in view.contacts if c.email == "jane.van.der.berg@example.com"]
    (deal,), (meeting,) = view.deals, view.meetings
    assert contact.phone == "+4915123456789"
    assert deal.contact_ids == meeting.contact_ids == [contact.id]
    assert meeting.deal_id == deal.id
    assert len([c for c in view.companies if c.id == contact.company_id]) == 1
    assert deal.company_id == contact.company_id
    return contact, deal, meeting


@pytest.mark.parametrize("dressed", runs_of("created"), indirect=True)
def test_created(dressed: Bridge) -> None:
    """A booking becomes contact, company, deal and meeting in every kind of account."""
    sync(dressed, "booking_created")
    all_synced(dressed)
    _, deal, meeting = all_of_ours(dressed)
    assert deal.title == "Discovery Call: Jane van der Berg"
    assert (meeting.start, meeting.minutes) == ("2026-12-01T08:00:00Z", 30)


@pytest.mark.parametrize("dressed", runs_of("moved and cancelled"), indirect=True)
def test_moved_and_cancelled(dressed: Bridge) -> None:
    """A move and a cancel change the same records in every kind of account."""
    sync(dressed, "booking_created")
    all_synced(dressed)
    before = all_of_ours(dressed)
    sync(dressed, "booking_rescheduled")
    assert all_of_ours(dressed)[2].start == "2026-12-02T13:00:00Z"
    sync(dressed, "booking_cancelled")
    all_synced(dressed)
    after = all_of_ours(dressed)
    kept = 2 if desk_in(dressed).remakes_meetings else 3
    assert [record.id for record in after[:kept]] == [record.id for record in before[:kept]]
    assert after[2].cancelled
    assert "Cancelled by Jane van der Berg: Conflict" in after[2].body


@pytest.mark.parametrize("dressed", runs_of("replayed"), indirect=True)
def test_replayed(dressed: Bridge) -> None:
    """A duplicate webhook and a replay write nothing in any kind of account."""
    sync(dressed, "booking_created")
    all_of_ours(dressed)
    all_synced(dressed)
    (served,) = dressed.served.values()
    served.sandbox.calls.clear()
    sync(dressed, "booking_created")
    for event in dressed.events():
        dressed.services.intake.replay(event.id)
    drain(dressed)
    all_synced(dressed)
    assert served.sandbox.writes() == 0, dict(served.sandbox.calls)


@pytest.mark.parametrize("dressed", runs_of("group"), indirect=True)
def test_group(dressed: Bridge) -> None:
    """Two people of one booking become two contacts of its one meeting, linked or named in its text."""
    sync(dressed, "group_booking_created")
    all_synced(dressed)
    view = seen(dressed)
    emails = {c.email: c.id for c in view.contacts}
    (meeting,) = view.meetings
    for email in ("jane.van.der.berg@example.com", "omar@globex.example"):
        assert emails[email] in meeting.contact_ids or email in meeting.body, email


def test_every_expected_failure_is_a_test() -> None:
    """Every name in XFAIL belongs to an existing test."""
    from tests.contract.test_hostile import RUNS as hostile

    parts = [f"{part}-{kind}-{crm}" for part in CORE for kind, crm in DRESSED]
    names = {*parts, *(run.id for run in RUNS), *(run.id for run in hostile), MOVED}
    assert set(XFAIL) <= names, set(XFAIL) - names


MOVED = "my_domain_moved-salesforce"


@pytest.mark.parametrize("old", [marked(None, name=MOVED)])
def test_a_moved_domain_is_followed(old: None, tmp_path: Path) -> None:
    """After a domain move (the old host redirects, the next token names the new one) all bookings
    sync.
    """
    sandbox = load_sandbox("salesforce")()
    first, second = Served(sandbox), Served(sandbox)
    with time_machine.travel(START, tick=True) as clock:
        bridge = Bridge(
            f"sqlite:///{tmp_path}/bridge.sqlite3", ("salesforce",), {"salesforce": first}
        ).connect_all()
        sandbox.org.moved_to = second.url
        bridge.post(sample("booking_created"))
        for _ in range(60):
            bridge.drain()
            states = {row.state for row in bridge.deliveries()}
            assert "failed" not in states, bridge.deliveries()[0].error_message
            if states == {"synced"}:
                break
            clock.shift(120)
        assert states == {"synced"}, bridge.connection("salesforce").last_error
        assert len(seen(bridge).meetings) == 1
        second.stop()
        bridge.close()
