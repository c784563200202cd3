"""Pipedrive's API: each call has limits, and the form of each answer is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from app.crm.objects import ObjectName
from app.crm.port import Access, ApiFacts
from app.domain.errors import Gone, InvalidRecord, RateLimited, RetryLater, Unreadable
from app.domain.rate_limits import RateLimit
from app.outbound.reply import (
    Json,
    a_list,
    a_text,
    an_id,
    an_object,
    objects,
    part,
    rows,
    some_object,
    some_text,
)
from crm_adapters.http import MOST_PAGES, ApiSession, shorten, with_token
from crm_adapters.pipedrive.errors import refusal
from crm_adapters.pipedrive.reasons import refusal_in
from crm_adapters.rate_headers import limits_in

V2, V1 = "/api/v2", "/v1"
"""The only place for the versions. v1 remains for users, deal participants and leads, which v2
lacks. v1 is out of support and may vanish: where possible, the service then works without it."""
PATHS = {
    ObjectName.COMPANY: f"{V2}/organizations",
    ObjectName.CONTACT: f"{V2}/persons",
    ObjectName.DEAL: f"{V2}/deals",
    ObjectName.MEETING: f"{V2}/activities",
}
LEADS = f"{V1}/leads"
"""https://developers.pipedrive.com/docs/api/v1/Leads: v2 only searches them."""
LEAD_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The form of a lead's id, which differs from a deal's number."""
SOURCE_LEAD = "source_lead_id"
"""The field of a deal with the id of the lead that it was converted from; a call has to request it.
https://developers.pipedrive.com/docs/api/v1/Deals#getDeals"""
RECORDS = frozenset({*PATHS.values(), LEADS})
FIELD_PATHS = {
    ObjectName.COMPANY: f"{V2}/organizationFields",
    ObjectName.CONTACT: f"{V2}/personFields",
    ObjectName.DEAL: f"{V2}/dealFields",
    ObjectName.MEETING: f"{V2}/activityFields",
}
CALLS = RateLimit("2 seconds", 80, 2.0)
"""For the smallest plan; the headers report larger limits.
https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting"""
SEARCHES = RateLimit("searches", 10, 2.0, told=False)
FACTS = ApiFacts(
    # https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting
    limits_in(
        ("x-ratelimit-remaining", "x-ratelimit-limit"),
        ("x-daily-ratelimit-token-remaining", ""),
    ),
    reset_header="x-ratelimit-reset",
)
LEADS_PAGE = 100
SEARCH_PAGE = 100
"""Records that one search returns at most."""
_ONE = re.compile(
    rf"/(organizations|persons|deals|activities)/\d+(?:/|$)|/leads/{LEAD_ID.pattern}$"
)
"""A path to a single record."""
AT_ONCE = 8
"""Lookups that run at the same time, and as many writes: without batches, only parallel calls use
all that the rate limit allows."""


def is_lead(record_id: str) -> bool:
    """Whether an id belongs to a lead of the inbox."""
    return bool(LEAD_ID.fullmatch(record_id))


def _path(name: ObjectName, record_id: str) -> str:
    lead = name is ObjectName.DEAL and is_lead(record_id)
    return f"{LEADS if lead else PATHS[name]}/{record_id}"


