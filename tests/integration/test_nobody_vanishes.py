"""Every attendee is in the CRM or is named, however people type addresses, numbers, zones and names."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.booking import Booking
from app.domain.events import read_booking, read_event
from app.store.bookings import _codec
from app.store.engine import utcnow
from config.settings import SettingsError
from sandbox.view import Contact, View
from tests.bridge import PROVIDERS, Bridge, sample

STAR, FAMILY = "🌟", "👨‍👩‍👧‍👦"


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Bridge]:
    """The service with one CRM, for tests without differences between CRMs."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", PROVIDERS[:1]).connect_all()
    yield made
    made.close()


def view(crm: Bridge) -> View:
    (served,) = crm.served.values()
    seen: View = served.sandbox.view()
    return seen


def book(crm: Bridge, *people: dict[str, Any], **changes: Any) -> View:
    """Post a booking with these attendees and check that it is synced."""
    crm.sync(sample("booking_created", attendees=list(people), **changes))
    assert {delivery.state for delivery in crm.deliveries()} == {"synced"}
    return view(crm)


def jane(**changes: Any) -> dict[str, Any]:
    return {"id": "a1", "email": "jane@x.example", "firstname": "Jane", "lastname": "Holm",
            "timezone": "Europe/Berlin", "language": "de", **changes}  # fmt: skip


def told(crm: Bridge) -> str:
    """Return the delivery's notes on the booking's page."""
    (delivery,) = crm.deliveries()
    page = crm.client.get("/bookings/default:" + sample("booking_created")["id"])
    assert page.status_code == 200
    shown = html.unescape(page.get_data(as_text=True))
    notes = list(delivery.notes)
    assert all(note in shown for note in notes)
    return "\n".join(notes)


def name(contact: Contact) -> str:
    return " ".join(filter(None, (contact.first, contact.last)))


def body(seen: View) -> str:
    (meeting,) = seen.meetings
    return html.unescape(meeting.body)


def test_a_number_of_an_older_zone_name_has_its_country(crm: Bridge) -> None:
    """Chrome's and Windows' names for India's time zone give the number its country code."""
    seen = book(
        crm,
        jane(id="a1", phone="098765 43210", timezone="Asia/Calcutta", language="en"),
        jane(id="a2", email="ravi@x.example", phone="098765 43211", timezone="India Standard Time"),
    )
    assert {contact.phone for contact in seen.contacts} == {"+919876543210", "+919876543211"}
    assert "(Asia/Kolkata)" in body(seen)
    assert told(crm) == ""


def test_a_domain_of_another_script_is_an_address(crm: Bridge) -> None:
    """A domain with an umlaut is written in ASCII; both spellings give one contact at one company."""
    seen = book(crm, jane(email="Info@Käse-Müller.example"))
    assert [contact.email for contact in seen.contacts] == ["info@xn--kse-mller-v2a2y.example"]
    assert [company.name for company in seen.companies] == ["xn--kse-mller-v2a2y.example"]
    assert told(crm) == ""
    seen = book(crm, jane(email="info@xn--kse-mller-v2a2y.example"), id="another")
    assert (len(seen.contacts), len(seen.companies), len(seen.meetings)) == (1, 1, 2)


def test_a_pasted_address_is_read(crm: Bridge) -> None:
    """An address with a name in front, mailto, quotes, full-width characters or a final stop is read."""
    typed = ["Jane Holm <a@x.example>", "mailto:b@x.example", "„c@x.example“.", "ｄ＠ｘ.example"]
    seen = book(crm, *(jane(id=email, email=email) for email in typed))
    assert {contact.email for contact in seen.contacts} == {f"{c}@x.example" for c in "abcd"}
    assert told(crm) == ""


def test_the_name_beside_a_pasted_address_is_used_where_none_was_given(first: Bridge) -> None:
    """The name in front of a pasted address is used only if the form has no name."""
    pasted = "Jane Holm <jane@x.example>"
    seen = book(
        first,
        {"email": pasted},
        {"email": "J. H. <ben@x.example>", "firstname": "Ben", "lastname": "Holm"},
    )
    assert {contact.email: name(contact) for contact in seen.contacts} == {
        "jane@x.example": "Jane Holm",
        "ben@x.example": "Ben Holm",
    }


def test_who_cannot_be_read_is_named_as_typed(crm: Bridge) -> None:
    """An unreadable address, number or zone appears in the meeting's text and on the booking's page."""
    seen = book(
        crm,
        jane(email="heike(at)firma", phone="ask my <b>office</b>", timezone="Middle Earth"),
        jane(id="a2", email="ole@x.example", firstname="Ole", phone="12"),
    )
    assert [contact.email for contact in seen.contacts] == ["ole@x.example"]
    for text in (body(seen), told(crm)):
        for typed in ("Jane Holm", "heike(at)firma", "ask my <b>office</b>", "Middle Earth", "12"):
            assert typed in text
    assert "there is no contact" in told(crm).splitlines()[0]
    assert "Ole Holm: phone “12” could not be read and was left out" in told(crm)


def test_who_has_neither_address_nor_number_is_named_beside_others(crm: Bridge) -> None:
    """An attendee with only a name is named in the meeting's text, beside attendees with an address."""
    seen = book(crm, jane(), {"id": "a2", "fullname": "Somebody Else"})
    assert len(seen.contacts) == 1
    assert "Somebody Else" in body(seen)


