"""Records that a dead worker began, and that the booking wants otherwise when the next worker starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from app.store.models import RecordLink
from config.settings import CONFIG_DIR
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, Bridge, owned, sample
from tests.contract.desk import load_desks
from tests.contract.test_adapters import hurry, lose_lease, only, person, view
from tests.integration.test_lag import PHONE_ONLY, lagging
from tests.integration.test_outages import Clock, clock
from workers.drain import Drainer

__all__ = ["clock"]

SHIPPED = CONFIG_DIR / "mappings"
JANE, OMAR = person("jane@globex.example"), person("omar@initech.example")


class Died(BaseException):
    """A worker dies between the CRM's answer and the ledger."""


@contextmanager
def dying(crm: Bridge) -> Iterator[None]:
    """Let the current worker die before it saves its results."""

    def die() -> None:
        raise Died

    crm.drainer._before_save = die
    with pytest.raises(Died):
        yield
    crm.drainer._before_save = lambda: None
    lose_lease(crm)


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
@pytest.mark.parametrize("known", [True, False], ids=["known attendee", "new attendee"])
def test_another_attendee_takes_the_place_of_one_that_was_begun(
    crm: Bridge, marked: bool, known: bool
) -> None:
    """Records begun for one attendee go to the attendee who replaced this person and is the only
    one linked.
    """
    if not marked:
        only(crm).drop_booking_fields()
        crm.drainer = Drainer(crm.services)
    if known:
        crm.sync(sample("booking_created", id="omars", attendees=[OMAR]))
    crm.post(sample("booking_created", attendees=[JANE]))
    with dying(crm):
        crm.drain()
    crm.post(sample("booking_rescheduled", attendees=[OMAR]))
    hurry(crm)
    crm.settle()
    seen = view(crm)
    assert (len(seen.deals), len(seen.meetings)) == ((2, 2) if known else (1, 1))
    emails = {contact.id: contact.email for contact in seen.contacts}
    deal, meeting = seen.deals[-1], seen.meetings[-1]
    assert [emails[i] for i in deal.contact_ids] == ["omar@initech.example"]
    assert [emails[i] for i in meeting.contact_ids] == ["omar@initech.example"]
    companies = {company.id: company.domain for company in seen.companies}
    assert companies[deal.company_id] == "initech.example"


@pytest.mark.parametrize("provider", ["pipedrive"])
def test_a_deal_is_not_made_again_before_the_search_shows_whom_it_hangs_on(
    crm: Bridge, clock: Clock
) -> None:
    """A deal begun for Jane is not created twice, although only a lagging search can find Jane and
    her deal.
    """
    crm.sync(sample("booking_created", id="omars", attendees=[OMAR]))
    crm.post(sample("booking_created", attendees=[JANE]))
    with dying(crm):
        crm.drain()
    lagging(crm)
    crm.post(sample("booking_rescheduled", attendees=[OMAR]))
    for _ in range(4):
        crm.drain()
        clock.forward(3)
    assert [d.state for d in crm.deliveries()] == ["synced", "retrying"]
    only(crm).search_lag = set()
    clock.forward(60)
    crm.drain()
    assert [d.state for d in crm.deliveries()] == ["synced", "synced"]
    seen = view(crm)
    assert (len(seen.deals), len(seen.meetings)) == (2, 2)
    assert all(deal.contact_ids == seen.deals[0].contact_ids for deal in seen.deals)


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
@pytest.mark.parametrize("before", [True, False], ids=["one was synced before", "both were begun"])
def test_bookings_of_one_name_are_told_apart(crm: Bridge, marked: bool, before: bool) -> None:
    """Each booking takes over the records begun for it, although all have the same names."""
    if not marked:
        only(crm).drop_booking_fields()
        crm.drainer = Drainer(crm.services)
    first = sample("booking_created", id="first", attendees=[JANE])
    second = sample("booking_created", id="second", attendees=[JANE])
    crm.drain(warm_only=True)
    if before:
        crm.sync(first)
    else:
        crm.post(first)
    crm.post(second)
    with dying(crm):
        crm.drain()
    crm.post(sample("booking_rescheduled", id="second", attendees=[JANE]))
    hurry(crm)
    crm.settle()
    seen = view(crm)
    assert (len(seen.contacts), len(seen.deals), len(seen.meetings)) == (1, 2, 2)
    assert len({meeting.deal_id for meeting in seen.meetings}) == 2
    starts = {m.body.split()[-1].partition("<")[0]: m.start for m in seen.meetings}
    assert starts == {"first": "2026-12-01T08:00:00Z", "second": "2026-12-02T13:00:00Z"}


