"""The contract for every adapter, tested against its sandbox through the whole service.

A new CRM joins by its entry in providers.yaml and its desk: no test here names a CRM.
"""

from __future__ import annotations

import itertools
import math
import socket
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update
from urllib3.connection import HTTPConnection

from app.crm.objects import ObjectName
from app.store.engine import utcnow
from app.store.models import ConnectionRow, DeliveryRow, RecordLink
from sandbox.faults import Fault
from tests.bridge import RENEWED, Bridge, owned, sample, wait_for
from tests.contract.desk import load_desks
from workers.drain import Drainer

pytestmark = pytest.mark.variants(4)
DAY = timedelta(days=1)
BOOKING = "default:6f0f7c1e-3a55-4c0e-9d58-0d2f7f0a11c1"


def free_mail(name: str, **changes: Any) -> dict[str, Any]:
    payload = sample(name, **changes)
    payload["attendees"][0]["email"] = "jane.van.der.berg@gmail.com"
    return payload


def only(crm: Bridge) -> Any:
    (served,) = crm.served.values()
    return served.sandbox


def view(crm: Bridge) -> Any:
    return only(crm).view()


def person(email: str, **more: Any) -> dict[str, Any]:
    return {"email": email, "firstname": email[0].upper(), "lastname": "Test", **more}


def test_account_is_named_and_described(crm: Bridge, provider: str) -> None:
    """The connection shows the account's own name, and every object that is written has fields."""
    connection = crm.connection(provider)
    assert connection.account and connection.status == "active"
    adapter = crm.services.adapter(connection.id)
    for name in adapter.shape.objects:
        assert {field.name for field in adapter.describe(name)}
    assert adapter.directory().booking_fields[ObjectName.DEAL]
    assert adapter.provision() == []


def test_mapping_writes_only_fields_that_are_there(crm: Bridge, provider: str) -> None:
    """The default mapping file names only fields that the CRM has."""
    adapter = crm.services.adapter(crm.connection(provider).id)
    for name in adapter.shape.objects:
        there = {field.name for field in adapter.describe(name)}
        assert crm.services.mappings[provider].field_names(name) <= there


def test_created(crm: Bridge, provider: str) -> None:
    """A booking becomes a contact, a company, a deal in its first stage and a meeting."""
    crm.sync(sample("booking_created"))
    assert crm.delivery(provider).state == "synced", crm.delivery(provider).error_message
    seen = view(crm)
    (contact,), (company,), (deal,), (meeting,) = (
        seen.contacts, seen.companies, seen.deals, seen.meetings
    )  # fmt: skip
    assert contact.email == "jane.van.der.berg@example.com"
    assert contact.phone == "+4915123456789"
    assert " ".join(filter(None, (contact.first, contact.last))) == "Jane van der Berg"
    assert contact.company_id == company.id
    assert company.domain == "example.com"
    assert deal.title == "Discovery Call: Jane van der Berg"
    assert (deal.contact_ids, deal.company_id) == ([contact.id], company.id)
    assert deal.booking == BOOKING
    assert (meeting.start, meeting.minutes) == ("2026-12-01T08:00:00Z", 30)
    assert meeting.link == "https://zoom.us/j/99900011122"
    assert "09:00–09:30 (Europe/Berlin), 30 minutes" in meeting.body
    assert (meeting.contact_ids, meeting.deal_id) == ([contact.id], deal.id)
    assert not meeting.cancelled
    assert {deal.owner, meeting.owner} == {"john@acme.example"}
    assert contact.owner == ("john@acme.example" if owned(provider, "contact") else None)


def test_moved_and_cancelled_keep_the_records(crm: Bridge, provider: str) -> None:
    """A move and a cancel change the same records; the deal stays where it is."""
    crm.sync(sample("booking_created"))
    before = view(crm)
    crm.sync(sample("booking_rescheduled"))
    moved = view(crm)
    assert moved.meetings[0].start == "2026-12-02T13:00:00Z"
    assert moved.deals == before.deals
    crm.sync(sample("booking_cancelled"))
    cancelled = view(crm)
    assert cancelled.meetings[0].cancelled
    assert cancelled.deals == before.deals
    assert "Cancelled by Jane van der Berg: Conflict" in cancelled.meetings[0].body
    assert len(cancelled.meetings) == 1
    if not load_desks()[provider].remakes_meetings:
        assert cancelled.meetings[0].id == before.meetings[0].id


