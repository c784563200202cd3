"""Deals that are leads of Pipedrive's inbox: lost answers, and cases that the documentation leaves
open.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from app.store.models import RecordLink
from config.settings import CONFIG_DIR
from sandbox.faults import Fault
from sandbox.pipedrive import PipedriveSandbox
from tests.bridge import Bridge, sample
from tests.contract.test_adapters import hurry, only, person
from workers.drain import Drainer

JANE = person("jane@gmail.com")
MARKED = pytest.mark.parametrize(
    "marked", [True, False], ids=["booking-id fields", "no fields of ours"]
)


@pytest.fixture
def deal() -> dict[str, Any]:
    """The deal section of the mapping, without `as: lead`."""
    return {}


@pytest.fixture
def crm(tmp_path: Path, deal: dict[str, Any]) -> Iterator[Bridge]:
    """The service with a Pipedrive account whose deals start as leads."""
    folder = tmp_path / "mappings"
    shutil.copytree(CONFIG_DIR / "mappings", folder)
    mapping = yaml.safe_load((folder / "pipedrive.yaml").read_text("utf-8"))
    mapping["deal"] |= {"as": "lead", **deal}
    (folder / "pipedrive.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    made = Bridge(url, ("pipedrive",), mappings_dir=folder).connect_all()
    yield made
    made.close()


def unmark(crm: Bridge) -> None:
    """Remove the account's booking-id fields."""
    only(crm).drop_booking_fields()
    crm.drainer = Drainer(crm.services)


def leads(sandbox: PipedriveSandbox) -> list[dict[str, Any]]:
    """Return the leads of the inbox."""
    return [lead for lead in sandbox.leads.values() if not lead["is_deleted"]]


def living(sandbox: PipedriveSandbox, kind: str) -> list[dict[str, Any]]:
    """Return the records of a kind that are not deleted."""
    return [record for record in sandbox.records[kind].values() if not record["is_deleted"]]


def page_of(crm: Bridge) -> str:
    """Return the address of the booking's deal in Pipedrive."""
    with crm.services.store.read() as session:
        rows = session.scalars(select(RecordLink).where(RecordLink.object == "deal"))
        return "".join(row.url for row in rows)


@MARKED
@pytest.mark.parametrize("converted", [False, True], ids=["a lead", "a deal by then"])
def test_every_lost_answer_of_a_lead_is_made_up_for(
    crm: Bridge, marked: bool, converted: bool
) -> None:
    """A lost answer to any call leaves one record of each kind, also if a colleague converts the
    lead meanwhile.
    """
    sandbox = only(crm)
    if not marked:
        unmark(crm)
    for number in itertools.count():
        sandbox.faults[:] = [
            *([Fault(times=number)] if number else []),
            Fault(drop_after_commit=True),
        ]
        someone = [person(f"p{number}@corp{number}.example")]
        crm.post(sample("booking_created", id=f"lost-{number}", attendees=someone))
        crm.drain()
        struck = not sandbox.faults
        sandbox.faults.clear()
        for lead in leads(sandbox) if converted else ():
            sandbox.convert(lead["id"])
        hurry(crm)
        crm.settle()
        made = number + 1
        there = len(leads(sandbox)), len(living(sandbox, "deals"))
        assert sum(there) == len(living(sandbox, "activities")) == made, number
        assert len(living(sandbox, "persons")) == len(living(sandbox, "organizations")) == made
        ends = {str(lead["id"]) for lead in leads(sandbox)}
        ends |= {str(deal["id"]) for deal in living(sandbox, "deals")}
        hung = [str(a.get("deal_id") or a.get("lead_id")) for a in living(sandbox, "activities")]
        assert sorted(hung) == sorted(ends)
        if not struck:
            return


def convert_before(
    monkeypatch: pytest.MonkeyPatch, sandbox: PipedriveSandbox, call: Callable[[str, str], bool]
) -> None:
    """Let a colleague convert every lead right before the first call of this sort."""
    put, done = HTTPConnection.putrequest, False

    def first(wire: HTTPConnection, method: str, path: str, *args: Any, **more: Any) -> None:
        nonlocal done
        if not done and call(method, path):
            done = True
            for lead in leads(sandbox):
                sandbox.convert(lead["id"])
        put(wire, method, path, *args, **more)

    monkeypatch.setattr(HTTPConnection, "putrequest", first)