class PipedriveClient:
    """One company account: each method is one endpoint."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = ApiSession(access, 2 * AT_ONCE)

    def me(self) -> Json:
        """Return the connected user."""
        return an_object(part(self.call("GET", f"{V1}/users/me"), "data"))

    def users(self) -> list[Json]:
        """Return every user of the company."""
        # The token's owner is one of them: an answer without a list is an error.
        return rows(self.call("GET", f"{V1}/users"), "data")

    def search(self, name: ObjectName, query: Json, leads: bool = False) -> list[Json]:
        """Search the index: it lags by seconds, and shows deleted records without marking them.

        `leads`: search leads of the inbox instead of deals.
        """
        path = f"{V2}/leads" if leads else PATHS[name]
        answer = self.call("GET", f"{path}/search", params={**query, "limit": SEARCH_PAGE})
        found = [an_object(part(entry, "item")) for entry in rows(part(answer, "data"), "items")]
        for item in found:
            an_id(item)
        return found

    def get(self, name: ObjectName, record_id: str, query: Json | None = None) -> Json | None:
        """Return one record, or None if it was deleted (or, for a lead, archived)."""
        try:
            answer = self.call("GET", _path(name, record_id), params=query)
            found = an_object(part(answer, "data"))
        except Gone:
            return None
        an_id(found)
        if is_lead(record_id) and found.get("is_archived"):
            return None
        return None if found.get("is_deleted") or found.get("status") == "deleted" else found

    def many(self, name: ObjectName, query: Json) -> Iterator[Json]:
        """Give the records of a list that are not deleted."""
        for item in self.pages(PATHS[name], query):
            an_id(item)
            if not item.get("is_deleted"):
                yield item

    def leads(self, query: Json) -> Iterator[Json]:
        """Give the leads of a person or an organization that are not archived; v1 has numbered pages.

        https://pipedrive.readme.io/docs/core-api-concepts-pagination
        """
        start = 0
        for _ in range(MOST_PAGES):
            params = {**query, "start": start, "limit": LEADS_PAGE}
            answer = an_object(self.call("GET", LEADS, params=params))
            for item in [] if answer.get("data", ...) is None else objects(answer.get("data")):
                an_id(item)
                if not (item.get("is_archived") or item.get("is_deleted")):
                    yield item
            more = some_object(some_object(answer, "additional_data"), "pagination")
            following = more.get("next_start")
            if not more.get("more_items_in_collection"):
                return
            if not isinstance(following, int) or following <= start:
                break
            start = following
        raise RetryLater("Pipedrive's list has no end.")

    def one_of(self, name: ObjectName) -> None:
        """Read one record of an object."""
        rows(self.call("GET", PATHS[name], params={"limit": 1}), "data")

    def create(self, name: ObjectName, body: Json) -> str:
        """Create a record and return its id."""
        return an_id(part(self.call("POST", PATHS[name], json=body), "data"))

    def create_lead(self, body: Json) -> str:
        """Create a lead and return its id. Raises Unreadable for an id that no lead has."""
        made = an_id(part(self.call("POST", LEADS, json=body), "data"))
        if not is_lead(made):
            raise Unreadable("The answer names no lead.")
        return made

    def update(self, name: ObjectName, record_id: str, body: Json) -> None:
        """Change a record. Raises Gone."""
        an_id(part(self.call("PATCH", _path(name, record_id), json=body), "data"))

    def erase(self, name: ObjectName, record_id: str) -> None:
        """Delete a record. Raises Gone."""
        an_id(part(self.call("DELETE", _path(name, record_id)), "data"))

    def participants(self, deal_id: str) -> dict[str, str]:
        """Return person id -> id of the row that makes this person a participant of a deal."""
        found = self._listed(f"{V1}/deals/{deal_id}/participants")
        return {an_id(part(row, "person_id"), "value"): an_id(row) for row in found}

    def add_participant(self, deal_id: str, person_id: str) -> None:
        """Make a person a participant of a deal."""
        path = f"{V1}/deals/{deal_id}/participants"
        an_object(part(self.call("POST", path, json={"person_id": int(person_id)}), "data"))

    def drop_participant(self, deal_id: str, row_id: str) -> None:
        """Remove a participant from a deal."""
        path = f"{V1}/deals/{deal_id}/participants/{row_id}"
        an_object(part(self.call("DELETE", path), "data"))

    def make_field(self, name: ObjectName, body: Json) -> None:
        """Create a custom field."""
        an_object(part(self.call("POST", FIELD_PATHS[name], json=body), "data"))

    def _listed(self, path: str) -> list[Json]:
        """Return a list of v1, where null means empty. Raises Unreadable for an answer without one."""
        answer = an_object(self.call("GET", path))
        return [] if answer.get("data", ...) is None else objects(answer.get("data"))

    def pages(self, path: str, query: Json | None = None) -> Iterator[Json]:
        """Give every entry of a list with cursors. Raises RetryLater if the list does not end."""
        params: Json = {**(query or {}), "limit": 500}
        for _ in range(MOST_PAGES):
            answer = an_object(self.call("GET", path, params=params))
            yield from objects(a_list(answer.get("data")))
            more = some_object(answer, "additional_data")
            if not more.get("next_cursor"):
                return
            cursor = a_text(more, "next_cursor")
            if params.get("cursor") == cursor:
                break
            params["cursor"] = cursor
        raise RetryLater("Pipedrive's list has no end.")

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Make a call and return its JSON."""
        allowance = SEARCHES if path.endswith("/search") else CALLS

        def once(token: str) -> Any:
            headers = {**self.access.authorization(token), "Accept": "application/json"}
            try:
                reply = self._session.request(method, path, headers, allowance, **kwargs)
            except RateLimited as error:
                raise RateLimited(error.message, error.after or 2.0) from None
            if reply.status >= 400:
                refused = refusal(reply, one=bool(_ONE.search(path)))
                if isinstance(refused, Gone) and path.removesuffix("/search") in RECORDS:
                    # A list of records always exists, unless something in between answers 404.
                    refused = RetryLater(refused.message) if method == "GET" else refused
                if not isinstance(refused, RetryLater):
                    self.access.meter.count(answered=True)
                raise refused
            document = reply.json()
            self.access.meter.count(answered=True)
            if method != "GET" and isinstance(document, dict) and document.get("success") is False:
                words = shorten(some_text(document, "error") or reply.text)
                raise InvalidRecord(words).because(refusal_in(document, reply.text))
            return document

        return with_token(self.access, once, allowance)