def test_a_newer_state_brings_a_cancelled_booking_back(crm: Bridge) -> None:
    """A newer state restores a cancelled booking in the same records, without a trace of the cancel."""
    crm.sync(sample("booking_created"), sample("booking_cancelled"))
    crm.sync(sample("booking_rescheduled", updatedAt="2026-11-26T00:00:00Z"))
    (meeting,) = view(crm).meetings
    assert not meeting.cancelled
    assert "Cancelled" not in meeting.body


STATES = ("booking_created", "booking_rescheduled", "booking_cancelled")


@pytest.mark.parametrize("order", list(itertools.permutations(STATES)), ids=" ".join)
@pytest.mark.parametrize("together", [True, False], ids=["one drain", "drain after each"])
def test_all_orders_end_the_same(crm: Bridge, order: tuple[str, ...], together: bool) -> None:
    """The records match the newest state, whatever the order of arrival."""
    if together:
        crm.sync(*(sample(name) for name in order))
    else:
        for name in order:
            crm.sync(sample(name))
    seen = view(crm)
    (meeting,), (deal,), (contact,) = seen.meetings, seen.deals, seen.contacts
    assert meeting.cancelled
    assert (meeting.start, meeting.minutes) == ("2026-12-02T13:00:00Z", 30)
    assert (meeting.contact_ids, deal.contact_ids) == ([contact.id], [contact.id])
    assert deal.title == "Discovery Call: Jane van der Berg"


def test_a_cancel_alone_makes_everything(crm: Bridge) -> None:
    """A booking of which only the cancel arrived gets all its records, marked as cancelled."""
    crm.sync(sample("booking_cancelled"))
    seen = view(crm)
    assert len(seen.contacts) == len(seen.deals) == 1
    assert seen.meetings[0].cancelled


def test_same_again_makes_no_call(crm: Bridge) -> None:
    """A duplicate webhook and a replay change nothing and make no call."""
    crm.sync(sample("booking_created"))
    only(crm).calls.clear()
    crm.sync(sample("booking_created"))
    for event in crm.events():
        crm.services.intake.replay(event.id)
    crm.settle()
    assert only(crm).total_calls == 0


def test_calls_per_booking(crm: Bridge, provider: str) -> None:
    """A new attendee costs at most the promised calls: created, moved, cancelled."""
    most = load_desks()[provider].most_calls
    if most is None:
        pytest.skip(f"no figure is promised for {provider}")
    for name, limit in zip(STATES, most, strict=True):
        only(crm).calls.clear()
        crm.sync(free_mail(name))
        assert 0 < only(crm).total_calls <= limit, (name, dict(only(crm).calls))


def test_calls_with_a_company_in_the_ledger(crm: Bridge, provider: str) -> None:
    """A colleague of a known person costs no more calls than a person with a free-mail address."""
    most = load_desks()[provider].most_calls
    if most is None:
        pytest.skip(f"no figure is promised for {provider}")
    crm.sync(sample("booking_created"))
    only(crm).calls.clear()
    crm.sync(sample("booking_created", id="2", attendees=[person("new@example.com")]))
    assert only(crm).total_calls <= most[0]
    assert len(view(crm).companies) == 1
    # A person who is known already costs no search.
    searches = load_desks()[provider].searches
    only(crm).calls.clear()
    crm.sync(sample("booking_created", id="3", attendees=[person("new@example.com")]))
    assert only(crm).total_calls <= 3
    assert not [call for call in only(crm).calls if call.endswith(searches)]


def test_group_booking(crm: Bridge) -> None:
    """All attendees become contacts of one meeting and one deal; an attendee who leaves is unlinked."""
    crm.sync(sample("group_booking_created"))
    seen = view(crm)
    ids = {contact.email: contact.id for contact in seen.contacts}
    both = [ids["jane.van.der.berg@example.com"], ids["omar@globex.example"]]
    assert sorted(seen.meetings[0].contact_ids) == sorted(both)
    assert sorted(seen.deals[0].contact_ids) == sorted(both)
    assert "Team size: 50-100" in seen.meetings[0].body
    crm.sync(sample("group_attendee_removed"))
    seen = view(crm)
    assert len(seen.contacts) == 2
    assert seen.meetings[0].contact_ids == both[:1]
    assert seen.deals[0].contact_ids == both[:1]
    assert not seen.meetings[0].cancelled