@pytest.mark.parametrize("deal", [{"fields": {"title": {"from": "host.full_name"}}}])
@pytest.mark.parametrize(
    "call",
    [
        lambda method, path: method == "PATCH" and "/leads/" in path,
        lambda method, path: method == "PATCH" and "/activities/" in path,
    ],
    ids=["the lead is written", "the activity is written"],
)
def test_a_lead_that_is_converted_in_the_midst_of_a_sync(
    crm: Bridge, monkeypatch: pytest.MonkeyPatch, call: Callable[[str, str], bool]
) -> None:
    """If a colleague converts the lead between read and write, the deal gets the changes, once."""
    crm.sync(sample("booking_created", attendees=[JANE]))
    assert page_of(crm).endswith(f"/leads/inbox/{leads(only(crm))[0]['id']}")
    convert_before(monkeypatch, only(crm), call)
    mary = [{"email": "mary@acme.example", "fullName": "Mary Major", "givenName": "Mary", "familyName": "Major"}]  # fmt: skip
    crm.post(sample("booking_rescheduled", attendees=[JANE], hosts=mary))
    crm.drain()
    hurry(crm)
    crm.settle()
    assert crm.delivery("pipedrive").state == "synced"
    assert leads(only(crm)) == []
    (made,) = living(only(crm), "deals")
    (activity,) = living(only(crm), "activities")
    assert (made["title"], made["owner_id"]) == ("Mary Major", 2)
    assert (activity["deal_id"], activity["due_date"]) == (made["id"], "2026-12-02")
    crm.sync(sample("booking_cancelled", attendees=[JANE], hosts=mary))
    assert page_of(crm).endswith(f"/deal/{made['id']}")
    assert len(living(only(crm), "deals")) == 1


@MARKED
@pytest.mark.parametrize("person_changed", [False, True], ids=["same person", "another person"])
def test_the_deal_is_found_where_it_does_not_name_its_lead(
    crm: Bridge, marked: bool, person_changed: bool
) -> None:
    """If a converted deal does not name its lead, the booking id on the deal or the activity
    identifies it.
    """
    sandbox = only(crm)
    if not marked:
        unmark(crm)
    crm.sync(sample("booking_created", attendees=[JANE]))
    (lead,) = leads(sandbox)
    number = sandbox.convert(lead["id"])
    sandbox.names_sources = False
    if person_changed:
        sandbox.records["deals"][number]["person_id"] = None
    crm.sync(sample("booking_rescheduled", attendees=[JANE]))
    assert page_of(crm).endswith(f"/deal/{number}")
    assert (len(leads(sandbox)), len(living(sandbox, "deals"))) == (0, 1)
    (activity,) = living(sandbox, "activities")
    assert (activity["deal_id"], activity["due_date"]) == (number, "2026-12-02")


def test_an_activity_that_a_colleague_hung_elsewhere_makes_no_conversion(crm: Bridge) -> None:
    """If a colleague deletes the lead and moves the activity to their own deal, that deal stays
    theirs.
    """
    sandbox = only(crm)
    crm.sync(sample("booking_created", attendees=[JANE]))
    (lead,), (activity,) = leads(sandbox), living(sandbox, "activities")
    theirs = sandbox.convert(lead["id"])
    sandbox.records["deals"][theirs] |= {"source_lead_id": None, "title": "Theirs", "person_id": None, "custom_fields": {}}  # fmt: skip
    crm.sync(sample("booking_rescheduled", attendees=[JANE]))
    assert sandbox.records["deals"][theirs]["title"] == "Theirs"
    (again,) = leads(sandbox)
    assert activity["lead_id"] == again["id"]


def test_without_the_scope_bookings_wait(crm: Bridge) -> None:
    """If the account hides leads, the connection names the missing scope and the booking waits."""
    sandbox = only(crm)
    sandbox.account.loses_scopes("leads:full")
    crm.post(sample("booking_created", attendees=[JANE]))
    crm.drain()
    row = crm.connection("pipedrive")
    assert "scope" in str(row.last_error).lower()
    assert crm.delivery("pipedrive").state not in ("synced", "failed")


