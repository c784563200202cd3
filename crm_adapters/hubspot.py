"""HubSpot through its own client, on the date-based API: batches, inline links, unique booking id."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import hubspot
import phonenumbers
import urllib3

from app.domain.allowance import Allowance
from app.domain.errors import (
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
    Choice,
    CrmField,
    CrmShape,
    Directory,
    FieldValue,
    Findings,
    Found,
    Key,
    Kind,
    MatchKey,
    NewField,
    ObjectName,
    Outcome,
    Pipeline,
    Plan,
    Question,
    Ref,
    Result,
    Stage,
)
from crm_adapters.base import BOOKING_FIELD, SEARCH_LAG, Access, Report, unblocked
from crm_adapters.finder import Hit, KeyFinder, note_lost_targets, told_begun
from crm_adapters.http import (
    RefusedToken,
    raise_for_outage,
    shorten,
    unreachable,
    with_token,
)
from crm_adapters.wire import watch

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
GROUPS = {
    ObjectName.COMPANY: "companyinformation",
    ObjectName.CONTACT: "contactinformation",
    ObjectName.DEAL: "dealinformation",
    ObjectName.MEETING: "engagement_info",
}
"""The property groups that every portal has."""
PROPERTY_TYPES = {
    # https://developers.hubspot.com/docs/api-reference/crm-properties-v3/guide
    Kind.TEXT: ("string", "text"),
    Kind.NUMBER: ("number", "number"),
    Kind.WHOLE: ("number", "number"),
    Kind.FLAG: ("bool", "booleancheckbox"),
    Kind.DATE: ("date", "date"),
    Kind.MOMENT: ("datetime", "date"),
}
KINDS = {
    "string": Kind.TEXT, "number": Kind.NUMBER, "date": Kind.DATE, "datetime": Kind.MOMENT,
    "bool": Kind.FLAG, "phone_number": Kind.TEXT,
}  # fmt: skip
BATCH = 100
"""Most inputs of a batch call."""
Pair = tuple[ObjectName, ObjectName]
Links = dict[Ref, list[tuple[str, str]]]
"""Whose links -> the ids at both ends."""
SEARCH_PAGE = 200
CALLS = Allowance("10 seconds", 110, 10.0)
"""https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines (OAuth apps)"""
SEARCHES = Allowance("searches", 5, 1.0, told=False)
"""https://developers.hubspot.com/docs/api-reference/search/guide#limits; it has no headers."""


