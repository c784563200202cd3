"""A person's older bookings arrive late, while the CRM's answers are lost."""

from __future__ import annotations

from typing import Any

import pytest

from app.services.replay import ReplaySelection, replay
from sandbox.faults import Fault
from tests.bridge import Bridge, sample
from tests.contract.desk import load_desks
from tests.contract.test_adapters import only
from tests.integration.test_outages import Clock, clock

__all__ = ["clock"]


def name_of(contact: Any) -> str:
    """Return a contact's name: some CRMs have one field for it."""
    return f"{contact.first or ''} {contact.last}".strip()


def jane(**more: Any) -> dict[str, Any]:
    """Return the attendee."""
    return {"email": "jane@globex.example", **more}


def booking(name: str, day: int, *people: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a booking that changed last on this day of March."""
    moment = f"2030-03-{day:02}T10:00:00.000Z"
    return sample("booking_created", id=name, updatedAt=moment, attendees=list(people), **more)


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_after_commit": True}, {"status": 429, "headers": {"Retry-After": "8"}}],
                         ids=["refused", "answer lost", "too many calls"])  # fmt: skip
def test_what_comes_late_is_filled_in_although_its_first_write_failed(
    crm: Bridge, clock: Clock, provider: str, fault: dict[str, Any]
) -> None:
    """A late older booking fills the empty name and phone, although its first write failed."""
    crm.sync(booking("new", 2, jane()))
    method, path = load_desks()[provider].update_contact
    only(crm).faults.append(Fault(method=method, path=path, **fault))
    late = jane(firstname="Jane", lastname="Berg", phone="+4915123456789")
    crm.post(booking("old", 1, late))
    for _ in range(4):
        crm.drain()
        clock.forward(3600)
    assert not only(crm).faults
    assert {row.state for row in crm.deliveries()} == {"synced"}
    (contact,) = only(crm).view().contacts
    assert name_of(contact) == "Jane Berg"
    assert contact.phone == "+4915123456789"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "late"])
def test_who_gives_no_name_takes_none_away(
    crm: Bridge, provider: str, order: tuple[int, int]
) -> None:
    """A contact that was created without a name takes the name of an older booking."""
    told = [booking("old", 1, jane(firstname="Jane", lastname="Berg")), booking("new", 2, jane())]
    for number in order:
        crm.sync(told[number])
    (contact,) = only(crm).view().contacts
    assert name_of(contact) == "Jane Berg"


def test_a_doubt_that_its_booking_has_left_behind_is_settled(
    crm: Bridge, clock: Clock, provider: str
) -> None:
    """If the answer to a contact's update was lost and the person then left the booking, the
    person's other bookings settle the contact's values, without a full replay.
    """
    mary = [{"email": "mary@acme.example"}]
    other = {"email": "omar@globex.example", "firstname": "Omar", "lastname": "Haddad"}
    named = jane(firstname="Jane", lastname="Berg")
    crm.sync(booking("stays", 1, named))
    method, path = load_desks()[provider].update_contact
    only(crm).faults.append(Fault(method=method, path=path, drop_after_commit=True))
    crm.post(booking("leaves", 2, {**named, "phone": "+4915123456789"}, other, hosts=mary))
    crm.drain()
    assert not only(crm).faults
    crm.post(booking("leaves", 3, other, hosts=mary))
    for _ in range(4):
        clock.forward(3600)
        crm.drain()
    assert {row.state for row in crm.deliveries()} == {"synced"}
    writes = only(crm).writes()
    for _ in range(2):
        replay(crm.services.store, crm.services.intake, ReplaySelection(), crm.services.waker.wake)
        clock.forward(3600)
        crm.drain()
    assert only(crm).writes() == writes