@pytest.mark.parametrize("attendee", [JANE, PHONE_ONLY], ids=["by e-mail", "by phone"])
def test_a_person_that_was_begun_is_brought_up_to_date(
    crm: Bridge, provider: str, tmp_path: Path, attendee: dict[str, Any]
) -> None:
    """A contact that a dead worker created gets the host and the name that changed meanwhile."""
    host = {"id": "h2", "email": "mary@acme.example", "fullName": "Mary Major"}
    first = sample("booking_created", attendees=[attendee])
    renamed = {**attendee, "fullname": "Jane Hill", "firstname": "Jane", "lastname": "Hill"}
    then = sample("booking_rescheduled", attendees=[renamed], hosts=[host], hostIds=["h2"])
    unharmed = Bridge(f"sqlite:///{tmp_path}/other.sqlite3", (provider,)).connect_all()
    unharmed.sync(first)
    unharmed.sync(then)
    crm.post(first)
    with dying(crm):
        crm.drain()
    crm.post(then)
    hurry(crm)
    crm.settle()
    (contact,), (wanted,) = view(crm).contacts, view(unharmed).contacts
    assert (contact.first, contact.last, contact.owner) == (wanted.first, wanted.last, wanted.owner)
    assert contact.owner == ("mary@acme.example" if owned(provider, "contact") else None)
    unharmed.close()


@pytest.mark.parametrize("attendee", [JANE, OMAR], ids=["same attendee", "another one"])
@pytest.mark.parametrize("when_deleted", ["recreate", "leave"])
@pytest.mark.parametrize("done", [True, False], ids=["it was deleted", "it was not"])
def test_a_meeting_that_was_being_deleted_stands_again(
    provider: str, tmp_path: Path, when_deleted: str, done: bool, attendee: dict[str, Any]
) -> None:
    """A meeting stands again if the booking returns after a delete with an unknown result."""
    for name in PROVIDERS:
        file = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        rules = {"on_cancel": "delete", "when_deleted": when_deleted}
        mapping = yaml.safe_load(file)
        mapping["meeting"] |= rules
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    crm = Bridge(url, (provider,), mappings_dir=tmp_path).connect_all()
    crm.sync(sample("booking_created", attendees=[JANE]))
    method, path = load_desks()[provider].delete_meeting
    lost = {"drop_after_commit": True} if done else {"status": 503}
    only(crm).faults.append(Fault(method=method, path=path, **lost))
    crm.post(sample("booking_cancelled", attendees=[JANE]))
    crm.drain()
    assert not only(crm).faults
    assert len(view(crm).meetings) == (0 if done else 1)
    crm.post(sample("booking_rescheduled", attendees=[attendee], updatedAt="2026-11-26T00:00:00Z"))
    hurry(crm)
    crm.settle()
    assert crm.delivery(provider).state == "synced"
    (meeting,) = view(crm).meetings
    assert (meeting.start, meeting.cancelled) == ("2026-12-02T13:00:00Z", False)
    emails = {contact.id: contact.email for contact in view(crm).contacts}
    assert [emails[i] for i in meeting.contact_ids] == [attendee["email"]]
    assert meeting.deal_id
    crm.sync(sample("booking_cancelled", attendees=[attendee], updatedAt="2026-11-27T00:00:00Z"))
    assert view(crm).meetings == []
    crm.close()


def unmark(crm: Bridge, clock: Clock | None = None) -> None:
    """Remove the CRM's booking-id fields."""
    only(crm).drop_booking_fields()
    crm.drainer = Drainer(crm.services, now=clock) if clock else Drainer(crm.services)


def after_the_lag(crm: Bridge, clock: Clock) -> None:
    """Drain while the search shows nothing, and again when it shows the records."""
    for _ in range(4):
        crm.drain()
        clock.forward(2)
    only(crm).search_lag = set()
    for _ in range(5):
        clock.forward(60)
        crm.drain()
    assert {delivery.state for delivery in crm.deliveries()} == {"synced"}


def people_of(crm: Bridge) -> list[tuple[str | None, ...]]:
    """Return the e-mail addresses on every deal, then on every meeting."""
    seen = view(crm)
    emails = {contact.id: contact.email for contact in seen.contacts}
    records = [*seen.deals, *seen.meetings]
    return [tuple(sorted(emails[i] or "" for i in record.contact_ids)) for record in records]


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
@pytest.mark.parametrize("second", [True, False], ids=["who has another booking", "who has none"])
@pytest.mark.parametrize("provider", ["hubspot", "pipedrive"])
def test_what_is_waited_for_stays_as_it_was_begun(
    crm: Bridge, clock: Clock, marked: bool, second: bool
) -> None:
    """An attempt that runs before the search shows the begun records forgets none of them."""
    if not marked:
        unmark(crm, clock)
    crm.post(sample("booking_created", attendees=[JANE]))
    if second:
        crm.post(sample("booking_created", id="second", attendees=[JANE]))
        crm.drain(warm_only=True)
    with dying(crm):
        crm.drain()
    lagging(crm)
    crm.post(sample("booking_rescheduled", attendees=[OMAR]))
    after_the_lag(crm, clock)
    jane = [(JANE["email"],)] if second else []
    assert sorted(people_of(crm)) == sorted(2 * [*jane, (OMAR["email"],)])


