"""The rules that the adapters share for writes and for comparing found records."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from app.crm.changes import Change, Plan, WriteOutcome, WriteResult
from app.crm.links import LinkPlan
from app.crm.lookup import LookupKey, MatchKey
from app.crm.objects import ObjectName, Ref
from app.crm.port import Report
from app.domain.errors import Blocked, Conflict, Gone, InvalidRecord, RetryLater
from crm_adapters.finder import id_in
from crm_adapters.matching import Shown, matches
from crm_adapters.writing import creating, write_each

JANE, SALE, CALL = (
    Ref(ObjectName.CONTACT, "jane"),
    Ref(ObjectName.DEAL, "sale"),
    Ref(ObjectName.MEETING, "call"),
)
ORDER = (ObjectName.CONTACT, ObjectName.DEAL, ObjectName.MEETING)
PLAN = Plan(
    (
        Change(JANE, None, {}, {}),
        Change(SALE, None, {}, {}, links_after=(JANE,), links_to_add=(JANE,)),
        Change(CALL, "5", {}, {}, links_after=(JANE, SALE), links_to_add=(SALE,)),
    )
)


@pytest.fixture(name="pool")
def a_pool() -> Iterator[Executor]:
    """A pool with two threads."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_each_change_is_written_with_the_ids_that_came_before(pool: Executor) -> None:
    """A change gets the ids of the linked records that were created just before it."""
    report, seen = Report(), {}

    def write(change: Change, links: LinkPlan) -> WriteResult:
        seen[change.ref] = [end.record_id for end in links.add]
        return WriteResult(f"id of {change.ref.key}", WriteOutcome.CREATED)

    write_each(pool, PLAN, report, ORDER, write)
    assert seen == {JANE: [], SALE: ["id of jane"], CALL: ["id of sale"]}
    assert set(report.results) == {JANE, SALE, CALL}


@pytest.mark.parametrize(
    ("error", "noted", "blocks"),
    [
        (InvalidRecord("no"), InvalidRecord, False),
        (Gone("not there"), InvalidRecord, False),
        (Conflict("there already", "9"), Conflict, False),
        (Blocked("waits"), Blocked, True),
    ],
)
def test_a_refused_change_is_a_problem_of_its_own(
    pool: Executor, error: Exception, noted: type[Exception], blocks: bool
) -> None:
    """A permanent refusal concerns one change only; after a temporary one the changes after it wait."""
    report = Report()

    def write(change: Change, links: LinkPlan) -> WriteResult:
        if change.ref == JANE:
            raise error
        return WriteResult("1", WriteOutcome.CREATED)

    write_each(pool, PLAN, report, ORDER, write)
    assert type(report.problems.pop(JANE)) is noted
    assert {ref for ref in report.problems} == ({SALE, CALL} if blocks else set())
    assert set(report.results) == (set() if blocks else {SALE, CALL})


def test_an_account_that_does_not_answer_ends_it(pool: Executor) -> None:
    """An account that does not answer stops the plan: finished changes stay, and the rest is tried
    later.
    """
    report = Report()

    def write(change: Change, links: LinkPlan) -> WriteResult:
        if change.ref == SALE:
            raise RetryLater("The CRM is away.")
        return WriteResult("1", WriteOutcome.CREATED)

    with pytest.raises(RetryLater):
        write_each(pool, PLAN, report, ORDER, write)
    assert set(report.results) == {JANE}
    assert report.problems == {}


@pytest.mark.parametrize(
    ("error", "begun"),
    [(InvalidRecord("no"), False), (Conflict("there"), False), (RetryLater("away"), True)],
)
def test_a_create_is_begun_until_it_is_refused_in_words(error: Exception, begun: bool) -> None:
    """A create without an answer stays begun, because it may exist; a refused create does not."""
    report = Report()
    with pytest.raises(type(error)), creating(report, PLAN.changes[0]):
        assert report.begun == {JANE}
        raise error
    assert (JANE in report.begun) is begun


@pytest.mark.parametrize(
    ("key", "shown", "same"),
    [
        (LookupKey(MatchKey.EMAIL, "a@x.example"), Shown(emails=[" A@X.example "]), True),
        (LookupKey(MatchKey.EMAIL, "a@x.example"), Shown(emails=["ba@x.example", None]), False),
        (LookupKey(MatchKey.EMAIL, "a@x.example"), Shown(emails=["b@x.example", "a@x.example"]), True),
        (LookupKey(MatchKey.SECONDARY_EMAIL, "a@x.example"), Shown(emails=["a@x.example"]), False),
        (LookupKey(MatchKey.SECONDARY_EMAIL, "a@x.example"), Shown(emails=["", "a@x.example"]), True),
        (LookupKey(MatchKey.DOMAIN, "x.example"), Shown(domains=["x.example"]), True),
        (LookupKey(MatchKey.DOMAIN, "x.example"), Shown(domains=["sub.x.example"]), False),
        (LookupKey(MatchKey.PHONE, "+493012345678"), Shown(phones=["030 12345678"]), True),
        (LookupKey(MatchKey.PHONE, "+493012345678"), Shown(["030 12345678"], ["030 12345678"], "AT"), False),
        (LookupKey(MatchKey.FIELD, "Gold", "tier"), Shown(value="gold"), True),
        (LookupKey(MatchKey.FIELD, "None", "tier"), Shown(value=None), False),
        (LookupKey(MatchKey.FIELD, "5", "tier"), Shown(value=5), True),
    ],
)  # fmt: skip
def test_a_hit_is_compared_again(key: LookupKey, shown: Shown, same: bool) -> None:
    """Part of an address, a number of another country and an empty field are no match."""
    assert matches(key, shown) is same


@pytest.mark.parametrize(
    ("text", "record_id"),
    [
        (" 12 ", "12"),
        ("012", ""),
        ("https://app.acme.example/people/12", "12"),
        ("https://app.acme.example/people/12/?tab=3#more", "12"),
        ("https://app.acme.example/12", "12"),
        ("https://app.acme.example/people/12/edit", ""),
        ("https://app.acme.example@evil.example/people/12", ""),
        ("https://evil.example/people/12", ""),
        ("people/12", ""),
    ],
)
def test_an_address_ends_in_the_id_unless_something_else_is_said(text: str, record_id: str) -> None:
    """By default the id is the last part of the path, on the hosts that the adapter names as its own."""
    assert id_in(text, lambda host: host == "app.acme.example") == record_id


def test_ids_may_look_otherwise() -> None:
    """An adapter may define other forms for its ids and pages."""
    form, pages = "lead_[a-z0-9]+", ("/lead/{id}(?:/.*)?", "/list#lead/{id}")
    for text in ("lead_7x", "https://a.example/lead/lead_7x/edit", "https://a.example/list#lead/lead_7x"):  # fmt: skip
        assert id_in(text, "a.example".__eq__, pages, form) == "lead_7x"
    assert id_in("https://a.example/deal/lead_7x", "a.example".__eq__, pages, form) == ""