class HubSpotAdapter:
    """One HubSpot account."""

    batch_size: ClassVar[int] = 500
    asks_ahead: ClassVar[bool] = False
    allowances: ClassVar[Sequence[Allowance]] = (CALLS, SEARCHES)
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
        native_keys={
            ObjectName.CONTACT: MatchKey.EMAIL,
            ObjectName.DEAL: MatchKey.BOOKING,
        },
        match_keys={
            ObjectName.CONTACT: (MatchKey.SECONDARY_EMAIL, MatchKey.PHONE),
            ObjectName.COMPANY: (MatchKey.DOMAIN,),
            ObjectName.DEAL: (MatchKey.OPEN_DEAL,),
        },
        lag=dict.fromkeys((ObjectName.COMPANY, ObjectName.CONTACT), SEARCH_LAG),
        needs={
            # https://developers.hubspot.com/docs/api-reference/crm-contacts-v3/guide and its like
            ObjectName.CONTACT: ("email", "firstname", "lastname"),
            ObjectName.COMPANY: ("name", "domain"),
            ObjectName.MEETING: ("hs_timestamp", "hs_meeting_start_time"),
        },
        new_fields=dict.fromkeys(PLURAL, "[a-z][a-z0-9_]*"),
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        # No retries here: the drainer decides what is tried again, and when.
        self._pool = urllib3.PoolManager(maxsize=4, retries=urllib3.Retry(0, read=False))
        watch(self._pool, access.gate)
        client = hubspot.Client.create(api_factory=self._api)
        self._batch = client.crm.objects.batch_api
        self._records = client.crm.objects.basic_api
        self._search = client.crm.objects.search_api
        self._links = client.crm.associations.v4.batch_api
        self._owners = client.crm.owners.owners_api
        self._pipelines = client.crm.pipelines.pipelines_api
        self._properties = client.crm.properties.core_api
        self._portal = ""

    def _api(self, package: Any, api_name: str, _config: object) -> Any:
        """Build one of the client's APIs on the shared pool, with dated paths and our errors."""
        configuration = package.Configuration()
        configuration.host = self.access.api_base
        client = package.ApiClient(configuration=configuration)
        client.rest_client.pool_manager = self._pool
        # Times stay the text that they come as, which sorts: parsing them takes half of a batch.
        client._ApiClient__deserialize_datetime = str
        original = client.call_api

        def call_api(path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            kwargs["_request_timeout"] = self.access.timeout
            allowance = SEARCHES if path.endswith("/search") else CALLS

            def once(token: str) -> Any:
                configuration.access_token = token
                try:
                    answer = _translate(lambda: original(dated(path), method, *args, **kwargs))
                except RetryLater:
                    raise
                except (CrmError, RefusedToken):
                    self.access.meter.count(answered=True)
                    raise
                self.access.answered(allowance, client.last_response.getheaders())
                self.access.meter.count(answered=True)
                return answer

            return with_token(self.access, once, allowance)

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
        schema = {
            name: {field.name: field for field in self.describe(name)}
            for name in self.shape.objects
        }
        pipelines = sorted(
            self._pipelines.get_all("deals").results, key=lambda item: item.display_order
        )
        return Directory(
            owners=dict(self._read_owners()),
            pipelines=tuple(_pipeline(item) for item in pipelines),
            booking_fields={
                name: BOOKING_FIELD
                for name in (ObjectName.DEAL, ObjectName.MEETING)
                if BOOKING_FIELD in schema[name]
            },
            schema=schema,
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
        return [_field(item) for item in self._properties.get_all(PLURAL[name]).results]

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Make the booking-id property: unique on deals; on meetings unique where HubSpot lets us."""
        done = []
        for name in (ObjectName.DEAL, ObjectName.MEETING):
            if any(field.name == BOOKING_FIELD for field in self.describe(name)):
                continue
            field = NewField(name, BOOKING_FIELD, label="meetergo booking")
            try:
                self._make_property(field, unique=True)
            except InvalidRecord:
                # Unique values are documented for contacts, companies, deals and tickets only.
                self._make_property(field, unique=False)
            done.append(f"HubSpot: property {BOOKING_FIELD} made on {PLURAL[name]}")
        for field in fields:
            self._make_property(field, unique=False)
            done.append(f"HubSpot: property {field.name} made on {PLURAL[field.object]}")
        return done

    def _make_property(self, field: NewField, unique: bool) -> None:
        kind, shown = PROPERTY_TYPES[field.kind]
        body: dict[str, Any] = {
            "name": field.name,
            "label": field.label or field.name.replace("_", " ").capitalize(),
            "type": kind,
            "fieldType": shown,
            "groupName": GROUPS[field.object],
            "hasUniqueValue": unique,
        }
        if field.kind is Kind.FLAG:
            body["options"] = [
                {"label": word, "value": value, "displayOrder": number, "hidden": False}
                for number, (word, value) in enumerate((("Yes", "true"), ("No", "false")))
            ]
        self._properties.create(PLURAL[field.object], body)

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Address of a record in the portal."""
        return (
            f"https://app.hubspot.com/contacts/{self._portal}/record/"
            f"{RECORD_TYPES[name]}/{record_id}"
        )

    def apply(self, plan: Plan, report: Report) -> None:
        """Write companies, contacts, deals, meetings, each in as few batches as there can be."""
        writer = _Writer(self, plan, report)
        for name in self.shape.objects:
            writer.write(name, plan.of(name))
        note_lost_targets(self.find, plan, report)

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

    def archive(self, name: ObjectName, ids: list[str]) -> None:
        """POST batch/archive: into the recycle bin; what is not there any more is no error."""
        self._batch.archive(PLURAL[name], {"inputs": [{"id": item} for item in ids]})

    def get(self, name: ObjectName, record_id: str, properties: list[str]) -> Any | None:
        """GET one record; a merged one answers under its new id. None where it is gone."""
        try:
            return self._records.get_by_id(PLURAL[name], record_id, properties=properties)
        except Gone:
            return None

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

    def find(self, questions: Sequence[Question], ids: Mapping[Ref, str]) -> Findings:
        """Read and look, object by object: contacts tell which deals may be meant."""
        return Finder(self, questions, ids).run()

    def search(self, name: ObjectName, groups: list[Any], properties: list[str]) -> list[Any]:
        """POST search, every page of it. The index lags writes by seconds."""
        found: list[Any] = []
        after = "0"
        while True:
            body = {
                "filterGroups": [{"filters": [item]} for item in groups],
                "properties": properties,
                "limit": SEARCH_PAGE,
                "after": after,
                "sorts": [],
            }
            page = self._search.do_search(PLURAL[name], body)
            found += page.results
            if not (page.paging and page.paging.next):
                return found
            after = page.paging.next.after

    def linked(
        self, name: ObjectName, ids: Sequence[str], target: ObjectName
    ) -> dict[str, list[str]]:
        """Ids of what is associated with each record."""
        found = {}
        for chunk in _chunks(ids):
            body = {"inputs": [{"id": item} for item in chunk]}
            answer = self._links.get_page(PLURAL[name], PLURAL[target], body)
            for result in answer.results or ():
                found[str(result._from.id)] = [str(to.to_object_id) for to in result.to]
        return found

    def link(self, pair: Pair, ids: list[tuple[str, str]]) -> None:
        """POST associations batch/create."""
        kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": LINK_TYPES[pair]}
        for chunk in _chunks(ids):
            inputs = [{"from": {"id": a}, "to": {"id": b}, "types": [kind]} for a, b in chunk]
            answer = self._links.create(PLURAL[pair[0]], PLURAL[pair[1]], {"inputs": inputs})
            for error in _errors(answer):
                raise InvalidRecord(shorten(str(error.message)))

    def unlink(self, pair: Pair, ids: list[tuple[str, str]]) -> None:
        """POST associations batch/archive."""
        for chunk in _chunks(ids):
            inputs = [{"from": {"id": a}, "to": [{"id": b}]} for a, b in chunk]
            self._links.archive(PLURAL[pair[0]], PLURAL[pair[1]], {"inputs": inputs})


class _Writable:
    """Stands in for properties that come without modification metadata."""

    read_only_value = False


def _field(item: Any) -> CrmField:
    kind = KINDS.get(item.type, Kind.OTHER)
    if item.type == "enumeration":
        kind = Kind.CHOICES if item.field_type == "checkbox" else Kind.CHOICE
    # Owners come as an enumeration without options of its own, pipelines and stages likewise.
    if kind is Kind.CHOICE and not item.options:
        kind = Kind.OTHER
    return CrmField(
        item.name,
        item.label,
        kind,
        unique=bool(item.has_unique_value),
        writable=not (item.modification_metadata or _Writable).read_only_value,
        options=tuple(Choice(option.value, option.label) for option in item.options or ()),
        custom=not item.hubspot_defined,
    )


class Finder(KeyFinder):
    """Answers questions about one portal."""

    def __init__(
        self, api: HubSpotAdapter, questions: Sequence[Question], ids: Mapping[Ref, str]
    ) -> None:
        super().__init__(questions, ids)
        self._api = api

    def by_id(self, name: ObjectName, wanted: Mapping[str, Question]) -> Iterator[Hit]:
        """Batch read; what is missing there may be a merged record, which answers alone."""
        fields = sorted({field for question in wanted.values() for field in question.fields})
        there = set()
        for chunk in _chunks(list(wanted)):
            for record in self._api.read(name, chunk, fields):
                there.add(str(record.id))
                yield wanted[str(record.id)], _found(record, "record id")
        for record_id, question in wanted.items():
            if record_id not in there and record_id.isdigit():
                record = self._api.get(name, record_id, fields)
                if record:
                    yield question, _found(record, "record id")

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Question, Key]]
    ) -> Iterator[Hit]:
        """Look for the records of one object by one kind of key."""
        if kind is MatchKey.EMAIL:
            yield from self._read_by(name, "email", asked)
        elif kind is MatchKey.SECONDARY_EMAIL:
            yield from self._by_secondary(asked)
        elif kind is MatchKey.PHONE:
            yield from self._by_phone(asked)
        elif kind is MatchKey.DOMAIN:
            yield from self._search_in(name, "domain", asked)
        elif kind is MatchKey.OPEN_DEAL:
            yield from self._open_deals(asked)
        elif kind is MatchKey.BOOKING:
            yield from self._begun(name, asked)
        elif kind is MatchKey.FIELD:
            for field in dict.fromkeys(key.field for _, key in asked):
                part = [entry for entry in asked if entry[1].field == field]
                yield from self._search_in(name, field, part)

    def _read_by(
        self, name: ObjectName, field: str, asked: list[tuple[Question, Key]]
    ) -> Iterator[Hit]:
        """Read by a unique property, which unlike search does not lag."""
        by_value = {key.value: question for question, key in asked}
        fields = sorted({f for q, _ in asked for f in q.fields} | {field})
        for chunk in _chunks(list(by_value)):
            for record in self._api.read(name, chunk, fields, key=field):
                question = by_value.get((record.properties.get(field) or "").lower())
                question = question or by_value.get(record.properties.get(field) or "")
                if question:
                    yield question, _found(record, field)

    def _search_in(
        self, name: ObjectName, field: str, asked: list[tuple[Question, Key]]
    ) -> Iterator[Hit]:
        fields = sorted({f for q, _ in asked for f in q.fields} | {field})
        for chunk in _chunks(asked):
            values = [key.value.lower() for _, key in chunk]
            rule = {"propertyName": field, "operator": "IN", "values": values}
            for record in self._api.search(name, [rule], fields):
                # Compared again by us: what a search calls a match is its own affair.
                there = (record.properties.get(field) or "").lower()
                for question, key in chunk:
                    if there == key.value.lower():
                        yield question, _found(record, field)

    def _by_secondary(self, asked: list[tuple[Question, Key]]) -> Iterator[Hit]:
        name = "hs_additional_emails"
        for question, key in asked:
            rule = {"propertyName": name, "operator": "CONTAINS_TOKEN", "value": key.value}
            fields = sorted(question.fields | {name})
            for record in self._api.search(ObjectName.CONTACT, [rule], fields):
                there = (record.properties.get(name) or "").lower().split(";")
                if key.value in [entry.strip() for entry in there]:
                    yield question, _found(record, "secondary e-mail")

    def _by_phone(self, asked: list[tuple[Question, Key]]) -> Iterator[Hit]:
        for question, key in asked:
            national = str(phonenumbers.parse(key.value).national_number)
            rules = [
                {"propertyName": "phone", "operator": "EQ", "value": key.value},
                # https://developers.hubspot.com/docs/api-reference/search/guide: no country code
                {
                    "propertyName": "hs_searchable_calculated_phone_number",
                    "operator": "EQ",
                    "value": national,
                },
            ]
            fields = sorted(question.fields | {"phone", "email"})
            for record in self._api.search(ObjectName.CONTACT, rules, fields):
                if normalise_phone(record.properties.get("phone")) == key.value:
                    yield question, _found(record, "phone")

    def _open_deals(self, asked: list[tuple[Question, Key]]) -> Iterator[Hit]:
        """Deals of a contact that are not closed; links do not lag as search does."""
        people = {}
        for question, key in asked:
            person = self.id_of(Ref(ObjectName.CONTACT, key.value))
            if person:
                people[person] = (question, key)
        linked = self._api.linked(ObjectName.CONTACT, list(people), ObjectName.DEAL)
        for person, deals in linked.items():
            question, key = people[person]
            fields = sorted(question.fields | {"pipeline", "hs_is_closed"})
            for chunk in _chunks(deals):
                for record in self._api.read(ObjectName.DEAL, chunk, fields):
                    same = key.field in ("", record.properties.get("pipeline"))
                    if same and record.properties.get("hs_is_closed") != "true":
                        yield question, _found(record, "open deal")

    def _begun(self, name: ObjectName, asked: list[tuple[Question, Key]]) -> Iterator[Hit]:
        """Find records whose create was begun before: by the unique id, else through their links."""
        if name is ObjectName.DEAL and any(BOOKING_FIELD in q.content for q, _ in asked):
            yield from self._read_by(name, BOOKING_FIELD, asked)
            return
        body, title = ("hs_meeting_body", "hs_meeting_title")
        if name is ObjectName.DEAL:
            body, title = ("description", "dealname")
        for question, key in asked:
            fields = sorted({BOOKING_FIELD, body, title, *question.fields})
            for record in self._linked_to(name, question.anchors, fields):
                values = dict(record.properties or {})
                by = told_begun(question, key, values, BOOKING_FIELD, body, title)
                if by:
                    yield question, _found(record, by)

    def _linked_to(
        self, name: ObjectName, anchors: Sequence[Ref], fields: list[str]
    ) -> Iterator[Any]:
        """Records of an object that hang on any of the anchors that exist."""
        seen: set[str] = set()
        for start, anchor in reversed(self.ids_of(anchors).items()):
            if (name, anchor.object) not in LINK_TYPES:
                continue
            ids = self._api.linked(anchor.object, [start], name).get(start, [])
            for chunk in _chunks([item for item in ids if item not in seen]):
                yield from self._api.read(name, chunk, fields)
            seen.update(ids)