def test_the_first_attendee_leaves(crm: Bridge) -> None:
    """The deal and the company follow the first attendee who still takes part."""
    crm.sync(sample("group_booking_created"))
    payload = sample("group_booking_created", updatedAt="2026-11-24T10:00:00Z")
    payload["attendees"] = payload["attendees"][1:]
    crm.sync(payload)
    seen = view(crm)
    omar = next(c for c in seen.contacts if c.email == "omar@globex.example")
    assert seen.meetings[0].contact_ids == [omar.id]
    assert seen.deals[0].contact_ids == [omar.id]
    assert seen.deals[0].company_id == omar.company_id
    assert seen.deals[0].title == "Discovery Call: Omar"


def test_seven_attendees(crm: Bridge) -> None:
    """All seven attendees become contacts of the meeting and the deal."""
    people = [person(f"{letter}@globex.example") for letter in "abcdefg"]
    crm.sync(sample("booking_created", attendees=people))
    seen = view(crm)
    assert len(seen.contacts) == 7
    assert len(set(seen.meetings[0].contact_ids)) == len(set(seen.deals[0].contact_ids)) == 7
    assert len(seen.companies) == 1


def test_phone_only(crm: Bridge, provider: str) -> None:
    """A booking without an e-mail finds its contact by the phone number and keeps the whole name."""
    crm.sync(sample("phone_only_created"))
    assert crm.delivery(provider).state == "synced", crm.delivery(provider).error_message
    (contact,) = view(crm).contacts
    assert (contact.email, contact.phone) == (None, "+4915123456789")
    assert (contact.first, contact.last) == (None, "Ελένη Παπαδοπούλου")
    crm.sync(sample("phone_only_created", id="another"))
    assert len(view(crm).contacts) == 1


def test_no_way_to_reach_the_attendee(crm: Bridge) -> None:
    """An attendee without e-mail and phone still gets a deal and a meeting."""
    crm.sync(sample("booking_created", attendees=[{"fullname": "Somebody"}]))
    seen = view(crm)
    assert (len(seen.contacts), len(seen.deals), len(seen.meetings)) == (0, 1, 1)


def test_free_mail_makes_no_company(crm: Bridge) -> None:
    """A free-mail domain such as gmail.com creates no company."""
    crm.sync(free_mail("booking_created"))
    assert view(crm).companies == []


def test_a_move_brings_host_and_people_along(crm: Bridge) -> None:
    """A moved booking with a new host and a new attendee changes the owner and the links."""
    crm.sync(sample("booking_created"))
    moved = sample("booking_rescheduled", hosts=[{"email": "mary@acme.example"}])
    moved["attendees"].append(person("omar@globex.example"))
    crm.sync(moved)
    seen = view(crm)
    assert (
        {d.owner for d in seen.deals} == {m.owner for m in seen.meetings} == {"mary@acme.example"}
    )
    assert len(seen.meetings[0].contact_ids) == len(seen.deals[0].contact_ids) == 2


def test_a_contact_that_was_there_before(crm: Bridge, provider: str) -> None:
    """The service uses a person who is already in the CRM, makes no duplicate and keeps the owner."""
    crm.sync(sample("booking_created", hosts=[{"email": "mary@acme.example"}]))
    forget_everything(crm)
    crm.sync(sample("booking_created", id="other"))
    (contact,) = view(crm).contacts
    assert contact.owner == ("mary@acme.example" if owned(provider, "contact") else None)
    assert len(view(crm).companies) == 1
    assert len(view(crm).deals) == 2


def forget_everything(crm: Bridge) -> None:
    """Delete the ledger, as if another tool had created the records."""
    from sqlalchemy import delete

    from app.store.models import RecordLink

    with crm.services.store.write() as session:
        session.execute(delete(RecordLink))


def test_part_of_an_address_is_no_match(crm: Bridge) -> None:
    """ann@x.example and joann@x.example remain two people."""
    crm.sync(sample("booking_created", attendees=[person("joann@globex.example")]))
    crm.sync(sample("booking_created", id="2", attendees=[person("ann@globex.example")]))
    assert len(view(crm).contacts) == 2


