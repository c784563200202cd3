"""Pipedrive on API v2: no batch, no upsert, so the ledger and a look before a doubtful create."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from app.domain.errors import (
    Blocked,
    CrmError,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    RetryLater,
    Unauthorized,
)
from app.domain.people import normalise_email, normalise_phone
from app.domain.records import (
    Account,
    Change,
    CrmShape,
    Directory,
    Fields,
    ObjectName,
    Outcome,
    Pipeline,
    Plan,
    Ref,
    Result,
    Stage,
)
from crm_adapters.base import BOOKING_FIELD, Access, CrmField, Report
from crm_adapters.http import ApiSession, Pacer, RefusedToken, shorten, with_token

V2, V1 = "/api/v2", "/v1"
"""The one place for the versions. v1 remains for users and deal participants only."""
PATHS = {
    ObjectName.COMPANY: f"{V2}/organizations",
    ObjectName.CONTACT: f"{V2}/persons",
    ObjectName.DEAL: f"{V2}/deals",
    ObjectName.MEETING: f"{V2}/activities",
}
FIELD_PATHS = {
    ObjectName.COMPANY: f"{V2}/organizationFields",
    ObjectName.CONTACT: f"{V2}/personFields",
    ObjectName.DEAL: f"{V2}/dealFields",
    ObjectName.MEETING: f"{V2}/activityFields",
}
PAGES = {
    ObjectName.COMPANY: "organization",
    ObjectName.CONTACT: "person",
    ObjectName.DEAL: "deal",
    ObjectName.MEETING: "activities/list/user/everyone#dialog/activity/edit",
}
CUSTOM_KEY = re.compile(r"[0-9a-f]{40}")
SEARCH_WINDOW = 2.1
"""Seconds; a little more than Pipedrive's 2, since its clock starts when the call arrives."""
Body = dict[str, Any]