def _found(record: Any, by: str) -> Found:
    created = str(getattr(record, "created_at", "") or "")
    return Found(str(record.id), dict(record.properties or {}), by, made_at=created)


class _Writer:
    """Writes one plan; keeps the ids that come to be on the way."""

    def __init__(self, api: HubSpotAdapter, plan: Plan, report: Report) -> None:
        self._api = api
        self._report = report
        self._ids = dict(plan.ids)

    def write(self, name: ObjectName, changes: list[Change]) -> None:
        """Update what is there, create the rest."""
        ready = unblocked(changes, self._report)
        self._delete([change for change in ready if change.delete])
        self._update([change for change in ready if change.record_id and not change.delete])
        new = [change for change in ready if not change.record_id]
        if new:
            self._create(name, new)

    def _delete(self, changes: list[Change]) -> None:
        for chunk in _chunks(changes):
            self._api.archive(chunk[0].ref.object, [change.record_id for change in chunk])
            for change in chunk:
                self._done(change, change.record_id or "", Outcome.DELETED)

    def _settled(self, change: Change) -> bool:
        return change.ref in self._report.results or change.ref in self._report.problems

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
        good = [change for change in changes if change.ref not in self._report.problems]
        self._relink(good)
        # Only now: what is done is not tried again, and its links are a part of it.
        for change in good:
            if change.ref not in self._report.problems:
                outcome = Outcome.UPDATED if change.fields else Outcome.UNCHANGED
                self._done(change, change.record_id or "", outcome)

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
            self._report.begun.discard(change.ref)

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
        made: dict[Pair, Links] = {}
        gone: dict[Pair, Links] = {}
        for change in changes:
            for table, refs in ((made, change.links), (gone, change.unlinks)):
                for ref in refs:
                    if ref in self._ids:
                        links = table.setdefault((change.ref.object, ref.object), {})
                        ends = (change.record_id or "", self._ids[ref])
                        links.setdefault(change.ref, []).append(ends)
        for pair, links in made.items():
            self._connect(self._api.link, pair, links)
        for pair, links in gone.items():
            self._connect(self._api.unlink, pair, links)

    def _connect(
        self, make: Callable[[Pair, list[tuple[str, str]]], None], pair: Pair, links: Links
    ) -> None:
        """Make links together; where one is refused, those of each record alone."""
        try:
            make(pair, [ends for mine in links.values() for ends in mine])
        except (InvalidRecord, Conflict, Gone) as error:
            for ref, mine in links.items():
                if len(links) > 1:
                    self._connect(make, pair, {ref: mine})
                    continue
                self._report.problems[ref] = error

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
    return Pipeline(str(item.id), item.label, tuple(_stage(stage) for stage in stages))


def _stage(item: Any) -> Stage:
    closed = str((item.metadata or {}).get("isClosed", "")).lower() == "true"
    return Stage(str(item.id), item.label, closed)


def _properties(fields: Any) -> dict[str, str]:
    """Properties go over as text; an empty text clears one."""
    return {name: _text(value) for name, value in fields.items()}


def _text(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else str(value)


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