def test_an_outage_makes_no_doubles(crm: Bridge, provider: str) -> None:
    """A failed read does not count as 'nobody found'; the next try creates one record of each kind."""
    sandbox = only(crm)
    sandbox.faults.append(Fault(status=500, body="oops", times=2))
    crm.post(sample("booking_created"))
    crm.drain()
    assert crm.delivery(provider).state in ("due", "retrying")
    assert crm.connection(provider).pause_until is not None
    sandbox.faults.clear()
    hurry(crm)
    crm.settle()
    seen = view(crm)
    assert (len(seen.contacts), len(seen.companies), len(seen.deals), len(seen.meetings)) == (
        1,
    ) * 4


def hurry(crm: Bridge) -> None:
    """Make every next attempt due now."""
    with crm.services.store.write() as session:
        session.execute(update(ConnectionRow).values(pause_until=None))
        session.execute(update(DeliveryRow).values(next_attempt_at=utcnow()))
        # Enough time has passed for the CRM's search to show the records that were begun.
        begun = RecordLink.record_id.is_(None)
        session.execute(update(RecordLink).where(begun).values(updated_at=utcnow() - DAY))


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
def test_every_lost_answer_is_made_up_for(crm: Bridge, provider: str, marked: bool) -> None:
    """A lost answer to any call duplicates nothing, although the CRM has done the call.

    This also holds if the CRM let us create no booking-id field to recognise a record by.
    """
    sandbox = only(crm)
    if not marked:
        sandbox.drop_booking_fields()
        crm.drainer = Drainer(crm.services)
    for number in itertools.count():
        key = f"lost-{number}"
        sandbox.calls.clear()
        skipped = Fault(times=number) if number else None
        sandbox.faults[:] = [*([skipped] if skipped else []), Fault(drop_after_commit=True)]
        people = [person(f"p{number}@corp{number}.example"), person(f"q{number}@gmail.com")]
        crm.post(sample("booking_created", id=key, attendees=people))
        crm.drain()
        struck = not sandbox.faults
        sandbox.faults.clear()
        hurry(crm)
        crm.settle()
        seen = view(crm)
        assert len(seen.deals) == len(seen.meetings) == number + 1, key
        assert len(seen.contacts) == 2 * (number + 1), key
        assert len(seen.companies) == number + 1, key
        assert all(len(m.contact_ids) == 2 for m in seen.meetings), key
        assert all(len(set(d.contact_ids)) == len(d.contact_ids) == 2 for d in seen.deals), key
        if not struck:
            return


