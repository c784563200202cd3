"""HubSpot's own client on the date-based API: each call has limits, each answer is plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import hubspot
import urllib3

from app.crm.objects import ObjectName
from app.crm.port import Access, ApiFacts
from app.domain.errors import Gone, InvalidRecord, RateLimited, RetryLater, Unreadable
from app.domain.rate_limits import RateLimit
from app.outbound.reply import (
    Json,
    Reply,
    a_text,
    an_id,
    an_object,
    part,
    reply_of,
    rows,
    some_object,
    some_objects,
    some_text,
)
from app.outbound.wire import watch
from crm_adapters.http import MOST_PAGES, exchange, shorten, unreachable, with_token
from crm_adapters.hubspot.errors import errors_of, refusal
from crm_adapters.hubspot.reasons import refusal_in
from crm_adapters.rate_headers import limits_in

API_VERSION = "2026-09"
"""The only place for the version;
https://developers.hubspot.com/docs/developer-tooling/platform/versioning"""
DATED_PATHS = (
    ("/crm/v3/objects/", f"/crm/objects/{API_VERSION}/"),
    ("/crm/v4/associations/", f"/crm/associations/{API_VERSION}/"),
    ("/crm/v3/properties/", f"/crm/properties/{API_VERSION}/"),
    ("/crm/v3/pipelines/", f"/crm/pipelines/{API_VERSION}/"),
    ("/crm/v3/owners/", f"/crm/owners/{API_VERSION}"),
)
"""hubspot-api-client 12 has only numbered paths, which end in 2027."""
PLURAL = {
    ObjectName.COMPANY: "companies",
    ObjectName.CONTACT: "contacts",
    ObjectName.DEAL: "deals",
    ObjectName.MEETING: "meetings",
}
LINK_TYPES = {
    # https://developers.hubspot.com/docs/api-reference/crm-associations-v4/guide#association-type-id-values
    (ObjectName.CONTACT, ObjectName.COMPANY): 279,
    (ObjectName.DEAL, ObjectName.CONTACT): 3,
    (ObjectName.DEAL, ObjectName.COMPANY): 341,
    (ObjectName.MEETING, ObjectName.CONTACT): 200,
    (ObjectName.MEETING, ObjectName.COMPANY): 188,
    (ObjectName.MEETING, ObjectName.DEAL): 212,
}
BATCH = 100
"""Most records in one batch call."""
SEARCH_PAGE = 200
CALLS = RateLimit("10 seconds", 110, 10.0)
"""https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines (OAuth apps)"""
SEARCHES = RateLimit("searches", 5, 1.0, told=False)
"""https://developers.hubspot.com/docs/api-reference/search/guide#limits; it has no limit headers."""
FACTS = ApiFacts(
    # https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
    limits_in(
        ("x-hubspot-ratelimit-remaining", "x-hubspot-ratelimit-max"),
        ("x-hubspot-ratelimit-daily-remaining", "x-hubspot-ratelimit-daily"),
    ),
    # https://developers.hubspot.com/docs/api-reference/error-handling
    busy={
        423: ("The account is locked by a long operation", 2.0),
        477: ("The account is being moved to another data centre", 3600.0),
    },
)
MANY = ("/search", "/batch/read", "/crm/v3/objects/{objectType}")
"""Ends of the client's paths that read several records of an object, or links."""
Pair = tuple[ObjectName, ObjectName]


