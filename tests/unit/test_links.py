"""The link plan decides for all adapters which links a record has in the end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.crm.changes import Change
from app.crm.links import KEEP, LinkPlan, Place, plan_links
from app.crm.objects import ObjectName, Ref

DEAL, MEETING, CONTACT, COMPANY = (
    ObjectName.DEAL,
    ObjectName.MEETING,
    ObjectName.CONTACT,
    ObjectName.COMPANY,
)
JANE, OMAR, LEAD = Ref(CONTACT, "jane"), Ref(CONTACT, "omar"), Ref(ObjectName.LEAD, "kim")
GLOBEX, ACME, SALE = Ref(COMPANY, "globex"), Ref(COMPANY, "acme"), Ref(DEAL, "sale")
IDS = {JANE: "1", OMAR: "2", LEAD: "3", GLOBEX: "11", ACME: "12", SALE: "21"}
ADAPTERS = Path(__file__).parent.parent.parent / "crm_adapters"


def plan(kind: ObjectName, record_id: str | None, *after: Ref, **more: Any) -> LinkPlan:
    """Return the link plan of a record; without other arguments, all links are new."""
    more.setdefault("links_to_add", after)
    return plan_links(Change(Ref(kind, "it"), record_id, {}, {}, links_after=after, **more), IDS)


def test_what_is_made_has_the_first_of_each() -> None:
    """A new record gets the first person and the first company in its single places."""
    links = plan(DEAL, None, OMAR, JANE, GLOBEX)
    assert (links.place(CONTACT), links.place(COMPANY)) == ("2", "11")
    assert links.of(CONTACT).after == links.of(CONTACT).add == ("2", "1")
    assert links.holder(CONTACT) == "2"
    assert not links.must_read
    assert plan(DEAL, None, OMAR).place(COMPANY) is KEEP


def test_in_a_record_that_was_found_what_stands_stays() -> None:
    """A record found in the CRM keeps the links that a colleague chose; an empty place is filled."""
    links = plan(DEAL, "7", JANE, GLOBEX, found_in_crm=True)
    assert links.place(CONTACT, "99") is KEEP
    assert links.place(CONTACT, "") == "1"
    assert links.holder(CONTACT, 99) == "99"
    assert links.must_read


@pytest.mark.parametrize(
    ("stands", "place"), [(None, "12"), ("11", "12"), (11, "12"), ("12", KEEP), ("99", KEEP)]
)
def test_a_company_that_a_colleague_chose_stays(stands: str | int | None, place: Place) -> None:
    """In a deal of ours, only a company that this service had linked is replaced."""
    more: dict[str, Any] = {"links_to_add": (ACME,), "links_to_remove": (GLOBEX,)}
    links = plan(DEAL, "7", JANE, ACME, primary_changed=True, **more)
    assert links.place(COMPANY, stands) == place


def test_a_person_gives_way_to_another_main_one_alone() -> None:
    """A person who joins a deal beside others does not become its main person."""
    assert plan(DEAL, "7", JANE, OMAR, links_to_add=(OMAR,)).place(CONTACT) is KEEP
    moved = plan(DEAL, "7", OMAR, links_to_add=(), links_to_remove=(JANE,), primary_changed=True)
    assert moved.place(CONTACT, "99") == "2"
    nobody = plan(DEAL, "7", links_to_remove=(JANE,), primary_changed=True)
    assert nobody.place(CONTACT) is None
    assert plan(DEAL, "7", JANE, links_to_add=()).place(CONTACT) is KEEP


def test_nobody_knows_who_is_the_person_of_what_is_only_added_to() -> None:
    """If a deal only gains people, its main person stays unknown, and the others are added beside it."""
    assert plan(DEAL, "7", JANE, OMAR, links_to_add=(OMAR,)).holder(CONTACT) == ""
    left = plan(DEAL, "7", JANE, links_to_add=(), links_to_remove=(OMAR,))
    assert left.must_read
    assert left.holder(CONTACT) == "1"
    converted = plan(DEAL, "7", JANE, OMAR, converted=True)
    assert converted.holder(CONTACT, "99") == "99"


def test_a_meeting_hangs_on_what_the_booking_says() -> None:
    """A meeting loses links that this service made and the booking no longer has, and no others."""
    links = plan(MEETING, "7", JANE, SALE, links_to_add=(JANE,))
    assert (links.place(CONTACT, "99"), links.place(DEAL, "98")) == ("1", "21")
    assert links.place(COMPANY) is KEEP
    gone = plan(MEETING, "7", JANE, links_to_add=(), links_to_remove=(SALE,))
    assert gone.place(DEAL, "21") is None


def test_a_person_joins_a_company_where_none_stands() -> None:
    """A person gets a company only if the place is empty, and not again after a colleague removed it."""
    new = plan(CONTACT, "1", GLOBEX, ACME, links_to_add=(ACME,))
    assert new.place(COMPANY) == "12"
    assert new.place(COMPANY, "99") is KEEP
    assert plan(CONTACT, "1", GLOBEX, links_to_add=()).place(COMPANY) is KEEP


def test_one_record_under_two_keys_is_linked_once_and_stays() -> None:
    """A record with two keys is linked once and stays: two addresses of a person, or a converted lead."""
    same = {**IDS, OMAR: "1", LEAD: "1"}
    change = Change(Ref(DEAL, "it"), "7", {}, {}, links_after=(JANE, OMAR), links_to_remove=(LEAD,))
    links = plan_links(change, same)
    assert links.of(CONTACT).after == ("1",)
    assert links.remove == ()


def test_two_kinds_may_count_alike() -> None:
    """A person and a company with the same number are two records, and a person who left is removed."""
    change = Change(
        Ref(DEAL, "it"), "7", {}, {}, links_after=(GLOBEX,), links_to_remove=(JANE, OMAR)
    )
    links = plan_links(change, {**IDS, GLOBEX: "1"})
    assert links.of(CONTACT).remove == ("1", "2")
    assert links.of(COMPANY).after == ("1",)


def test_the_main_person_may_be_a_lead() -> None:
    """The main person is the first person, contact or lead."""
    main = plan(MEETING, None, LEAD, JANE).main_person
    assert main is not None
    assert main.ref == LEAD
    assert plan(MEETING, None, SALE).main_person is None


def test_what_is_not_there_is_linked_to_nothing() -> None:
    """A record that could not be created has no id and gets no link."""
    change = Change(Ref(DEAL, "it"), None, {}, {}, links_after=(JANE, OMAR), links_to_add=(JANE,))
    assert plan_links(change, {OMAR: "2"}).place(CONTACT) == "2"


def test_no_adapter_decides_again() -> None:
    """Adapters use the link plan and do not read the values that it is made of."""
    for path in sorted(ADAPTERS.glob("*/*.py")):
        found = re.search(r"change\.(links_to_add|relinked|primary_changed)\b", path.read_text())
        assert found is None, f"{path}: {found}"