def test_who_stood_still_right_before_a_call_does_not_make_it(
    crm: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that pauses right before a call does not send it after another worker did the work.

    The test stops the worker at the last possible moment, just before it sends the request.
    """
    sandbox, connection = only(crm), crm.connection(provider).id
    first, put = crm.drainer, HTTPConnection.putrequest
    left = -1

    def stand_still(wire: HTTPConnection, *args: Any, **more: Any) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            first._leases[connection]._held_until = -math.inf
            lose_lease(crm)
            crm.drainer = Drainer(crm.services)
            hurry(crm)
            crm.settle()
            sandbox.calls.clear()
        put(wire, *args, **more)

    monkeypatch.setattr(HTTPConnection, "putrequest", stand_still)
    for number in itertools.count():
        crm.post(sample("booking_created", id=f"n{number}", attendees=[person(f"p{number}@a.de")]))
        crm.drainer, left = first, number
        crm.drain()
        seen = view(crm)
        assert len(seen.deals) == len(seen.meetings) == number + 1, number
        assert len(seen.contacts) == number + 1, number
        if crm.drainer is first:
            return
        assert not sandbox.calls, number


def test_half_a_request_holds_nobody_up(crm: Bridge) -> None:
    """A worker that pauses within a request does not block other workers at the sandbox."""
    (served,) = crm.served.values()
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port)) as still:
        still.sendall(b"POST /half HTTP/1.1\r\nHost: crm\r\nContent-Length: 100\r\n\r\n{")
        # The request can block others only once the sandbox reads it.
        wait_for(
            lambda: any(t.name.endswith("(process_request_thread)") for t in threading.enumerate())
        )
        crm.sync(sample("booking_created"))
    assert len(view(crm).deals) == 1


def lose_lease(crm: Bridge) -> None:
    """Let the lease of the current worker expire."""
    with crm.services.store.write() as session:
        session.execute(update(ConnectionRow).values(drain_until=utcnow() - DAY))


def test_a_crash_before_the_ledger_is_made_up_for(crm: Bridge) -> None:
    """A worker that dies after the CRM's answer and before the ledger write leaves no duplicate."""

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    crm.post(sample("group_booking_created"))
    crm.drainer._before_save = die
    with pytest.raises(Died):
        crm.drain()
    crm.drainer._before_save = lambda: None
    crm.settle()
    seen = view(crm)
    assert (len(seen.contacts), len(seen.deals), len(seen.meetings)) == (2, 1, 1)
    assert len(seen.meetings[0].contact_ids) == len(seen.deals[0].contact_ids) == 2


def test_a_deleted_record_is_made_again(crm: Bridge, provider: str) -> None:
    """A meeting that a person deleted is created again after the next change of the booking."""
    crm.sync(sample("booking_created"))
    only(crm).delete_meetings()
    crm.sync(sample("booking_rescheduled"))
    assert crm.delivery(provider).state == "synced", crm.delivery(provider).error_message
    (meeting,) = view(crm).meetings
    assert meeting.start == "2026-12-02T13:00:00Z"
    assert len(view(crm).deals) == 1


@pytest.mark.parametrize("provider", RENEWED)
def test_an_expired_token_is_renewed_once(crm: Bridge, provider: str) -> None:
    """A 401 costs one token refresh, and the booking is synced."""
    sandbox = only(crm)
    sandbox.expire_access_tokens()
    before = sandbox.calls_to_token
    crm.sync(sample("booking_created"))
    assert crm.delivery(provider).state == "synced"
    assert sandbox.calls_to_token == before + 1


def test_a_dead_grant_parks_the_work(crm: Bridge, provider: str) -> None:
    """Work for a connection without a valid grant is parked, and resumes after a reconnect."""
    only(crm).kill_grants()
    crm.post(sample("booking_created"))
    crm.drain()
    assert crm.delivery(provider).state == "parked"
    connection = crm.connection(provider)
    assert connection.status == "expired"
    assert 'Press "Connect again"' in (connection.next_step or "")
    assert crm.connect(provider).status_code == 303
    assert crm.connection(provider).id == connection.id
    crm.settle()
    assert crm.delivery(provider).state == "synced"


def test_a_missing_scope_is_named(crm: Bridge, provider: str) -> None:
    """A missing permission puts the connection into error, with its name; the booking is parked."""
    for grant in only(crm).grants:
        grant.scopes = ["oauth", "base"]
    crm.post(sample("booking_created"))
    crm.drain()
    assert crm.connection(provider).status == "error"
    assert "scope" in (crm.connection(provider).last_error or "").lower()
    assert crm.delivery(provider).state == "parked"


def test_too_many_calls_pause_the_connection(crm: Bridge, provider: str) -> None:
    """A 429 uses up no attempt, and the service makes no call before the CRM's pause is over."""
    only(crm).faults.append(Fault(status=429, headers={"Retry-After": "7"}, body="{}"))
    crm.post(sample("booking_created"))
    crm.drain()
    delivery, connection = crm.delivery(provider), crm.connection(provider)
    assert (delivery.state, delivery.attempts) == ("due", 0)
    assert connection.pause_until is not None
    calls = only(crm).total_calls
    crm.drain()
    assert only(crm).total_calls == calls
    hurry(crm)
    crm.settle()
    assert crm.delivery(provider).state == "synced"


LATER = "2026-11-23T16:00:00Z"
REFUSED = {"email": "x@" + "y" * 100 + ".example"}
"""A person whom no CRM accepts: the address is too long, and there is no name for a contact without
it.
"""


def test_one_poisoned_booking_among_many(crm: Bridge) -> None:
    """The CRM refuses one attendee's address; every other booking of the batch is synced."""
    for number in range(12):
        who = person(f"p{number}@gmail.com") if number != 5 else REFUSED
        crm.post(sample("booking_created", id=str(number), attendees=[who]))
    crm.settle()
    states = sorted(delivery.state for delivery in crm.deliveries())
    assert states == ["failed"] + ["synced"] * 11
    (failed,) = [d for d in crm.deliveries() if d.state == "failed"]
    assert failed.error_message and failed.error_advice
    assert len(view(crm).contacts) == 11
    assert len([deal for deal in view(crm).deals if deal.contact_ids]) == 11


def test_who_was_refused_is_not_looked_for(crm: Bridge) -> None:
    """A refused create leaves nothing to search for: the next booking fails without a wait."""
    attendees = [REFUSED]
    for name in ("first", "second"):
        crm.post(sample("booking_created", id=name, attendees=attendees))
        crm.drain()
    assert [delivery.state for delivery in crm.deliveries()] == ["failed", "failed"]


def test_a_person_who_books_with_and_without_an_address_is_one(crm: Bridge) -> None:
    """Two bookings in one batch share a contact: one has address and number, one the number alone."""
    phone = "+4915123456789"
    crm.post(sample("booking_created", attendees=[person("jane@globex.example", phone=phone)]))
    alone = [{"fullname": "Jane Berg", "phone": phone}]
    crm.post(sample("booking_created", id="second", attendees=alone))
    crm.settle()
    seen = view(crm)
    assert [contact.email for contact in seen.contacts] == ["jane@globex.example"]
    assert [deal.contact_ids for deal in seen.deals] == [[seen.contacts[0].id]] * 2


@pytest.mark.parametrize("turned", [False, True], ids=["address first", "number first"])
def test_a_person_who_is_in_a_booking_twice_is_one(crm: Bridge, turned: bool) -> None:
    """A person who is in one booking with an address and again with the number alone is one contact."""
    phone = "+4915123456789"
    people = [person("jane@globex.example", phone=phone), {"fullname": "Jane", "phone": phone}]
    crm.sync(sample("booking_created", attendees=people[::-1] if turned else people))
    seen = view(crm)
    assert [contact.email for contact in seen.contacts] == ["jane@globex.example"]
    assert seen.meetings[0].contact_ids == [seen.contacts[0].id]


def test_a_company_in_two_domains_is_looked_for_in_one_batch_as_in_two(
    crm: Bridge, tmp_path: Path, provider: str
) -> None:
    """If a CRM finds companies by name, the second domain finds the first domain's company."""
    bookings = [
        sample("booking_created", id=domain, attendees=[person(f"jane@{domain}")])
        for domain in ("globex.example", "globex.test")
    ]
    apart = Bridge(f"sqlite:///{tmp_path}/apart.sqlite3", (provider,)).connect_all()
    for booking in bookings:
        crm.post(booking)
        apart.sync(booking)
    crm.settle()
    assert len(view(crm).companies) == len(view(apart).companies)
    apart.close()


@pytest.mark.parametrize("known", [True, False], ids=["known person", "new person"])
def test_what_one_booking_says_of_a_person_fails_no_other_one(crm: Bridge, known: bool) -> None:
    """If the newer of a person's two bookings has a refused name, the older one is still synced."""
    only(crm).forbidden_names.add("Forbidden")
    email = "jane@globex.example"
    if known:
        crm.sync(sample("booking_created", id="before", attendees=[person(email)]))
    good = person(email, firstname="Jane", lastname="Berg")
    crm.post(sample("booking_created", id="older", attendees=[good], updatedAt=LATER))
    bad = person(email, firstname="Jane", lastname="Forbidden")
    crm.post(sample("booking_rescheduled", id="newer", attendees=[bad]))
    crm.settle()
    states = [delivery.state for delivery in crm.deliveries()]
    assert states == ["synced"] * (1 + known) + ["failed"]
    seen = view(crm)
    names = [" ".join(filter(None, (c.first, c.last))) for c in seen.contacts]
    assert names == ["Jane Berg"]
    bookings = [deal.booking for deal in seen.deals]
    assert "default:older" in bookings and len(bookings) == len(set(bookings))
    failed = crm.deliveries()[-1]
    assert failed.error_fields and "forbids" in (failed.error_message or "")


def test_the_credential_reaches_no_crm(crm: Bridge) -> None:
    """No record contains the payload's secret."""
    for name in STATES:
        crm.sync(sample(name))
    assert "cancel-token-do-not-store" not in repr(vars(only(crm)))


def test_bodies_are_safe(crm: Bridge) -> None:
    """Markup in a name remains text."""
    evil = person("eve@gmail.com", fullname="<img src=x onerror=alert(1)>")
    crm.sync(sample("booking_created", attendees=[evil]))
    wait_for(lambda: bool(view(crm).meetings))
    assert "<img src=x" in view(crm).meetings[0].body  # the sandbox has decoded the escaped text
