"""People found by phone number: with as few calls as possible, however many numbers end alike."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.faults import REFUSED
from tests.bridge import Bridge, sample
from tests.contract.desk import desk_in
from tests.contract.test_adapters import only, view

NUMBER = "0151 23456789"
"""The number of phone_only_created, as a colleague typed it."""


def looks(crm: Bridge) -> int:
    """Count the searches since the last count, without those that a rate limit refused."""
    asked = desk_in(crm).searches
    answered = {c: n for c, n in only(crm).calls.items() if not c.startswith(REFUSED)}
    calls = sum(number for call, number in answered.items() if call.endswith(asked))
    only(crm).calls.clear()
    return int(calls)


def books(crm: Bridge, provider: str, **changes: Any) -> int:
    """Play a booking that has a number only; return how many calls searched for something."""
    crm.drain(warm_only=True)
    looks(crm)
    crm.sync(sample("phone_only_created", **changes))
    assert crm.delivery(provider).state == "synced", crm.delivery(provider).error_message
    return looks(crm)


def test_one_call_finds_a_number(crm: Bridge, provider: str) -> None:
    """A number in its country's spelling is found with one call, like a number in E.164."""
    there = desk_in(crm).make("contact", {"name": "Ada Aal", "phone": NUMBER})
    assert books(crm, provider) == 1
    assert [contact.id for contact in view(crm).contacts] == [there]


def test_many_numbers_end_alike(crm: Bridge, provider: str) -> None:
    """The right number is found behind more similar ones than a CRM returns in one answer."""
    desk = desk_in(crm)
    for index in range(150):
        desk.make("contact", {"name": f"Somebody {index}", "phone": f"+49 30 {2000 + index} 6789"})
    there = desk.make("contact", {"name": "Ada Aal", "phone": NUMBER})
    assert books(crm, provider) <= 2
    assert len(view(crm).contacts) == 151
    assert view(crm).meetings[0].contact_ids == [there]


@pytest.mark.real_limits
def test_many_numbers_at_once(crm: Bridge) -> None:
    """Sixty people book by number, and each one is matched to the right contact."""
    desk = desk_in(crm)
    numbers = {f"0151 2345 {6000 + index}": f"+491512345{6000 + index}" for index in range(60)}
    there = {
        number: desk.make("contact", {"name": f"Somebody {number}", "phone": written})
        for written, number in numbers.items()
    }
    crm.drain(warm_only=True)
    looks(crm)
    for number in there:
        people = [{"fullname": f"Somebody {number}", "phone": number}]
        crm.post(sample("phone_only_created", id=number[1:], attendees=people))
    crm.settle()
    assert looks(crm) <= (desk.most_for_numbers or len(there))
    assert {contact.id for contact in view(crm).contacts} == {*there.values()}
    assert {tuple(m.contact_ids) for m in view(crm).meetings} == {(i,) for i in there.values()}