class HubSpotClient:
    """One portal: each method is one endpoint. The form of every answer is checked."""

    def __init__(self, access: Access) -> None:
        self.access = access
        # No retries here: the drainer decides what to retry, and when.
        self._pool = urllib3.PoolManager(maxsize=4, retries=False)
        watch(self._pool, access.gate)
        client = hubspot.Client.create(api_factory=self._api)
        self._batch = client.crm.objects.batch_api
        self._records = client.crm.objects.basic_api
        self._search = client.crm.objects.search_api
        self._links = client.crm.associations.v4.batch_api
        self._owners = client.crm.owners.owners_api
        self._pipelines = client.crm.pipelines.pipelines_api
        self._properties = client.crm.properties.core_api

    def _api(self, package: Any, api_name: str, _config: object) -> Any:
        """Build one of the client's APIs on the shared pool, with dated paths and our errors."""
        configuration = package.Configuration()
        configuration.host = self.access.api_base
        client = package.ApiClient(configuration=configuration)
        client.rest_client.pool_manager = _Pool(self._pool)
        original = client.call_api

        def call_api(path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            kwargs["_request_timeout"] = self.access.timeout
            # The answer stays as it was read: the client's models refuse keys that they do not know
            # yet.
            kwargs["_preload_content"] = False
            allowance = SEARCHES if path.endswith("/search") else CALLS

            def once(token: str) -> Any:
                configuration.access_token = token
                try:
                    return self._once(
                        allowance, lambda: original(dated(path), method, *args, **kwargs).reply
                    )
                except Gone as error:
                    # A path that reads several records always exists, unless something in between
                    # answers 404.
                    raise RetryLater(error.message) if path.endswith(MANY) else error from None

            return with_token(self.access, once, allowance)

        client.call_api = call_api
        return getattr(package, api_name)(api_client=client)

    def _once(self, allowance: RateLimit, send: Any) -> Any:
        try:
            reply: Reply = exchange(self.access, allowance, send)
        except RateLimited as error:
            raise RateLimited(error.message, error.after or 1.0) from None
        if reply.status >= 400:
            refused = refusal(reply)
            if not isinstance(refused, RetryLater):
                self.access.meter.count(answered=True)
            raise refused
        document = reply.json() if reply.body.strip() else None
        self.access.meter.count(answered=True)
        return document

    def details(self) -> Json:
        """Return the portal: its number `portalId`, its `timeZone` and more."""
        path = f"/account-info/{API_VERSION}/details"
        return an_object(self._batch.api_client.call_api(path, "GET", auth_settings=["oauth2"]))

    def owners(self) -> list[Json]:
        """Return every owner."""
        return list(self._paged(lambda after: self._owners.get_page(limit=500, **after)))

    def pipelines(self) -> list[Json]:
        """Return every pipeline of deals."""
        return rows(self._pipelines.get_all("deals"), "results")

    def properties(self, name: ObjectName) -> list[Json]:
        """Return the properties of an object."""
        return rows(self._properties.get_all(PLURAL[name]), "results")

    def make_property(self, name: ObjectName, body: Json) -> None:
        """Create a property."""
        a_text(self._properties.create(PLURAL[name], body), "name")

    def page(self, name: ObjectName) -> None:
        """Read one record of an object."""
        rows(self._records.get_page(PLURAL[name], limit=1), "results")

    def create(self, name: ObjectName, inputs: list[Json]) -> Json:
        """POST batch/create. https://developers.hubspot.com/docs/api-reference/crm-objects-v3/guide"""
        return _batch(self._batch.create(PLURAL[name], {"inputs": inputs}))

    def update(self, name: ObjectName, inputs: list[Json]) -> Json:
        """POST batch/update, by record id."""
        return _batch(self._batch.update(PLURAL[name], {"inputs": inputs}))

    def archive(self, name: ObjectName, ids: list[str]) -> None:
        """POST batch/archive: into the recycle bin; a record that is gone already is no error."""
        _nothing(self._batch.archive(PLURAL[name], {"inputs": [{"id": item} for item in ids]}))

    def get(self, name: ObjectName, record_id: str, properties: list[str]) -> Json | None:
        """GET one record; a merged one answers under its new id. None if the record is gone."""
        try:
            found = self._records.get_by_id(PLURAL[name], record_id, properties=properties)
        except Gone:
            return None
        an_id(found)
        return dict(found)

    def read(
        self, name: ObjectName, ids: Sequence[str], properties: list[str], key: str = ""
    ) -> list[Json]:
        """POST batch/read by record id, or by a unique property."""
        body: Json = {
            "inputs": [{"id": item} for item in ids],
            "properties": properties,
            "propertiesWithHistory": [],
        }
        if key:
            body["idProperty"] = key
        return _records(self._batch.read(PLURAL[name], body))

    def search(self, name: ObjectName, groups: list[Any], properties: list[str]) -> list[Json]:
        """POST search, all pages. The index lags writes by seconds."""
        body: Json = {
            "filterGroups": [{"filters": [item]} for item in groups],
            "properties": properties,
            "limit": SEARCH_PAGE,
            "sorts": [],
        }

        def page(after: dict[str, str]) -> Any:
            return self._search.do_search(PLURAL[name], {**body, "after": "0", **after})

        found = list(self._paged(page))
        for record in found:
            an_id(record)
        return found

    def search_few(
        self, name: ObjectName, group: Json, properties: list[str], most: int
    ) -> list[Json] | None:
        """Return what one rule finds; None if that is more than `most`, after a single call."""
        body: Json = {"filterGroups": [{"filters": [group]}], "properties": [], "limit": 1}
        total = an_object(self._search.do_search(PLURAL[name], {**body, "sorts": []})).get("total")
        if not isinstance(total, int) or total > most:
            return None
        return self.search(name, [group], properties) if total else []

    def linked(
        self, name: ObjectName, ids: Sequence[str], target: ObjectName
    ) -> dict[str, list[str]]:
        """Return the ids of the records that are associated with each record."""
        found: dict[str, list[str]] = {}
        for chunk in chunks(ids):
            body = {"inputs": [{"id": item} for item in chunk]}
            answer = self._links.get_page(PLURAL[name], PLURAL[target], body)
            for result in rows(answer, "results"):
                # The primary company has an association type of its own, and comes first.
                ends = sorted(rows(result, "to"), key=lambda to: not _is_primary(to))
                there = [an_id(to, "toObjectId") for to in ends]
                found.setdefault(an_id(part(result, "from")), []).extend(there)
        return found

    def link(self, pair: Pair, ids: list[tuple[str, str]]) -> None:
        """POST associations batch/create."""
        kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": LINK_TYPES[pair]}
        for chunk in chunks(ids):
            inputs = [{"from": {"id": a}, "to": {"id": b}, "types": [kind]} for a, b in chunk]
            answer = self._links.create(PLURAL[pair[0]], PLURAL[pair[1]], {"inputs": inputs})
            for error in errors_of(_batch(answer)):
                words = some_text(error, "message")
                raise InvalidRecord(shorten(words)).because(refusal_in(words, error))

    def unlink(self, pair: Pair, ids: list[tuple[str, str]]) -> None:
        """POST associations batch/archive."""
        for chunk in chunks(ids):
            inputs = [{"from": {"id": a}, "to": [{"id": b}]} for a, b in chunk]
            _nothing(self._links.archive(PLURAL[pair[0]], PLURAL[pair[1]], {"inputs": inputs}))

    def _paged(self, read: Any) -> Iterable[Json]:
        """Give every entry of a list with pages. Raises RetryLater if the list does not end."""
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = read(after)
            yield from rows(page, "results")
            following = some_object(some_object(page, "paging"), "next")
            if not following:
                return
            mark = a_text(following, "after")
            if after.get("after") == mark:
                break
            after = {"after": mark}
        raise RetryLater("HubSpot's list has no end.")


def _is_primary(end: Json) -> bool:
    kinds = {
        (some_text(k, "category"), k.get("typeId")) for k in some_objects(end, "associationTypes")
    }
    return bool(kinds & {("HUBSPOT_DEFINED", 1), ("HUBSPOT_DEFINED", 5)})


class _Pool:
    """Reads an answer completely, within limits, before the client sees it; hides its status."""

    def __init__(self, pool: urllib3.PoolManager) -> None:
        self._pool = pool

    def request(self, method: str, url: str, **kwargs: Any) -> _Carried:
        kwargs |= {"preload_content": False, "redirect": False}
        kwargs["headers"] = {**kwargs["headers"], "Accept-Encoding": "gzip, deflate"}
        try:
            raw = self._pool.request(method, url, **kwargs)
        except urllib3.exceptions.SSLError as error:
            raise unreachable(error) from None
        return _Carried(reply_of(raw))


class _Carried:
    """An answer on its way through the client, which would read a refusal's body without limit."""

    status = 200

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


def _batch(answer: Any) -> Json:
    """Return the answer of a batch call, with its results checked. Raises Unreadable."""
    for record in rows(answer, "results"):
        if "id" in record:
            an_id(record)
    return dict(answer)


def _nothing(answer: Any) -> None:
    """Check that the answer of an archive is empty (204). Raises Unreadable if it is not."""
    if answer is not None:
        raise Unreadable("HubSpot's answer has a body where none is expected.")


def _records(answer: Any) -> list[Json]:
    found = rows(answer, "results")
    for record in found:
        an_id(record)
    return found


def values_of(record: Json) -> dict[str, Any]:
    """Return the properties of a record: texts, or None."""
    return {
        name: value if isinstance(value, str) else str(value)
        for name, value in some_object(record, "properties").items()
        if value is not None and not isinstance(value, (dict, list))
    }


def chunks(items: Sequence[Any]) -> Iterable[list[Any]]:
    """Split a list into parts of at most BATCH."""
    return (list(items[i : i + BATCH]) for i in range(0, len(items), BATCH))


def dated(path: str) -> str:
    """Replace a numbered path of the client by the path of API_VERSION."""
    for old, new in DATED_PATHS:
        if path.startswith(old):
            return new + path[len(old) :]
    return path
