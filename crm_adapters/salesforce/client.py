"""Salesforce by simple-salesforce: each call has limits, and the form of each answer is checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

import requests
from simple_salesforce.api import Salesforce

from app.crm.objects import ObjectName
from app.crm.port import Access, ApiFacts, LimitsRead
from app.domain.errors import AccountRefused, CrmError, Gone, RetryLater, Unreadable
from app.domain.rate_limits import LimitHeaders, RateLimit
from app.outbound.reply import Json, Reply, a_text, an_object, header_number, lowered, part, rows
from app.outbound.wire import bound
from crm_adapters.base import BOOKING_FIELD
from crm_adapters.http import MOST_PAGES, exchange, refusal_of, with_token
from crm_adapters.salesforce.errors import cannot_be_asked, error_of

API_VERSION = "68.0"
"""The only place for the version (Autumn 2026)."""
DATA = f"/services/data/v{API_VERSION}"
KEY = f"{BOOKING_FIELD}__c"
SOBJECTS = {
    ObjectName.COMPANY: "Account",
    ObjectName.CONTACT: "Contact",
    ObjectName.LEAD: "Lead",
    ObjectName.DEAL: "Opportunity",
    ObjectName.CASE: "Case",
    ObjectName.MEETING: "Event",
}
CALLS = RateLimit("a second", 25, 1.0, told=False)
"""Salesforce has a budget for 24 hours, reported in a header; the limit per second is our own."""


def read_usage(headers: Mapping[str, str]) -> LimitsRead:
    """Read the day's budget from `Sforce-Limit-Info: api-usage=18/15000`.

    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_api_usage.htm
    """
    used, _, most = headers.get("sforce-limit-info", "").partition("api-usage=")[2].partition("/")
    spent, allowed = header_number(used), header_number(most.partition(" ")[0].rstrip(";,"))
    if spent is None or allowed is None:
        return None, None
    return None, LimitHeaders(max(0, allowed - spent), allowed)


FACTS = ApiFacts(read_usage)


def rule_headers(assign: bool) -> dict[str, str]:
    """Return the headers that tell the org's own rules how to treat a write.

    They must be on the request that writes. In a composite call that is each subrequest, which
    inherits only Accept, Authorization and Content-Type; a graph's subrequests take no headers:
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite_subrequest.htm
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_composite_subrequest.htm
    """
    return {
        # Two people may share a name: a duplicate alert must not stop the second one.
        "Sforce-Duplicate-Rule-Header": "allowSave=true",
        # Without this header it is TRUE: an assignment rule would give leads and cases to other
        # owners.
        # https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_autoassign.htm
        "Sforce-Auto-Assign": str(assign).upper(),
    }


QUERIES = 5
"""Queries that one composite call accepts."""


class SalesforceClient:
    """One org: each method is one endpoint."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = _Session(access)

    def query(self, soql: str) -> list[Json]:
        """Return every row of a query. Raises RetryLater if the list does not end."""
        answer = self.call(lambda sf: sf.query(soql))
        found = rows(answer, "records")
        for _ in range(MOST_PAGES):
            if an_object(answer).get("done") is not False:
                return found
            following = a_text(answer, "nextRecordsUrl")
            if not following.startswith("/services/data/"):
                break
            answer = self.call(partial(_next_page, following))
            found += rows(answer, "records")
        raise RetryLater("Salesforce's list has no end.")

    def queries(
        self,
        soql: Mapping[str, str],
        resource: str = "query",
        optional: Collection[str] = (),
    ) -> dict[str, list[Json]]:
        """Return the rows of several queries, five to a call: composite accepts no more.

        With the resource `queryAll`, deleted and merged records are shown too. `optional` queries
        find more records for another query, or links; if the org cannot parse one or does not show
        its object, it finds nothing.
        """
        found: dict[str, list[Json]] = {}
        names = list(soql)
        for start in range(0, len(names), QUERIES):
            requests_ = [
                {
                    "method": "GET",
                    "referenceId": name,
                    "url": f"{DATA}/{resource}?{urlencode({'q': soql[name]})}",
                }
                for name in names[start : start + QUERIES]
            ]
            answer = self.post("composite", {"allOrNone": False, "compositeRequest": requests_})
            asked = set(names[start : start + QUERIES])
            for piece in rows(answer, "compositeResponse"):
                status = status_of(piece)
                name = a_text(piece, "referenceId")
                if status == 200:
                    found[name] = rows(part(piece, "body"), "records")
                elif name in optional and cannot_be_asked(piece.get("body")):
                    found[name] = []
                else:
                    # A read that failed does not mean 'not found': that would make duplicates.
                    raise error_of(status, piece.get("body"))
            if not asked <= set(found):
                raise Unreadable("Salesforce's answer leaves a query out.")
        return found

    def describe(self, sobject: str) -> list[Json]:
        """Return the fields of an object. Raises Gone or AccountRefused if the org does not show it."""
        found = self.call(lambda sf: sf.restful(f"sobjects/{sobject}/describe"), lost=Gone)
        return rows(found, "fields")

    def post(
        self, path: str, body: Json, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> Any:
        """POST JSON under the version's root. `headers` do not apply to parts of a composite call."""
        sent = dict(headers or {})
        return self.call(lambda sf: sf.restful(path, method=method, json=body, headers=sent))

    def call(
        self,
        do: Callable[[Salesforce], Any],
        lost: Callable[[str], CrmError] = AccountRefused,
    ) -> Any:
        """Make a call with the client, a valid token and our errors.

        `lost`: the error to raise if the called path does not exist.
        """

        def once(token: str) -> Any:
            client = Salesforce(
                instance_url=self.access.api_base,
                session_id=token,
                version=API_VERSION,
                session=self._session,
            )
            try:
                return do(client)
            except Gone as error:
                raise lost(error.message) from None

        return with_token(self.access, once)


def _next_page(path: str, client: Salesforce) -> Any:
    return client.query_more(path, True)


def status_of(piece: Json) -> int:
    """Return the status of one part of a composite answer. Raises Unreadable."""
    status = piece.get("httpStatusCode")
    if isinstance(status, bool) or not isinstance(status, int):
        raise Unreadable("A part of Salesforce's answer has no status.")
    return status


class _Session(requests.Session):
    """Limits and counts calls, and uses plain HTTP if the API base does.

    simple-salesforce always writes https://, and does not read refusals in the form needed here.
    """

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access
        bound(self, access.gate)

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        access = self._access
        access.enter(CALLS)
        kwargs.setdefault("timeout", access.timeout)
        kwargs["allow_redirects"] = False
        if access.api_base.startswith("http://"):
            url = str(url).replace("https://", "http://", 1)
        answers: list[requests.Response] = []

        def send() -> Reply:
            answers.append(super(_Session, self).request(method, url, *args, **kwargs))
            return Reply(
                answers[0].status_code, lowered(answers[0].headers), answers[0].content or b""
            )

        reply = exchange(access, CALLS, send)
        if reply.status >= 400:
            refused = error_of(reply.status, refusal_of(reply))
            if not isinstance(refused, RetryLater):
                access.meter.count(answered=True)
            raise refused
        if reply.body.strip():
            document = reply.json()
            answers[0].json = lambda **_: document  # type: ignore[method-assign]
        access.meter.count(answered=True)
        return answers[0]