def test_a_booking_without_people_makes_no_lead(crm: Bridge) -> None:
    """Pipedrive allows no lead without a person or an organization: the meeting is written, and the
    booking says why there is no lead.
    """
    crm.sync(sample("booking_created", attendees=[{"email": "nonsense", "fullname": "Nobody"}]))
    assert len(living(only(crm), "activities")) == 1
    assert leads(only(crm)) == []
    row = crm.delivery("pipedrive")
    assert row.state == "failed"
    assert "without a person or an organization" in str(row.error_message)


@pytest.mark.parametrize("deal", [{"stage": {"created": "first", "cancelled": "Contact made"}}])
@pytest.mark.parametrize("converted", [False, True], ids=["a lead", "a deal by then"])
def test_the_preview_tells_what_then_is_written(crm: Bridge, converted: bool) -> None:
    """The preview shows a new lead, later the deal's stage, and the current record's address."""
    crm.post(sample("booking_created", attendees=[JANE]))
    (told,) = previewed(crm)
    assert (told["action"], told["url"]) == ("create", "")
    assert told["notes"] == ["It is created as a lead in the Leads inbox."]
    assert {"pipeline_id", "stage_id"} & {field["name"] for field in told["fields"]} == set()
    crm.settle()
    (lead,) = leads(only(crm))
    number = only(crm).convert(lead["id"]) if converted else 0
    crm.post(sample("booking_cancelled", attendees=[JANE]))
    (told,) = previewed(crm)
    changed = {field["name"]: field["new"] for field in told["fields"]}
    assert changed == ({"stage_id": "2"} if converted else {})
    assert told["record_id"] == (str(number) if converted else lead["id"])
    crm.settle()
    assert page_of(crm).endswith(f"/deal/{number}" if converted else f"/leads/inbox/{lead['id']}")
    if converted:
        assert only(crm).records["deals"][number]["stage_id"] == 2


def previewed(crm: Bridge) -> list[dict[str, Any]]:
    """Return the preview of the booking's deal."""
    words = ["mappings", "preview", "pipedrive", "--since", "today", "--connection", "1", "--json"]
    answer = crm.app.test_cli_runner().invoke(args=words)
    (booking,) = json.loads(answer.stdout)
    return [record for record in booking["records"] if record["object"] == "deal"]


def test_a_lead_that_strangers_name_is_asked_for_by_nobody_who_makes_none(tmp_path: Path) -> None:
    """A mapping that makes deals never asks for leads, whatever address strangers type."""
    folder = Path(shutil.copytree(CONFIG_DIR / "mappings", tmp_path / "mappings"))
    mapping = yaml.safe_load((folder / "pipedrive.yaml").read_text("utf-8"))
    mapping["deal"]["record_id"] = "link.deal"
    (folder / "pipedrive.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    bridge = Bridge(url, ("pipedrive",), mappings_dir=folder).connect_all()
    only(bridge).account.loses_scopes("leads:full")
    typed = "https://acme.pipedrive.com/leads/inbox/adf21080-0e10-11eb-879b-05d71fb426ec"
    meeting = {"channel": "zoom", "meetingLink": f"https://zoom.us/j/1?deal={typed}"}
    bridge.sync(sample("booking_created", meetingInfo=meeting))
    assert bridge.delivery("pipedrive").state == "synced"
    assert not [call for call in only(bridge).calls if "leads" in call]
    assert len(living(only(bridge), "deals")) == 1
    bridge.close()


def test_who_books_anew_moves_the_lead(crm: Bridge) -> None:
    """A booking that replaces another one takes over its lead or its converted deal; surplus
    records made earlier are removed.
    """
    sandbox = only(crm)
    crm.sync(sample("booking_created", id="old", attendees=[JANE]))
    crm.sync(sample("booking_created", id="new", attendees=[JANE], start="2026-12-08T08:00:00Z"))
    assert len(leads(sandbox)) == 2
    (first,) = [lead["id"] for lead in leads(sandbox)][:1]
    crm.sync(
        sample(
            "booking_created",
            id="new",
            attendees=[JANE],
            start="2026-12-08T08:00:00Z",
            rescheduledFromId="old",
            updatedAt="2026-11-26T00:00:00Z",
        )
    )
    assert [lead["id"] for lead in leads(sandbox)] == [first]
    (activity,) = living(sandbox, "activities")
    assert (activity["lead_id"], activity["due_date"]) == (first, "2026-12-08")
