"""Bookings with more people, and companies with more bookings, than a CRM accepts in one call."""

from __future__ import annotations

import pytest

from app.crm.port import Access
from app.domain.errors import InvalidRecord
from sandbox.limits import Window
from tests.bridge import ADAPTERS, Bridge, sample
from tests.contract.desk import desk_in
from tests.contract.test_adapters import only, person, view


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(Access, "enter", lambda access, _: access.meter.count())
    monkeypatch.setattr(Window, "take", lambda _: True)


@pytest.mark.parametrize("known", [True, False], ids=["moved", "new"])
def test_a_booking_of_many_people(crm: Bridge, known: bool) -> None:
    """A webinar with 170 people has all of them, also if half of them come later."""
    people = [person(f"p{number}@globex.example") for number in range(170)]
    if known:
        crm.sync(sample("booking_created", attendees=people[:85]))
    crm.sync(sample("booking_rescheduled", attendees=people))
    assert {row.state for row in crm.deliveries()} == {"synced"}
    seen = view(crm)
    (deal,), (meeting,), (company,) = seen.deals, seen.meetings, seen.companies
    shown = desk_in(crm).most_at_a_meeting or 170
    assert len(seen.contacts) == len(deal.contact_ids) == 170 and len(meeting.contact_ids) == shown
    assert "p169@globex.example" in meeting.body
    assert {contact.company_id for contact in seen.contacts} == {company.id}


def test_many_bookings_of_one_new_company(crm: Bridge) -> None:
    """80 bookings of three people each create their new company once."""
    for number in range(80):
        people = [person(f"p{number}-{place}@globex.example") for place in range(3)]
        crm.post(sample("booking_created", id=str(number), attendees=people))
    crm.settle(60)
    assert {row.state for row in crm.deliveries()} == {"synced"}
    seen = view(crm)
    assert (len(seen.companies), len(seen.contacts), len(seen.deals)) == (1, 240, 80)
    assert {len(meeting.contact_ids) for meeting in seen.meetings} == {3}
    assert {len(deal.contact_ids) for deal in seen.deals} == {3}


def test_one_refused_person_among_many_bookings_of_a_new_company(crm: Bridge) -> None:
    """A refused person fails alone, although the bookings of the new company fill many calls."""
    only(crm).forbidden_names.add("Forbidden")
    for number in range(70):
        people = [person(f"p{number}-{place}@globex.example") for place in range(3)]
        if number == 5:
            people[1]["lastname"] = "Forbidden"
        crm.post(sample("booking_created", id=str(number), attendees=people))
    crm.settle(60)
    assert sorted(row.state for row in crm.deliveries()) == ["failed"] + ["synced"] * 69
    # The refused person keeps nothing else out: the deal has the two other people.
    people = sorted(len(deal.contact_ids) for deal in view(crm).deals)
    assert people == [2] + [3] * 69


@pytest.mark.parametrize("provider", ["salesforce"])
def test_a_booking_of_too_many_people_fails_alone(crm: Bridge) -> None:
    """A booking too large for any call fails with a clear message and delays no other booking."""
    many = [person(f"p{number}@gmail.com") for number in range(520)]
    crm.post(sample("booking_created", id="many", attendees=many))
    crm.post(sample("booking_created", id="few", attendees=[person("jane@globex.example")]))
    crm.settle(60)
    assert [row.state for row in crm.deliveries()] == ["failed", "synced"]
    assert "more people" in (crm.deliveries()[0].error_message or "")


@pytest.mark.parametrize("step", ["find", "apply"])
def test_a_batch_that_is_refused_as_a_whole_is_taken_apart(
    crm: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """If a CRM refuses a whole batch without a reason per record, the bookings are sent one by one."""
    real = getattr(ADAPTERS[provider], step)

    def picky(adapter: object, first: object, second: object) -> object:
        if "poison" in repr(first):
            raise InvalidRecord("MALFORMED: something is wrong")
        return real(adapter, first, second)

    monkeypatch.setattr(ADAPTERS[provider], step, picky)
    for name in ("first", "poison", "last"):
        crm.post(sample("booking_created", id=name, attendees=[person(f"{name}@{name}.example")]))
    crm.settle()
    assert [row.state for row in crm.deliveries()] == ["synced", "failed", "synced"]
    assert len(view(crm).deals) == 2