@pytest.mark.parametrize(("provider", "attendee"), [("hubspot", PHONE_ONLY), ("pipedrive", JANE)])
def test_a_person_that_is_waited_for_is_brought_up_to_date(
    crm: Bridge, clock: Clock, attendee: dict[str, Any]
) -> None:
    """A person whom the search shows late still gets the new host and the new name."""
    host = {"id": "h2", "email": "mary@acme.example", "fullName": "Mary Major"}
    renamed = {**attendee, "fullname": "Jane Hill", "firstname": "Jane", "lastname": "Hill"}
    crm.post(sample("booking_created", attendees=[attendee]))
    with dying(crm):
        crm.drain()
    lagging(crm)
    crm.post(sample("booking_rescheduled", attendees=[renamed], hosts=[host], hostIds=["h2"]))
    after_the_lag(crm, clock)
    (contact,) = view(crm).contacts
    assert " ".join(filter(None, (contact.first, contact.last))) == "Jane Hill"
    assert contact.owner == "mary@acme.example"


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
@pytest.mark.parametrize("moved", [True, False], ids=["moved between", "unchanged"])
def test_two_deaths_in_a_row_double_nothing(crm: Bridge, marked: bool, moved: bool) -> None:
    """A second worker that finds the first one's records and dies too leaves no duplicates."""
    if not marked:
        unmark(crm)
    crm.post(sample("booking_created", attendees=[JANE]))
    with dying(crm):
        crm.drain()
    if moved:
        crm.post(sample("booking_rescheduled", attendees=[JANE]))
    hurry(crm)
    with dying(crm):
        crm.drain()
    if moved:
        renamed = {**JANE, "firstname": "Jane", "lastname": "Hill"}
        later = "2026-11-26T00:00:00Z"
        crm.post(sample("booking_rescheduled", attendees=[renamed], updatedAt=later))
    hurry(crm)
    crm.settle()
    seen = view(crm)
    (contact,) = seen.contacts
    assert (len(seen.companies), len(seen.deals), len(seen.meetings)) == (1, 1, 1)
    assert ("Hill" in (contact.last or "")) == moved


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
def test_a_lost_answer_and_then_an_outage_double_nothing(
    crm: Bridge, provider: str, marked: bool
) -> None:
    """A lost answer to a deal's create and a 503 on the next call leave no duplicates."""
    if not marked:
        unmark(crm)
    crm.drain(warm_only=True)
    create, then = load_desks()[provider].create_deal, load_desks()[provider].after_deal
    only(crm).faults.append(Fault(method=create[0], path=create[1], drop_after_commit=True))
    crm.post(sample("booking_created", attendees=[JANE]))
    crm.drain()
    assert not only(crm).faults and len(view(crm).deals) == 1
    hurry(crm)
    only(crm).faults.append(Fault(method=then[0], path=then[1], status=503))
    crm.drain()
    hurry(crm)
    only(crm).faults.clear()
    crm.settle()
    assert (len(view(crm).deals), len(view(crm).meetings)) == (1, 1)


@pytest.mark.parametrize("marked", [True, False], ids=["booking-id fields", "no fields of ours"])
@pytest.mark.parametrize("how", ["none", "skip"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_was_begun_is_kept_current_where_the_file_leaves_it_out(
    provider: str, tmp_path: Path, marked: bool, how: str
) -> None:
    """If a worker dies before the ledger write and the mapping then leaves the meeting type out,
    the begun records are found and follow the booking; no record is added.
    """
    for name in PROVIDERS:
        mapping = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
        if how == "skip":
            mapping["skip"] = [{"when": {"meeting_type.slug": "onboarding"}}]
        else:
            mapping["meeting_types"] = {"onboarding": {"deal": "none", "meeting": "none"}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    crm = Bridge(url, (provider,), mappings_dir=tmp_path).connect_all()
    if not marked:
        only(crm).drop_booking_fields()
        crm.drainer = Drainer(crm.services)
    crm.post(sample("booking_created", attendees=[JANE]))
    with dying(crm):
        crm.drain()
    before = view(crm)
    payload = sample("booking_rescheduled", attendees=[JANE])
    crm.post({**payload, "meetingType": {**payload["meetingType"], "slug": "onboarding"}})
    hurry(crm)
    crm.settle()
    seen = view(crm)
    assert (len(seen.contacts), len(seen.deals), len(seen.meetings)) == (1, 1, 1)
    assert seen.meetings[0].start == "2026-12-02T13:00:00Z"
    assert seen.deals[0].contact_ids == before.deals[0].contact_ids
    assert seen.deals[0].company_id == before.deals[0].company_id
    assert seen.meetings[0].contact_ids == before.meetings[0].contact_ids
    assert crm.delivery(provider).state == "synced"
    with crm.services.store.read() as session:
        rows = session.scalars(select(RecordLink)).all()
    assert all(row.record_id for row in rows if row.object in ("deal", "meeting"))
    crm.close()