class PipedriveAdapter:
    """One Pipedrive company account."""

    batch_size: ClassVar[int] = 10
    shape: ClassVar[CrmShape] = CrmShape(
        owner_fields=dict.fromkeys(ObjectName, "owner_id"),
        pipeline_field="pipeline_id",
        stage_field="stage_id",
        stage_by_label=False,
        text_limits={
            "contact.name": 255,
            "company.name": 255,
            "deal.title": 255,
            "meeting.subject": 255,
            "meeting.location": 255,
            "meeting.note": 65_000,
        },
        html_fields=frozenset({"meeting.note"}),
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = ApiSession(access)
        self._keys: dict[str, str] | None = None
        # https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting: 10 searches in 2 seconds
        self._search_pace = Pacer(10, SEARCH_WINDOW)
        self._web = access.api_base
        self._begun: set[Ref] = set()

    def whoami(self) -> Account:
        """The company's id, its name and its domain."""
        me = self._call("GET", f"{V1}/users/me")["data"]
        domain = me.get("company_domain") or ""
        if domain:
            self._web = f"https://{domain}.pipedrive.com"
        name = f"{me.get('company_name') or 'company'} ({domain or me.get('company_id')})"
        return Account(str(me.get("company_id") or domain), name)

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        self._call("GET", PATHS[name], params={"limit": 1})

    def directory(self) -> Directory:
        """Users, pipelines with their stages, and the keys of custom fields."""
        self.whoami()
        users = self._call("GET", f"{V1}/users")["data"] or []
        stages = list(self._pages(f"{V2}/stages"))
        pipelines = sorted(self._pages(f"{V2}/pipelines"), key=lambda item: item["order_nr"])
        keys = self._read_keys()
        return Directory(
            owners={u["email"].lower(): str(u["id"]) for u in users if u.get("active_flag")},
            pipelines=tuple(_pipeline(item, stages) for item in pipelines),
            booking_fields=(
                {ObjectName.DEAL: BOOKING_FIELD} if f"deal.{BOOKING_FIELD}" in keys else {}
            ),
            field_keys=keys,
        )

    def _read_keys(self) -> dict[str, str]:
        """`object.name` -> 40-character key of every custom field."""
        self._keys = {}
        for name in (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL):
            for item in self._pages(FIELD_PATHS[name]):
                if CUSTOM_KEY.fullmatch(item["field_code"]):
                    self._keys[f"{name}.{item['field_name']}"] = item["field_code"]
        return self._keys

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The fields of an object; custom ones under their name, as mapping files write them."""
        return [
            CrmField(
                item["field_name"]
                if CUSTOM_KEY.fullmatch(item["field_code"])
                else item["field_code"],
                item["field_name"],
                item["field_type"],
                options=tuple(str(o["label"]) for o in item.get("options") or ()),
            )
            for item in self._pages(FIELD_PATHS[name])
        ]

    def provision(self) -> list[str]:
        """Make the booking-id field on deals; activities take no custom fields."""
        if f"deal.{BOOKING_FIELD}" in self._read_keys():
            return []
        body = {"field_name": BOOKING_FIELD, "field_type": "varchar"}
        self._call("POST", FIELD_PATHS[ObjectName.DEAL], json=body)
        self._keys = None
        return [f"Pipedrive: field {BOOKING_FIELD} made on deals"]

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Address of a record in the web application."""
        return f"{self._web}/{PAGES[name]}/{record_id}"

    def apply(self, plan: Plan, report: Report) -> None:
        """Write every change, one call each; known records first look nowhere."""
        ids = dict(plan.ids)
        self._begun = report.begun
        writers: dict[ObjectName, Callable[[Change, dict[Ref, str]], Result]] = {
            ObjectName.COMPANY: self._company,
            ObjectName.CONTACT: self._person,
            ObjectName.DEAL: self._deal,
            ObjectName.MEETING: self._activity,
        }
        for change in plan.changes:
            blocker = report.blocked_by(change.links)
            if blocker:
                words = f"The {blocker.object} was not written: {report.problems[blocker]}"
                report.problems[change.ref] = Blocked(words)
                continue
            try:
                result = writers[change.ref.object](change, ids)
            except (RetryLater, MissingScope, Unauthorized):
                raise
            except CrmError as error:
                report.problems[change.ref] = error
                continue
            report.results[change.ref] = result
            ids[change.ref] = result.record_id

    def _company(self, change: Change, ids: dict[Ref, str]) -> Result:
        name = str(change.fields.get("name") or change.match.domain)
        if change.record_id or not (found := self._search_company(name)):
            return self._save(change, change.fields)
        return self._keep(change, found, {})

    def _search_company(self, name: str) -> Body | None:
        query = {"term": name, "fields": "name", "exact_match": "true"}
        for item in self._search(ObjectName.COMPANY, query):
            if str(item.get("name", "")).casefold() == name.casefold():
                return item
        return None

    def _person(self, change: Change, ids: dict[Ref, str]) -> Result:
        companies = _ids_of(ObjectName.COMPANY, change.links, ids)
        link = {"org_id": companies[0]} if companies else {}
        if change.record_id:
            return self._save(change, {**change.fields, **link})
        found = self._search_person(change)
        if not found:
            return self._save(change, {**change.fields, **link})
        known = {"name": found.get("name"), "org_id": (found.get("organization") or {}).get("id")}
        # An organization that a colleague chose stays.
        wanted = {**change.on_match, **(link if not known["org_id"] else {})}
        return self._keep(change, found, {k: v for k, v in wanted.items() if known.get(k) != v})

    def _search_person(self, change: Change) -> Body | None:
        email, phone = change.match.email, change.match.phone
        field = "email" if email else "phone"
        # Phone numbers are indexed as typed: the national part finds more of them.
        term = email or str(phone)[-8:]
        query = {"term": term, "fields": field}
        if email:
            query["exact_match"] = "true"
        for item in self._search(ObjectName.CONTACT, query):
            # Compared again by us: a part of an address is no match.
            if email and email in map(normalise_email, item.get("emails") or ()):
                return item
            if not email and phone in map(normalise_phone, item.get("phones") or ()):
                return item
        return None

    def _keep(self, change: Change, found: Body, fields: Fields) -> Result:
        """Take a found record as ours. The index shows deleted ones too: the write, or a read,
        tells whether it lives."""
        path = f"{PATHS[change.ref.object]}/{found['id']}"
        try:
            if fields:
                self._call("PATCH", path, json=self._body(change.ref.object, fields))
                return Result(str(found["id"]), Outcome.UPDATED)
            if not self._call("GET", path)["data"].get("is_deleted"):
                return Result(str(found["id"]), Outcome.UNCHANGED)
        except Gone:
            pass
        return self._save(change, change.fields)

    def _deal(self, change: Change, ids: dict[Ref, str]) -> Result:
        people = _ids_of(ObjectName.CONTACT, change.targets, ids)
        fields = dict(change.fields)
        if change.relinked:
            fields["person_id"] = people[0] if people else None
            companies = _ids_of(ObjectName.COMPANY, change.targets, ids)
            fields["org_id"] = companies[0] if companies else None
        if not change.record_id:
            fields = {key: value for key, value in fields.items() if value is not None}
            known = self._begun_deal(change, people) if change.uncertain else None
            result = self._save(change, fields, known)
        else:
            result = self._save(change, fields)
        self._participants(change, result.record_id, people, ids)
        return result

    def _begun_deal(self, change: Change, people: list[str]) -> str | None:
        """A deal whose create was begun before: lists do not lag, the search does."""
        key = (self._field_keys()).get(f"deal.{BOOKING_FIELD}", "")
        if people:
            deals = self._pages(f"{V2}/deals", {"person_id": people[0]})
        else:
            query = {"term": str(change.match.booking_id), "fields": "custom_fields"}
            deals = iter(
                self._call("GET", f"{V2}/deals/{item['id']}")["data"]
                for item in self._search(ObjectName.DEAL, query)
            )
        for deal in deals:
            value = (deal.get("custom_fields") or {}).get(key)
            if value == change.match.booking_id and not deal.get("is_deleted"):
                return str(deal["id"])
        return None

    def _participants(
        self, change: Change, deal_id: str, people: list[str], ids: dict[Ref, str]
    ) -> None:
        """Attendees after the first stand beside the deal as participants (v1 only)."""
        path = f"{V1}/deals/{deal_id}/participants"
        wanted = people[1:]
        if not (change.unlinks or change.main_changed or change.uncertain):
            new = _ids_of(ObjectName.CONTACT, change.links, ids)
            rows: list[Body] = []
            wanted = [person for person in wanted if person in new]
        elif change.relinked:
            rows = self._call("GET", path)["data"] or []
        else:
            return
        there = {str(row["person_id"]["value"]): row["id"] for row in rows}
        for person in wanted:
            if person not in there:
                self._call("POST", path, json={"person_id": int(person)})
        # Who became the deal's own person is no longer one of the others.
        for person in [*_ids_of(ObjectName.CONTACT, change.unlinks, ids), *people[:1]]:
            if person in there:
                self._call("DELETE", f"{path}/{there[person]}")

    def _activity(self, change: Change, ids: dict[Ref, str]) -> Result:
        fields: Body = dict(change.fields)
        if change.relinked:
            people = _ids_of(ObjectName.CONTACT, change.targets, ids)
            fields["participants"] = [
                {"person_id": int(person), "primary": number == 0}
                for number, person in enumerate(people)
            ]
            for name, key in ((ObjectName.DEAL, "deal_id"), (ObjectName.COMPANY, "org_id")):
                targets = _ids_of(name, change.targets, ids)
                if targets or (change.record_id and any(r.object is name for r in change.unlinks)):
                    fields[key] = targets[0] if targets else None
        known = self._begun_activity(change, fields) if change.uncertain else None
        return self._save(change, fields, known)

    def _begun_activity(self, change: Change, fields: Body) -> str | None:
        """An activity whose create was begun before, found by listing what its deal has."""
        anchor = {"deal_id": fields["deal_id"]} if fields.get("deal_id") else None
        if anchor is None and fields.get("participants"):
            anchor = {"person_id": fields["participants"][0]["person_id"]}
        mark = f"meetergo booking {str(change.match.booking_id).partition(':')[2]}"
        for item in self._pages(f"{V2}/activities", anchor) if anchor else ():
            if item.get("is_deleted"):
                continue
            same = ("subject", "due_date", "due_time")
            if mark in (item.get("note") or "") or all(
                item.get(key) == fields.get(key) for key in same
            ):
                return str(item["id"])
        return None

    def _save(self, change: Change, fields: Fields, found: str | None = None) -> Result:
        """Create or update; nothing is sent where nothing is to be written."""
        path = PATHS[change.ref.object]
        known = change.record_id or found
        body = self._body(change.ref.object, fields)
        if not known:
            self._begun.add(change.ref)
            created = self._call("POST", path, json=body)["data"]
            return Result(str(created["id"]), Outcome.CREATED)
        if not body:
            return Result(known, Outcome.UNCHANGED)
        try:
            self._call("PATCH", f"{path}/{known}", json=body)
        except Gone as error:
            raise Gone(error.message, known) from None
        return Result(known, Outcome.UPDATED)

    def _body(self, name: ObjectName, fields: Fields) -> Body:
        """Our flat fields in v2's shape: typed ids, lists of e-mails, custom fields by their key."""
        body: Body = {}
        for field, value in fields.items():
            key = self._field_keys().get(f"{name}.{field}") if field not in _NATIVE else None
            if key:
                body.setdefault("custom_fields", {})[key] = value
            elif field in ("emails", "phones"):
                label = "work" if field == "emails" else "mobile"
                body[field] = [{"value": value, "primary": True, "label": label}] if value else []
            elif field == "location":
                body[field] = {"value": value} if value else None
            elif field.endswith("_id") and value is not None:
                body[field] = int(str(value))
            else:
                body[field] = value
        return body

    def _field_keys(self) -> Mapping[str, str]:
        return self._keys if self._keys is not None else self._read_keys()

    def _search(self, name: ObjectName, query: Body) -> list[Body]:
        self._search_pace.wait()
        answer = self._call("GET", f"{PATHS[name]}/search", params={**query, "limit": 100})
        return [entry["item"] for entry in answer["data"]["items"]]

    def _pages(self, path: str, query: Body | None = None) -> Iterator[Body]:
        """Every entry of a cursor-paged list."""
        params: Body = {**(query or {}), "limit": 500}
        while True:
            answer = self._call("GET", path, params=params)
            yield from answer["data"] or ()
            cursor = (answer.get("additional_data") or {}).get("next_cursor")
            if not cursor:
                return
            params["cursor"] = cursor

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        def once(token: str) -> Any:
            headers = {**self.access.authorization(token), "Accept": "application/json"}
            try:
                response = self._session.request(method, path, headers, **kwargs)
            except RateLimited as error:
                raise RateLimited(error.message, error.after or 2.0) from None
            if response.status_code >= 400:
                raise _refusal(response)
            try:
                return response.json()
            except ValueError:
                raise RetryLater("Pipedrive's answer is not JSON.") from None

        return with_token(self.access, once)


_NATIVE = frozenset({"name", "title", "subject", "owner_id", "note", "type"})


def _ids_of(name: ObjectName, refs: tuple[Ref, ...], ids: Mapping[Ref, str]) -> list[str]:
    return [ids[ref] for ref in refs if ref.object is name and ref in ids]


def _pipeline(item: Body, stages: list[Body]) -> Pipeline:
    mine = sorted(
        (stage for stage in stages if stage["pipeline_id"] == item["id"]),
        key=lambda stage: stage["order_nr"],
    )
    return Pipeline(
        str(item["id"]), item["name"], tuple(Stage(str(s["id"]), s["name"]) for s in mine)
    )


def _refusal(response: Any) -> Exception:
    """Our error for an answer of 400 to 499."""
    status = response.status_code
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
        if status == 403:
            # Those who go on after 429s are shut out with an HTML page.
            return RateLimited("Pipedrive has shut us out for a while.", 300.0)
    words = shorten(str(body.get("error") or response.text))
    if status == 401:
        return RefusedToken(words)
    if status == 403 and "scope" in words.lower():
        return MissingScope(words)
    if status in (404, 410):
        return Gone(words)
    return InvalidRecord(words, dict(re.findall(r"(\w+): ([^;]+)", words.partition("failed: ")[2])))