@pytest.mark.parametrize("shared", ["email", "phone"])
def test_who_shares_an_address_is_named_with_the_answers(crm: Bridge, shared: str) -> None:
    """Two people with the same address or number are one contact; the meeting's text names both."""
    one = {"email": "family@x.example"} if shared == "email" else {"phone": "+4915123456789"}
    anna = {"id": "a1", "firstname": "Anna", "lastname": "Holm", **one}
    ben = {
        "id": "a2",
        "firstname": "Ben",
        "lastname": "Holm",
        "notes": {"Allergies": "nuts"},
        **one,
    }
    seen = book(crm, anna, ben)
    assert [name(contact) for contact in seen.contacts] == ["Anna Holm"]
    text = body(seen)
    assert "Ben Holm" in text and "(same contact as Anna Holm)" in text
    assert "Allergies: nuts" in text
    calls = sum(served.sandbox.total_calls for served in crm.served.values())
    crm.sync(sample("booking_created", attendees=[anna, ben], updatedAt="2030-01-01T00:00:00Z"))
    assert calls == sum(served.sandbox.total_calls for served in crm.served.values())


def test_relays_are_no_companies(crm: Bridge) -> None:
    """People who hide their addresses behind one relay are not colleagues of one company."""
    addresses = ["x7k2@privaterelay.appleid.com", "shop@ida.mozmail.com", "ole@hey.com"]
    seen = book(crm, *(jane(id=email, email=email) for email in addresses))
    assert len(seen.contacts) == 3
    assert seen.companies == []


def test_a_proposed_file_makes_no_company_of_a_relay_either(first: Bridge) -> None:
    """A trial of a mapping text knows the same relays as the file in use."""
    book(first, jane(email="x7k2@privaterelay.appleid.com"))
    row = first.connection(PROVIDERS[0])
    text = first.services.mappings.path(PROVIDERS[0]).read_text(encoding="utf-8")
    trial = first.services.trial.try_text(PROVIDERS[0], text, row)
    assert trial.mistakes == () and trial.account and not trial.account.problem
    (shown,) = trial.account.bookings
    assert {record.object for record in shown.records} == {"contact", "deal", "meeting"}


@pytest.fixture
def choosy(tmp_path: Path) -> Iterator[Bridge]:
    """The service with two domains in its setting NO_COMPANY_DOMAINS."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", PROVIDERS[:1],
                  no_company_domains="Agency.example, @müller.example").connect_all()  # fmt: skip
    yield made
    made.close()


def test_a_company_names_domains_that_are_none(choosy: Bridge) -> None:
    """Domains in NO_COMPANY_DOMAINS and their subdomains create no company, in any script."""
    seen = book(
        choosy,
        jane(id="a1", email="a@agency.example"),
        jane(id="a2", email="b@desk.agency.example"),
        jane(id="a3", email="c@xn--mller-kva.example"),
        jane(id="a4", email="d@otheragency.example"),
    )
    assert len(seen.contacts) == 4
    assert [company.name for company in seen.companies] == ["otheragency.example"]


def test_a_setting_that_is_no_domain_is_refused(tmp_path: Path) -> None:
    """A text in NO_COMPANY_DOMAINS that is no domain stops the start, and the error names it."""
    with pytest.raises(SettingsError, match="NO_COMPANY_DOMAINS names 'not a domain'"):
        Bridge(f"sqlite:///{tmp_path}/a.sqlite3", (), no_company_domains="ok.example, not a domain")


def test_text_is_cut_as_the_crm_counts(crm: Bridge) -> None:
    """A name full of emojis is cut between emojis to fit its field, and the meeting's text has it
    whole.
    """
    long = FAMILY * 3 + STAR * 150 + " Lindqvist"
    seen = book(crm, jane(lastname=long), meetingType={"meetingInfo": {"name": STAR * 200}})
    (contact,) = seen.contacts
    whole = set(re.findall(f"{FAMILY}|{STAR}|.", name(contact)))
    assert whole - {FAMILY, STAR, *"Jane Lindqvist…"} == set()
    assert long in body(seen)


def test_what_a_spreadsheet_would_run_is_text(first: Bridge) -> None:
    """A name that is a formula gets an apostrophe in front; numbers and handles stay unchanged."""
    formula = '=HYPERLINK("http://evil.example")'
    seen = book(first, jane(firstname=formula, lastname="@holm", phone="+49 (151) 23456789"))
    assert [name(contact) for contact in seen.contacts] == [f"'{formula} @holm"]
    assert [contact.phone for contact in seen.contacts] == ["+4915123456789"]


def test_bookings_that_were_stored_before_are_read() -> None:
    """A booking stored before these fields existed is read with the fields empty."""
    made = read_booking(read_event("default", sample("group_booking_created"), utcnow()))
    stored = _codec.dump_python(made, mode="json")
    del stored["companions"]
    for person in stored["attendees"]:
        del person["email_as_given"], person["timezone_as_given"], person["no_company"]
    read: Booking = _codec.validate_python(stored)
    assert read == made
    assert (read.companions, read.attendees[0].email_as_given) == ((), None)


def test_bookings_that_an_older_release_stored_keep_their_starts_and_people() -> None:
    """Starts and people that an older release stored under other names are read."""
    made = read_booking(read_event("default", sample("group_booking_created"), utcnow()))
    known = replace(
        made,
        previous_starts=(made.start - timedelta(days=1),),
        former_attendees=("email:a@b.example",),
    )
    stored = json.loads(_codec.dump_json(known))
    stored["earlier"] = stored.pop("previous_starts")
    stored["left"] = stored.pop("former_attendees")
    assert _codec.validate_json(json.dumps(stored)) == known
    assert _codec.validate_json(_codec.dump_json(known)) == known
