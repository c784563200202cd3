"""Each adapter's table of refusals against the sandbox: every code ends as its sort says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.domain.errors import (
    AccountRefused,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RateLimited,
    RetryLater,
)
from app.outbound.reply import Reply
from crm_adapters.codes import Sort
from crm_adapters.http import RefusedToken
from crm_adapters.hubspot import errors as hubspot
from crm_adapters.pipedrive import errors as pipedrive
from crm_adapters.salesforce import errors as salesforce
from tests.bridge import RENEWED, Bridge, sample
from tests.contract.desk import WORDS, desk_in
from tests.contract.test_adapters import only
from tests.integration.test_outages import Clock
from workers.drain import Drainer

ERRORS: dict[Sort, type[Exception]] = {
    Sort.ACCOUNT: AccountRefused,
    Sort.RECORD: InvalidRecord,
    Sort.LISTED: InvalidRecord,
    Sort.PASSING: RetryLater,
    Sort.BUDGET: RateLimited,
    Sort.TOKEN: RefusedToken,
    Sort.GONE: Gone,
    Sort.CONFLICT: Conflict,
}


def answer(status: int, body: Any) -> Reply:
    """Return a refusal as the adapter reads it."""
    return Reply(status, {}, json.dumps(body).encode())


def said(error: Exception) -> str:
    """The sentence of an error, with the CRM's own answer."""
    refusal = error.refusal if isinstance(error, CrmError) else None
    return f"{error} {refusal.raw if refusal else ''}"


@pytest.mark.parametrize(("category", "sort"), hubspot.CATEGORIES.items())
def test_hubspot_categories(category: str, sort: Sort) -> None:
    """HubSpot's status 400 alone says nothing, so the category decides."""
    found = hubspot.refusal(answer(400, {"category": category, "message": WORDS}))
    assert isinstance(found, ERRORS[sort]), found
    assert WORDS in said(found)


@pytest.mark.parametrize(("status", "sort"), hubspot.STATUSES.items())
def test_hubspot_statuses(status: int, sort: Sort) -> None:
    """The status decides for a refusal whose category is missing or unknown."""
    for more in ({}, {"category": "BRAND_NEW"}, {"category": 7}, {"category": None}):
        found = hubspot.refusal(answer(status, {"message": WORDS, **more}))
        assert isinstance(found, ERRORS[sort]), found


@pytest.mark.parametrize("code", sorted(hubspot.LISTED))
def test_hubspot_listed(code: str) -> None:
    """A refused list value makes the adapter read the account's lists again before the booking fails."""
    body = {"category": "VALIDATION_ERROR", "message": WORDS, "errors": [{"code": code}]}
    found = hubspot.refusal(answer(400, body))
    assert isinstance(found, InvalidRecord) and found.listed
    assert not hubspot.refusal(answer(400, {**body, "errors": [{"code": "OTHER"}]})).listed  # type: ignore[attr-defined]


@pytest.mark.parametrize(("status", "sort"), pipedrive.STATUSES.items())
def test_pipedrive_statuses(status: int, sort: Sort) -> None:
    """The status decides for Pipedrive, which has no codes."""
    found = pipedrive.refusal(answer(status, {"success": False, "error": WORDS}))
    assert isinstance(found, ERRORS[sort]), found
    assert WORDS in said(found)


@pytest.mark.parametrize(("code", "sort"), salesforce.CODES.items())
def test_salesforce_codes(code: str, sort: Sort) -> None:
    """The code decides for Salesforce, whatever the status."""
    for status in (400, 403, 404):
        found = salesforce.error_of(status, [{"errorCode": code, "message": WORDS}])
        assert isinstance(found, ERRORS[sort]), (status, found)
        assert code in said(found)
    listed = sort in (Sort.LISTED, Sort.GONE)
    entry = {"errorCode": code, "message": WORDS, "fields": ["OwnerId"]}
    found = salesforce.error_of(400, [entry])
    if isinstance(found, InvalidRecord):
        assert (found.listed, set(found.fields)) == (listed, {"OwnerId"})


@pytest.mark.parametrize("status", [406, 418, 431, 444, 499])
def test_a_status_that_no_page_names_is_no_word_on_a_booking(status: int) -> None:
    """An undocumented status is no refusal of a booking: the service tries again later."""
    assert isinstance(hubspot.refusal(answer(status, {"message": WORDS})), RetryLater)
    assert isinstance(pipedrive.refusal(answer(status, {"error": WORDS})), RetryLater)
    assert isinstance(salesforce.error_of(status, {"message": WORDS}), RetryLater)


# Through the whole service

SORTS = (Sort.ACCOUNT, Sort.RECORD, Sort.PASSING, Sort.BUDGET, Sort.TOKEN)


@pytest.mark.parametrize(
    ("at", "sort"),
    [("write", sort) for sort in SORTS] + [("read", Sort.ACCOUNT), ("read", Sort.RECORD)],
)
def test_a_code_ends_as_its_sort_says(crm: Bridge, provider: str, at: str, sort: Sort) -> None:
    """A code about the account pauses it until a retry works; one about a record fails the booking."""
    clock, sandbox, desk = Clock(), only(crm), desk_in(crm)
    if sort not in desk.refusals:
        pytest.skip(f"{provider} has no refusal of that sort")
    crm.drainer = Drainer(crm.services, now=clock)
    path = desk.first_write if at == "write" else desk.first_read
    for number, (status, body) in enumerate(desk.refusals[sort]):
        who = {"email": f"p{number}@gmail.com", "firstname": "P", "lastname": f"N{number}"}
        if at == "read":
            # The adapter searches first for a person with a company.
            who["email"] = f"p@company{number}.example"
        once = {"times": 1} if sort is Sort.TOKEN else {}
        method = "POST" if at == "write" else ""
        sandbox.account.answers(path, status, body, method=method, **once)
        crm.post(sample("booking_created", id=f"b{number}", attendees=[who]))
        crm.drain()
        row, connection = crm.deliveries()[-1], crm.connection(provider)
        what = (status, body, row.state, row.error_message)
        if sort is Sort.TOKEN:
            # It was renewed, and nobody has seen anything of that; or there is nothing to renew.
            renewed = provider in RENEWED
            ends = ("synced", "active") if renewed else ("parked", "expired")
            assert (row.state, connection.status) == ends, what
            assert renewed or crm.connect(provider).status_code == 303
        elif sort is Sort.RECORD:
            assert row.state == "failed" and WORDS in f"{row.error_message} {row.error_raw}", what
            assert row.cause_key, what
            assert connection.status == "active", what
        else:
            assert row.state in ("due", "parked", "retrying") and row.worker_crashes == 0, what
            told = "error" if sort is Sort.ACCOUNT else "active"
            assert connection.status == told, what
            assert WORDS in (connection.last_error or ""), what
        sandbox.account.clears_answers()
        for _ in range(2):
            clock.forward(1000)
            crm.drain()
        row, connection = crm.deliveries()[-1], crm.connection(provider)
        failed = sort is Sort.RECORD
        assert row.state == ("failed" if failed else "synced"), (what, row.error_message)
        assert connection.status == "active", what
