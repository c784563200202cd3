"""HubSpot through its own client, on the date-based API: batches, inline links, unique booking id."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import hubspot
import phonenumbers
import urllib3

from app.domain.errors import (
    Blocked,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
)
from app.domain.people import normalise_email, normalise_phone
from app.domain.records import (
    Account,
    Change,
    CrmShape,
    Directory,
    FieldValue,
    ObjectName,
    Outcome,
    Pipeline,
    Plan,
    Ref,
    Result,
    Stage,
)
from crm_adapters.base import BOOKING_FIELD, Access, CrmField, Report
from crm_adapters.http import (
    Pacer,
    RefusedToken,
    note_limits,
    raise_for_outage,
    shorten,
    unreachable,
    with_token,
)

API_VERSION = "2026-09"
"""The one place for the version; https://developers.hubspot.com/docs/developer-tooling/platform/versioning"""
DATED_PATHS = (
    ("/crm/v3/objects/", f"/crm/objects/{API_VERSION}/"),
    ("/crm/v4/associations/", f"/crm/associations/{API_VERSION}/"),
    ("/crm/v3/properties/", f"/crm/properties/{API_VERSION}/"),
    ("/crm/v3/pipelines/", f"/crm/pipelines/{API_VERSION}/"),
    ("/crm/v3/owners/", f"/crm/owners/{API_VERSION}"),
)
"""hubspot-api-client 12 knows only numbered paths, which end in 2027."""
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
PRIMARY_COMPANY = {ObjectName.CONTACT: 1, ObjectName.DEAL: 5}
"""For new records; on existing ones the primary company is a person's choice."""
RECORD_TYPES = {"contact": "0-1", "company": "0-2", "deal": "0-3", "meeting": "0-47"}
BATCH = 100
"""Most inputs of a batch call."""


