"""Who is linked to whom in the end, worked out for all adapters from what a change says."""

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
    """The links of a record; what is made is linked to all of it, unless something else is said."""
    more.setdefault("links_to_add", after)
    return plan_links(Change(Ref(kind, "it"), record_id, {}, {}, links_after=after, **more), IDS)


def test_what_is_made_has_the_first_of_each() -> None:
    """The first person and the first company come into the places for one."""
    links = plan(DEAL, None, OMAR, JANE, GLOBEX)
    assert (links.place(CONTACT), links.place(COMPANY)) == ("2", "11")
    assert links.of(CONTACT).after == links.of(CONTACT).add == ("2", "1")
    assert links.holder(CONTACT) == "2"
    assert not links.must_read
    assert plan(DEAL, None, OMAR).place(COMPANY) is KEEP


def test_in_a_record_that_was_found_what_stands_stays() -> None:
    """A colleague chose it; an empty place is filled."""
    links = plan(DEAL, "7", JANE, GLOBEX, found_in_crm=True)
    assert links.place(CONTACT, "99") is KEEP
    assert links.place(CONTACT, "") == "1"
    assert links.holder(CONTACT, 99) == "99"
    assert links.must_read


@pytest.mark.parametrize(
    ("stands", "place"), [(None, "12"), ("11", "12"), (11, "12"), ("12", KEEP), ("99", KEEP)]
)
def test_a_company_that_a_colleague_chose_stays(stands: str | int | None, place: Place) -> None:
    """Of a deal of ours only that company is replaced which this service put there."""
    more: dict[str, Any] = {"links_to_add": (ACME,), "links_to_remove": (GLOBEX,)}
    links = plan(DEAL, "7", JANE, ACME, primary_changed=True, **more)
    assert links.place(COMPANY, stands) == place


def test_a_person_gives_way_to_another_main_one_alone() -> None:
    """Who joins a deal beside others does not become its person."""
    assert plan(DEAL, "7", JANE, OMAR, links_to_add=(OMAR,)).place(CONTACT) is KEEP
    moved = plan(DEAL, "7", OMAR, links_to_add=(), links_to_remove=(JANE,), primary_changed=True)
    assert moved.place(CONTACT, "99") == "2"
    nobody = plan(DEAL, "7", links_to_remove=(JANE,), primary_changed=True)
    assert nobody.place(CONTACT) is None
    assert plan(DEAL, "7", JANE, links_to_add=()).place(CONTACT) is KEEP


def test_nobody_knows_who_is_the_person_of_what_is_only_added_to() -> None:
    """Whoever is added stands beside the deal's own person, whoever that is."""
    assert plan(DEAL, "7", JANE, OMAR, links_to_add=(OMAR,)).holder(CONTACT) == ""
    left = plan(DEAL, "7", JANE, links_to_add=(), links_to_remove=(OMAR,))
    assert left.must_read
    assert left.holder(CONTACT) == "1"
    converted = plan(DEAL, "7", JANE, OMAR, converted=True)
    assert converted.holder(CONTACT, "99") == "99"


def test_a_meeting_hangs_on_what_the_booking_says() -> None:
    """It is emptied of what this service hung it on, and of nothing that a colleague did."""
    links = plan(MEETING, "7", JANE, SALE, links_to_add=(JANE,))
    assert (links.place(CONTACT, "99"), links.place(DEAL, "98")) == ("1", "21")
    assert links.place(COMPANY) is KEEP
    gone = plan(MEETING, "7", JANE, links_to_add=(), links_to_remove=(SALE,))
    assert gone.place(DEAL, "21") is None


def test_a_person_joins_a_company_where_none_stands() -> None:
    """A company that is linked already and stands there no more was taken away by a colleague."""
    new = plan(CONTACT, "1", GLOBEX, ACME, links_to_add=(ACME,))
    assert new.place(COMPANY) == "12"
    assert new.place(COMPANY, "99") is KEEP
    assert plan(CONTACT, "1", GLOBEX, links_to_add=()).place(COMPANY) is KEEP


def test_one_record_under_two_keys_is_linked_once_and_stays() -> None:
    """One person has two addresses; a contact that was a lead goes by either key."""
    same = {**IDS, OMAR: "1", LEAD: "1"}
    change = Change(Ref(DEAL, "it"), "7", {}, {}, links_after=(JANE, OMAR), links_to_remove=(LEAD,))
    links = plan_links(change, same)
    assert links.of(CONTACT).after == ("1",)
    assert links.remove == ()


def test_two_kinds_may_count_alike() -> None:
    """A person and a company of one number are two records: who left is taken away."""
    change = Change(
        Ref(DEAL, "it"), "7", {}, {}, links_after=(GLOBEX,), links_to_remove=(JANE, OMAR)
    )
    links = plan_links(change, {**IDS, GLOBEX: "1"})
    assert links.of(CONTACT).remove == ("1", "2")
    assert links.of(COMPANY).after == ("1",)


def test_the_main_person_may_be_a_lead() -> None:
    """Contact or lead, whoever comes first."""
    main = plan(MEETING, None, LEAD, JANE).main_person
    assert main is not None
    assert main.ref == LEAD
    assert plan(MEETING, None, SALE).main_person is None


def test_what_is_not_there_is_linked_to_nothing() -> None:
    """A record that could not be made has no id."""
    change = Change(Ref(DEAL, "it"), None, {}, {}, links_after=(JANE, OMAR), links_to_add=(JANE,))
    assert plan_links(change, {OMAR: "2"}).place(CONTACT) == "2"


def test_no_adapter_decides_again() -> None:
    """Whoever speaks a CRM's API asks the link plan, and not what that is made of."""
    for path in sorted(ADAPTERS.glob("*/*.py")):
        found = re.search(r"change\.(links_to_add|relinked|primary_changed)\b", path.read_text())
        assert found is None, f"{path}: {found}"
