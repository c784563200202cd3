"""Whatever the order of events, the CRM ends with what the newest state alone asks for."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.bridge import Bridge, sample

PEOPLE = [
    {"email": f"{name}@{domain}", "firstname": name.title(), "lastname": "Test", "phone": phone,
     "timezone": "Europe/Berlin"}
    for name, domain, phone in (
        ("ann", "globex.example", "0151 23456701"),
        ("bob", "globex.example", None),
        ("cy", "initech.example", "0151 23456703"),
        ("dee", "gmail.com", None),
    )
]  # fmt: skip
HOSTS = [[{"email": "john@acme.example"}], [{"email": "mary@acme.example"}]]
BOOKINGS = 3


def history(seed: int) -> list[dict[str, Any]]:
    """Draw states of a few bookings, each newer than the one before."""
    dice = random.Random(seed)
    base = datetime(2026, 12, 1, 9, tzinfo=UTC)
    states = []
    for step in range(4 * BOOKINGS):
        start = base + timedelta(hours=dice.randrange(100))
        kind = dice.choice(["booking_created", "booking_rescheduled", "booking_cancelled"])
        states.append(
            sample(
                kind,
                id=str(step % BOOKINGS),
                start=start.isoformat(),
                end=(start + timedelta(minutes=dice.choice([15, 30, 60]))).isoformat(),
                attendees=dice.sample(PEOPLE, dice.randint(1, 4)),
                hosts=dice.choice(HOSTS),
                updatedAt=(base - timedelta(days=9) + timedelta(minutes=step)).isoformat(),
                location=dice.choice([None, "Room 7"]),
            )
        )
    return states


def picture(bridge: Bridge, provider: str) -> dict[str, Any]:
    """Return deals and meetings with their linked people, without ids."""
    seen = bridge.sandbox(provider).view()
    emails = {contact.id: contact.email for contact in seen.contacts}
    domains = {company.id: company.domain for company in seen.companies}
    keys = {deal.id: deal.booking for deal in seen.deals}
    return {
        "deals": {
            deal.booking: (
                deal.title, deal.stage, deal.owner, domains.get(deal.company_id or ""),
                sorted(emails[i] for i in deal.contact_ids),
            )
            for deal in seen.deals
        },
        "meetings": {
            keys[meeting.deal_id]: (
                meeting.title, meeting.start, meeting.minutes, meeting.cancelled, meeting.link,
                meeting.body, meeting.owner, sorted(emails[i] for i in meeting.contact_ids),
            )
            for meeting in seen.meetings
        },
        "counts": (len(seen.deals), len(seen.meetings)),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_any_way_ends_in_the_same_records(seed: int, provider: str, tmp_path: Path) -> None:
    """States that are shuffled, duplicated and drained in between give the records of the newest
    state.
    """
    states = history(seed)
    newest = {state["id"]: state for state in states}
    plain = Bridge(f"sqlite:///{tmp_path}/plain.sqlite3", (provider,)).connect_all()
    plain.sync(*newest.values())
    dice = random.Random(seed)
    way = [*states, *dice.sample(states, 4)]
    dice.shuffle(way)
    walked = Bridge(f"sqlite:///{tmp_path}/walked.sqlite3", (provider,)).connect_all()
    for state in way:
        walked.post(state)
        if dice.random() < 0.5:
            walked.drain()
    walked.settle()
    assert {d.state for d in walked.deliveries()} == {"synced"}
    assert picture(walked, provider) == picture(plain, provider)
    people = walked.sandbox(provider).view().contacts
    assert len({person.email for person in people}) == len(people)
    plain.close()
    walked.close()


def test_a_host_who_comes_back_owns_what_was_made_meanwhile(crm: Bridge, provider: str) -> None:
    """A host who returns gets the records that the CRM had given to our own user meanwhile."""
    mary = "mary@acme.example"
    crm.sandbox(provider).account.user_leaves(mary)
    crm.drainer._accounts.forget(1)
    crm.sync(sample("booking_created", hosts=[{"email": mary}]))
    assert crm.sandbox(provider).view().deals[0].owner != mary
    crm.sandbox(provider).account.user_returns(mary)
    crm.drainer._accounts.forget(1)
    crm.sync(sample("booking_rescheduled", hosts=[{"email": mary}]))
    there = crm.sandbox(provider).view()
    assert (there.deals[0].owner, there.meetings[0].owner) == (mary, mary)