class HubSpotAdapter:
    """One HubSpot account."""

    batch_size: ClassVar[int] = 50
    shape: ClassVar[CrmShape] = CrmShape(
        owner_fields=dict.fromkeys(ObjectName, "hubspot_owner_id"),
        pipeline_field="pipeline",
        stage_field="dealstage",
        stage_by_label=False,
        text_limits={
            "meeting.hs_meeting_body": 65_535,
            "meeting.hs_meeting_title": 255,
            "meeting.hs_meeting_location": 255,
            "deal.dealname": 255,
            "contact.firstname": 255,
            "contact.lastname": 255,
        },
        html_fields=frozenset({"meeting.hs_meeting_body"}),
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        # No retries here: the drainer decides what is tried again, and when.
        self._pool = urllib3.PoolManager(maxsize=4, retries=urllib3.Retry(0, read=False))
        client = hubspot.Client.create(api_factory=self._api)
        self._batch = client.crm.objects.batch_api
        self._records = client.crm.objects.basic_api
        self._search = client.crm.objects.search_api
        self._links = client.crm.associations.v4.batch_api
        self._owners = client.crm.owners.owners_api
        self._pipelines = client.crm.pipelines.pipelines_api
        self._properties = client.crm.properties.core_api
        self._portal = ""
        # https://developers.hubspot.com/docs/api-reference/search/guide#limits: 5 a second
        self._search_pace = Pacer(5, 1.1)

    def _api(self, package: Any, api_name: str, _config: object) -> Any:
        """Build one of the client's APIs on the shared pool, with dated paths and our errors."""
        configuration = package.Configuration()
        configuration.host = self.access.api_base
        client = package.ApiClient(configuration=configuration)
        client.rest_client.pool_manager = self._pool
        original = client.call_api

        def call_api(path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            kwargs["_request_timeout"] = self.access.timeout

            def once(token: str) -> Any:
                configuration.access_token = token
                self.access.meter.calls += 1
                answer = _translate(lambda: original(dated(path), method, *args, **kwargs))
                note_limits(self.access.meter, client.last_response.getheaders())
                return answer

            return with_token(self.access, once)

        client.call_api = call_api
        return getattr(package, api_name)(api_client=client)

    def whoami(self) -> Account:
        """The portal's number, from /account-info, which knows no name."""
        answer = self._batch.api_client.call_api(
            f"/account-info/{API_VERSION}/details",
            "GET",
            response_types_map={200: "object"},
            auth_settings=["oauth2"],
            _return_http_data_only=True,
        )
        self._portal = str(answer["portalId"])
        return Account(self._portal, f"portal {self._portal}")

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        self._records.get_page(PLURAL[name], limit=1)

    def directory(self) -> Directory:
        """Owners, deal pipelines and which objects have the booking-id field."""
        self.whoami()
        pipelines = sorted(
            self._pipelines.get_all("deals").results, key=lambda item: item.display_order
        )
        return Directory(
            owners=dict(self._read_owners()),
            pipelines=tuple(_pipeline(item) for item in pipelines),
            booking_fields={
                name: BOOKING_FIELD
                for name in (ObjectName.DEAL, ObjectName.MEETING)
                if any(field.name == BOOKING_FIELD for field in self.describe(name))
            },
        )

    def _read_owners(self) -> Iterator[tuple[str, str]]:
        after = None
        while True:
            page = self._owners.get_page(limit=500, **({"after": after} if after else {}))
            for owner in page.results:
                if owner.email and not owner.archived:
                    yield owner.email.lower(), str(owner.id)
            if not (page.paging and page.paging.next):
                return
            after = page.paging.next.after

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The properties of an object."""
        found = self._properties.get_all(PLURAL[name]).results
        return [
            CrmField(
                item.name,
                item.label,
                item.type,
                unique=bool(item.has_unique_value),
                writable=not (item.modification_metadata or _Writable).read_only_value,
                options=tuple(option.value for option in item.options or ()),
            )
            for item in found
        ]

    def provision(self) -> list[str]:
        """Make the booking-id property: unique on deals; on meetings unique where HubSpot lets us."""
        done = []
        groups = {ObjectName.DEAL: "dealinformation", ObjectName.MEETING: "engagement_info"}
        for name, group in groups.items():
            if any(field.name == BOOKING_FIELD for field in self.describe(name)):
                continue
            body = {
                "name": BOOKING_FIELD,
                "label": "meetergo booking",
                "type": "string",
                "fieldType": "text",
                "groupName": group,
                "hasUniqueValue": True,
            }
            try:
                self._properties.create(PLURAL[name], body)
            except InvalidRecord:
                # Unique values are documented for contacts, companies, deals and tickets only.
                self._properties.create(PLURAL[name], {**body, "hasUniqueValue": False})
            done.append(f"HubSpot: property {BOOKING_FIELD} made on {PLURAL[name]}")
        return done

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Address of a record in the portal."""
        return (
            f"https://app.hubspot.com/contacts/{self._portal}/record/"
            f"{RECORD_TYPES[name]}/{record_id}"
        )

    def apply(self, plan: Plan, report: Report) -> None:
        """Write companies, contacts, deals, meetings, each in as few batches as there can be."""
        writer = _Writer(self, plan, report)
        for name in ObjectName:
            writer.write(name, plan.of(name))

    # What the writer calls: one method, one endpoint.

    def create(self, name: ObjectName, inputs: list[dict[str, Any]]) -> Any:
        """POST batch/create. https://developers.hubspot.com/docs/api-reference/crm-objects-v3/guide"""
        return self._batch.create(PLURAL[name], {"inputs": inputs})

    def update(self, name: ObjectName, inputs: list[dict[str, Any]]) -> Any:
        """POST batch/update, by record id."""
        return self._batch.update(PLURAL[name], {"inputs": inputs})

    def upsert_contacts(self, inputs: list[dict[str, Any]]) -> Any:
        """POST batch/upsert with the e-mail as the key."""
        return self._batch.upsert("contacts", {"inputs": inputs})

    def read(
        self, name: ObjectName, ids: Sequence[str], properties: list[str], key: str = ""
    ) -> Any:
        """POST batch/read by record id, or by a unique property."""
        body: dict[str, Any] = {
            "inputs": [{"id": item} for item in ids],
            "properties": properties,
            "propertiesWithHistory": [],
        }
        if key:
            body["idProperty"] = key
        return self._batch.read(PLURAL[name], body).results

    def search(self, name: ObjectName, groups: list[Any], properties: list[str]) -> list[Any]:
        """POST search. The index lags writes by seconds."""
        body = {
            "filterGroups": [{"filters": [item]} for item in groups],
            "properties": properties,
            "limit": BATCH,
            "after": "0",
            "sorts": [],
        }
        self._search_pace.wait()
        found: list[Any] = self._search.do_search(PLURAL[name], body).results
        return found

    def linked(self, name: ObjectName, record_id: str, target: ObjectName) -> list[str]:
        """Ids of what is associated with a record."""
        body = {"inputs": [{"id": record_id}]}
        answer = self._links.get_page(PLURAL[name], PLURAL[target], body)
        return [str(to.to_object_id) for result in answer.results or () for to in result.to]

    def link(self, pair: tuple[ObjectName, ObjectName], ids: list[tuple[str, str]]) -> None:
        """POST associations batch/create."""
        kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": LINK_TYPES[pair]}
        for chunk in _chunks(ids):
            inputs = [{"from": {"id": a}, "to": {"id": b}, "types": [kind]} for a, b in chunk]
            self._links.create(PLURAL[pair[0]], PLURAL[pair[1]], {"inputs": inputs})

    def unlink(self, pair: tuple[ObjectName, ObjectName], ids: list[tuple[str, str]]) -> None:
        """POST associations batch/archive."""
        for chunk in _chunks(ids):
            inputs = [{"from": {"id": a}, "to": [{"id": b}]} for a, b in chunk]
            self._links.archive(PLURAL[pair[0]], PLURAL[pair[1]], {"inputs": inputs})


class _Writable:
    """Stands in for properties that come without modification metadata."""

    read_only_value = False


class _Writer:
    """Writes one plan; keeps the ids that come to be on the way."""

    def __init__(self, api: HubSpotAdapter, plan: Plan, report: Report) -> None:
        self._api = api
        self._report = report
        self._ids = dict(plan.ids)

    def write(self, name: ObjectName, changes: list[Change]) -> None:
        """Update what is known, find what may be there, create the rest."""
        ready = []
        for change in changes:
            blocker = self._report.blocked_by(change.links)
            if blocker:
                words = f"The {blocker.object} was not written: {self._report.problems[blocker]}"
                self._report.problems[change.ref] = Blocked(words)
            else:
                ready.append(change)
        self._update([change for change in ready if change.record_id])
        new = [change for change in ready if not change.record_id]
        if new:
            self._adopt(new, self._find(name, new))
            self._create(name, [change for change in new if not self._settled(change)])

    def _settled(self, change: Change) -> bool:
        return change.ref in self._report.results or change.ref in self._report.problems

    def _find(self, name: ObjectName, changes: list[Change]) -> dict[Ref, str]:
        """Look for records that no unique key protects from being made twice."""
        if name is ObjectName.COMPANY:
            return self._companies_by_domain(changes)
        if name is ObjectName.CONTACT:
            return self._contacts_by_phone([c for c in changes if not c.match.email])
        found = {}
        for change in changes:
            if change.uncertain and (record_id := self._by_links(name, change)):
                found[change.ref] = record_id
        return found

    def _companies_by_domain(self, changes: list[Change]) -> dict[Ref, str]:
        found: dict[Ref, str] = {}
        for chunk in _chunks(changes):
            domains = [change.match.domain for change in chunk]
            rule = {"propertyName": "domain", "operator": "IN", "values": domains}
            for company in self._api.search(ObjectName.COMPANY, [rule], ["domain"]):
                # Compared again by us: what a search calls a match is its own affair.
                domain = (company.properties.get("domain") or "").lower()
                if domain in domains:
                    found.setdefault(Ref(ObjectName.COMPANY, domain), company.id)
        return found

    def _contacts_by_phone(self, changes: list[Change]) -> dict[Ref, str]:
        found: dict[Ref, str] = {}
        for change in changes:
            number = change.match.phone or ""
            national = str(phonenumbers.parse(number).national_number)
            rules = [
                {"propertyName": "phone", "operator": "EQ", "value": number},
                # https://developers.hubspot.com/docs/api-reference/search/guide: no country code
                {
                    "propertyName": "hs_searchable_calculated_phone_number",
                    "operator": "EQ",
                    "value": national,
                },
            ]
            for contact in self._api.search(ObjectName.CONTACT, rules, ["phone", "email"]):
                if normalise_phone(contact.properties.get("phone")) == number:
                    found[change.ref] = contact.id
                    break
        return found

    def _by_links(self, name: ObjectName, change: Change) -> str | None:
        """Find a record whose create was begun before, through what it was linked to."""
        anchor = next((ref for ref in reversed(change.links) if ref in self._ids), None)
        if anchor is None or (anchor.object is ObjectName.DEAL and name is ObjectName.DEAL):
            return None
        ids = self._api.linked(anchor.object, self._ids[anchor], name)
        keys = [BOOKING_FIELD] if BOOKING_FIELD in change.fields else _title_fields(change)
        for chunk in _chunks(ids):
            for record in self._api.read(name, chunk, keys):
                if all(record.properties.get(key) == change.fields[key] for key in keys):
                    return str(record.id)
        return None

    def _adopt(self, changes: list[Change], found: dict[Ref, str]) -> None:
        """Take records that exist already as ours: write what may be written, make the links."""
        self._update(
            [
                replace(c, record_id=found[c.ref], fields=c.on_match)
                for c in changes
                if c.ref in found
            ]
        )

    def _update(self, changes: list[Change]) -> None:
        for chunk in _chunks([change for change in changes if change.fields]):
            self._update_chunk(chunk)
        for change in changes:
            if change.ref not in self._report.problems:
                outcome = Outcome.UPDATED if change.fields else Outcome.UNCHANGED
                self._done(change, change.record_id or "", outcome)
        self._relink([change for change in changes if change.ref in self._report.results])

    def _update_chunk(self, chunk: list[Change]) -> None:
        inputs = [{"id": c.record_id, "properties": _properties(c.fields)} for c in chunk]
        try:
            answer = self._api.update(chunk[0].ref.object, inputs)
        except (InvalidRecord, Conflict, Gone) as error:
            self._split(chunk, error, self._update_chunk)
            return
        lost = {str(item) for part in _errors(answer) for item in _context(part, "ids")}
        for change in chunk:
            if change.record_id in lost:
                words = f"HubSpot no longer has {change.ref.object} {change.record_id}"
                self._report.problems[change.ref] = Gone(words, change.record_id or "")

    def _split(
        self, chunk: list[Change], error: CrmError, write: Callable[[list[Change]], None]
    ) -> None:
        """One bad input fails a whole batch: halve it until the bad one stands alone."""
        if len(chunk) == 1:
            if isinstance(error, Gone):
                error.record_id = chunk[0].record_id or ""
            self._report.problems[chunk[0].ref] = error
            return
        middle = len(chunk) // 2
        write(chunk[:middle])
        write(chunk[middle:])

    def _create(self, name: ObjectName, changes: list[Change]) -> None:
        key = {ObjectName.CONTACT: "email", ObjectName.COMPANY: "domain"}.get(name, BOOKING_FIELD)
        for chunk in _chunks([change for change in changes if key in change.fields]):
            self._create_chunk(chunk, key)
        # Results come in any order: what has no key to be told by goes alone.
        for change in changes:
            if key not in change.fields:
                self._create_chunk([change], "")

    def _create_chunk(self, chunk: list[Change], key: str) -> None:
        name = chunk[0].ref.object
        inputs = [
            {
                "properties": _properties(change.fields),
                "associations": self._associations(change),
                # With it each input succeeds or fails for itself (207).
                "objectWriteTraceId": str(number),
            }
            for number, change in enumerate(chunk)
        ]
        self._report.begun.update(change.ref for change in chunk)
        try:
            answer = self._api.create(name, inputs)
        except (InvalidRecord, Conflict) as error:
            if len(chunk) > 1:
                self._split(chunk, error, lambda part: self._create_chunk(part, key))
            else:
                self._resolve(chunk[0], error)
            return
        for record in answer.results:
            change = chunk[0] if len(chunk) == 1 else _told_by(chunk, key, record)
            self._done(change, str(record.id), Outcome.CREATED)
        for part in _errors(answer):
            for number in _context(part, "objectWriteTraceId"):
                self._resolve(chunk[int(number)], _batch_error(part))
        for change in chunk:
            if not self._settled(change):
                raise RetryLater("HubSpot's batch answer leaves a record out.")

    def _resolve(self, change: Change, error: CrmError) -> None:
        """A create failed: where the record exists already, take that one; else it is a problem."""
        record_id = error.record_id if isinstance(error, Conflict) else None
        if isinstance(error, Conflict) and not record_id:
            record_id = self._conflicting(change)
        if record_id:
            self._adopt([change], {change.ref: record_id})
        else:
            self._report.problems[change.ref] = error

    def _conflicting(self, change: Change) -> str | None:
        """The record in the way of a create, by its unique key; reads by key do not lag."""
        name = change.ref.object
        if name is ObjectName.CONTACT and change.match.email:
            entry = {
                "id": change.match.email,
                "idProperty": "email",
                "properties": _properties(change.on_match),
            }
            return str(self._api.upsert_contacts([entry]).results[0].id)
        if BOOKING_FIELD in change.fields:
            value = str(change.fields[BOOKING_FIELD])
            found = self._api.read(name, [value], [BOOKING_FIELD], key=BOOKING_FIELD)
            return str(found[0].id) if found else None
        return None

    def _associations(self, change: Change) -> list[dict[str, Any]]:
        source = change.ref.object
        entries, primary = [], PRIMARY_COMPANY.get(source)
        for ref in change.links:
            kinds = [LINK_TYPES[source, ref.object]]
            if ref.object is ObjectName.COMPANY and primary:
                kinds.append(primary)
            types = [
                {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}
                for kind in kinds
            ]
            entries.append({"to": {"id": self._ids[ref]}, "types": types})
        return entries

    def _relink(self, changes: list[Change]) -> None:
        """Make and take away links of existing records, one call for each pair of objects."""
        made: dict[tuple[ObjectName, ObjectName], list[tuple[str, str]]] = {}
        gone: dict[tuple[ObjectName, ObjectName], list[tuple[str, str]]] = {}
        for change in changes:
            source = (change.ref.object, change.record_id or "")
            for table, refs in ((made, change.links), (gone, change.unlinks)):
                for ref in refs:
                    if ref in self._ids:
                        pair = (source[0], ref.object)
                        table.setdefault(pair, []).append((source[1], self._ids[ref]))
        for pair, ids in made.items():
            self._api.link(pair, ids)
        for pair, ids in gone.items():
            self._api.unlink(pair, ids)

    def _done(self, change: Change, record_id: str, outcome: Outcome) -> None:
        self._ids[change.ref] = record_id
        self._report.results[change.ref] = Result(record_id, outcome)


def dated(path: str) -> str:
    """Turn a numbered path of the client into that of API_VERSION."""
    for old, new in DATED_PATHS:
        if path.startswith(old):
            return new + path[len(old) :]
    return path


def _pipeline(item: Any) -> Pipeline:
    stages = sorted(item.stages, key=lambda stage: stage.display_order)
    return Pipeline(
        str(item.id), item.label, tuple(Stage(str(stage.id), stage.label) for stage in stages)
    )


def _properties(fields: Any) -> dict[str, str]:
    """Properties go over as text; an empty text clears one."""
    return {name: _text(value) for name, value in fields.items()}


def _text(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else str(value)


def _title_fields(change: Change) -> list[str]:
    names = ("hs_meeting_title", "hs_timestamp", "dealname")
    return [name for name in names if name in change.fields]


def _told_by(chunk: list[Change], key: str, record: Any) -> Change:
    value = record.properties.get(key) or ""
    for change in chunk:
        wanted = str(change.fields[key])
        if value == wanted or (key == "email" and normalise_email(value) == wanted):
            return change
    raise RetryLater("HubSpot's batch answer names a record that was not in the batch.")


def _chunks(items: Sequence[Any]) -> Iterable[list[Any]]:
    return (list(items[i : i + BATCH]) for i in range(0, len(items), BATCH))


def _errors(answer: Any) -> list[Any]:
    return list(getattr(answer, "errors", None) or ())


def _context(error: Any, key: str) -> list[str]:
    return list((error.context or {}).get(key) or ())


def _batch_error(error: Any) -> CrmError:
    """The error of one input inside a 207."""
    existing = _context(error, "existingId")
    words = str(error.message)
    if error.category == "CONFLICT" or existing:
        return Conflict(shorten(words), existing[0] if existing else None)
    named = {name: shorten(words) for name in _context(error, "propertyName")}
    return InvalidRecord(shorten(words), named | _field_errors(words, {}))


def _translate(call: Callable[[], Any]) -> Any:
    """Make a call of the client and turn whatever it raises into our errors."""
    try:
        return call()
    except urllib3.exceptions.HTTPError as error:
        raise unreachable(error) from None
    except Exception as error:
        # Every package of the client has an ApiException of its own; the status tells them.
        status = getattr(error, "status", None)
        if not isinstance(status, int):
            raise
        body = error.body if isinstance(error.body, str) else ""  # type: ignore[attr-defined]
        headers = dict(error.headers or {})  # type: ignore[attr-defined]
        raise _classify(status, headers, body) from None


def _classify(status: int, headers: dict[str, str], text: str) -> Exception:
    try:
        raise_for_outage(status, headers, text)
    except RateLimited as error:
        return RateLimited(error.message, error.after or _window(headers, text))
    except RetryLater as error:
        return error
    try:
        body = json.loads(text)
    except ValueError:
        body = {"message": text}
    return _refusal(status, body if isinstance(body, dict) else {"message": text})


def _window(headers: dict[str, str], text: str) -> float:
    """Seconds until the limit that was hit opens again; no Retry-After is promised."""
    if "DAILY" in text:
        return 3600.0
    lowered = {key.lower(): value for key, value in headers.items()}
    interval = lowered.get("x-hubspot-ratelimit-interval-milliseconds", "")
    return int(interval) / 1000 if interval.isdigit() else 1.0


def _refusal(status: int, body: dict[str, Any]) -> Exception:
    words = str(body.get("message") or "")
    message = shorten(words)
    if status == 401:
        return RefusedToken(message)
    if status == 403:
        scopes = re.findall(r"crm\.[\w.]+", json.dumps(body))
        return MissingScope(message, sorted(set(scopes)))
    if status == 404:
        return Gone(message)
    existing = re.search(r"Existing ID: (\d+)", words)
    taken = re.search(r"\.\s*(\d+) already has that value", words)
    if status == 409 or taken:
        match = taken or existing
        return Conflict(message, match[1] if match else None)
    return InvalidRecord(message, _field_errors(words, body))


def _field_errors(words: str, body: dict[str, Any]) -> dict[str, str]:
    """Property -> HubSpot's words, from errors[] or from the list inside the message."""
    found = {}
    for error in body.get("errors") or ():
        names = (error.get("context") or {}).get("propertyName") or [error.get("in") or ""]
        found.update({str(name): shorten(str(error.get("message", ""))) for name in names if name})
    for name in re.findall(r'"name"\s*:\s*"([^"]+)"', words):
        found.setdefault(name, shorten(words))
    return found
