"""Pipedrive on API v2: no batch, no upsert, so the ledger and a look before a doubtful create."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import structlog

from app.domain.allowance import Allowance
from app.domain.errors import (
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
    BY_NUMBER,
    Account,
    Change,
    Choice,
    CrmField,
    CrmShape,
    Directory,
    Fields,
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
from crm_adapters.http import ApiSession, RefusedToken, shorten, together, with_token

log = structlog.get_logger(__name__)
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
KINDS = {
    # https://developers.pipedrive.com/docs/api/v1/DealFields
    "varchar": Kind.TEXT, "varchar_auto": Kind.TEXT, "text": Kind.TEXT, "phone": Kind.TEXT,
    "double": Kind.NUMBER, "monetary": Kind.NUMBER, "int": Kind.WHOLE, "boolean": Kind.FLAG,
    "date": Kind.DATE, "time": Kind.TIME, "enum": Kind.CHOICE, "set": Kind.CHOICES,
    "user": Kind.REFERENCE, "org": Kind.REFERENCE, "people": Kind.REFERENCE,
    "stage": Kind.REFERENCE, "deal": Kind.REFERENCE,
}  # fmt: skip
FIELD_TYPES = {
    Kind.TEXT: "varchar", Kind.NUMBER: "double", Kind.WHOLE: "double", Kind.FLAG: "varchar",
    Kind.DATE: "date", Kind.MOMENT: "varchar",
}  # fmt: skip
CALLS = Allowance("2 seconds", 80, 2.0)
"""Of the smallest plan; the headers tell of larger ones.
https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting"""
SEARCHES = Allowance("searches", 10, 2.0, told=False)
AT_ONCE = 8
"""Questions, and beside them writes, under way together: it has no batches, so only several at a
time use what it allows."""
SEARCHABLE = {"address", "varchar", "text", "varchar_auto", "double", "monetary", "phone"}
Body = dict[str, Any]


class PipedriveAdapter:
    """One Pipedrive company account."""

    batch_size: ClassVar[int] = 20
    asks_ahead: ClassVar[bool] = True
    allowances: ClassVar[Sequence[Allowance]] = (CALLS, SEARCHES)
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
        match_keys={
            ObjectName.CONTACT: (MatchKey.EMAIL, MatchKey.SECONDARY_EMAIL, MatchKey.PHONE),
            ObjectName.COMPANY: (MatchKey.DOMAIN,),
            ObjectName.DEAL: (MatchKey.OPEN_DEAL,),
        },
        lag=dict.fromkeys((ObjectName.COMPANY, ObjectName.CONTACT), SEARCH_LAG),
        needs={
            ObjectName.COMPANY: ("name",),
            ObjectName.CONTACT: ("name",),
            ObjectName.DEAL: ("title",),
            ObjectName.MEETING: ("subject",),
        },
        # Activities take no custom fields.
        new_fields=dict.fromkeys((ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL), ".+"),
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = ApiSession(access, 2 * AT_ONCE)
        # Apart, so that what is written does not queue up behind what is looked for.
        self.asking = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pipedrive-asks")
        self._writing = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pipedrive-writes")
        self._keys: dict[str, str] | None = None
        self._numbered: set[str] = set()
        """Custom fields whose options go by numbers."""
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
        rows = {name: list(self._pages(FIELD_PATHS[name])) for name in self.shape.objects}
        keys = self._note_keys(rows)
        return Directory(
            owners={u["email"].lower(): str(u["id"]) for u in users if u.get("active_flag")},
            pipelines=tuple(_pipeline(item, stages) for item in pipelines),
            booking_fields=(
                {ObjectName.DEAL: BOOKING_FIELD} if f"deal.{BOOKING_FIELD}" in keys else {}
            ),
            schema={
                name: {field.name: field for field in map(_field, fields)}
                for name, fields in rows.items()
            },
        )

    def _note_keys(self, rows: Mapping[ObjectName, Sequence[Body]]) -> dict[str, str]:
        """Keep `object.name` -> 40-character key of every custom field."""
        self._numbered = {
            f"{name}.{item['field_name']}"
            for name, fields in rows.items()
            for item in fields
            if item["field_type"] in ("enum", "set")
        }
        self._keys = {
            f"{name}.{item['field_name']}": item["field_code"]
            for name, fields in rows.items()
            for item in fields
            if CUSTOM_KEY.fullmatch(item["field_code"])
        }
        return self._keys

    def _read_keys(self) -> dict[str, str]:
        custom = (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL)
        return self._note_keys({name: list(self._pages(FIELD_PATHS[name])) for name in custom})

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The fields of an object; custom ones under their name, as mapping files write them."""
        return [_field(item) for item in self._pages(FIELD_PATHS[name])]

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Make the booking-id field on deals; activities take no custom fields."""
        done = []
        if f"deal.{BOOKING_FIELD}" not in self._read_keys():
            fields = (NewField(ObjectName.DEAL, BOOKING_FIELD), *fields)
        for field in fields:
            if field.object is ObjectName.MEETING:
                raise InvalidRecord("Pipedrive's activities take no custom fields.")
            body = {"field_name": field.name, "field_type": FIELD_TYPES[field.kind]}
            self._call("POST", FIELD_PATHS[field.object], json=body)
            done.append(f"Pipedrive: field {field.name} made on {field.object}s")
        self._keys = None
        return done

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

        def write(change: Change) -> None:
            try:
                do = self._erase if change.delete else writers[change.ref.object]
                result = do(change, ids)
            except (RetryLater, MissingScope, Unauthorized):
                raise
            except CrmError as error:
                report.problems[change.ref] = error
                return
            report.results[change.ref] = result
            ids[change.ref] = result.record_id

        for name in self.shape.objects:
            # What the next object is linked to has to be there first.
            together(self._writing, write, unblocked(plan.of(name), report))
        note_lost_targets(self.find, plan, report)

    def find(self, questions: Sequence[Question], ids: Mapping[Ref, str]) -> Findings:
        """Search persons and organizations, list what hangs on them."""
        return Finder(self, questions, ids).run()

    def _erase(self, change: Change, ids: dict[Ref, str]) -> Result:
        try:
            self._call("DELETE", f"{PATHS[change.ref.object]}/{change.record_id}")
        except Gone:
            log.info("record_gone_already", object=change.ref.object.value)
        return Result(change.record_id or "", Outcome.DELETED)

    def _company(self, change: Change, ids: dict[Ref, str]) -> Result:
        return self._save(change, change.fields)

    def _person(self, change: Change, ids: dict[Ref, str]) -> Result:
        companies = _ids_of(ObjectName.COMPANY, change.links, ids)
        # An organization that a colleague chose stays.
        taken = change.present.get("org_id")
        link = {"org_id": companies[0]} if companies and not taken else {}
        return self._save(change, {**change.fields, **link})

    def _deal(self, change: Change, ids: dict[Ref, str]) -> Result:
        people = _ids_of(ObjectName.CONTACT, change.targets, ids)
        companies = _ids_of(ObjectName.COMPANY, change.targets, ids)
        fields, fresh = dict(change.fields), not change.record_id or change.adopted
        if change.relinked and (fresh or change.main_changed):
            fields["person_id"] = people[0] if people else None
            fields["org_id"] = companies[0] if companies else None
        elif _ids_of(ObjectName.COMPANY, change.links, ids):
            fields["org_id"] = companies[0]
        if fresh:
            there = {name for name in ("person_id", "org_id") if change.present.get(name)}
            fields = {k: v for k, v in fields.items() if v is not None and k not in there}
        elif _chosen_by_others(change, ids):
            fields.pop("org_id", None)
        result = self._save(change, fields)
        # Whom a colleague made the deal's person stays that; ours stand beside.
        main = change.present.get("person_id") if change.adopted else None
        first = people[0] if people and (fresh or change.main_changed or change.unlinks) else ""
        self._participants(change, result.record_id, str(main or first), people, ids)
        return result

    def _participants(
        self, change: Change, deal_id: str, main: str, people: list[str], ids: dict[Ref, str]
    ) -> None:
        """Whoever is not the deal's own person stands beside it as a participant (v1 only)."""
        path = f"{V1}/deals/{deal_id}/participants"
        wanted = [person for person in people if person != main]
        if not (change.unlinks or change.main_changed or change.adopted):
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
        for person in [*_ids_of(ObjectName.CONTACT, change.unlinks, ids), main]:
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
        return self._save(change, fields)

    def _save(self, change: Change, fields: Fields) -> Result:
        """Create or update; nothing is sent where nothing is to be written."""
        path, known = PATHS[change.ref.object], change.record_id
        body = self._body(change.ref.object, fields)
        if not known:
            self._begun.add(change.ref)
            try:
                created = self._call("POST", path, json=body)["data"]
            except InvalidRecord:
                self._begun.discard(change.ref)
                raise
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
                numbered = f"{name}.{field}" in self._numbered
                body.setdefault("custom_fields", {})[key] = _numbers(value) if numbered else value
            elif field in ("emails", "phones"):
                label = "work" if field == "emails" else "mobile"
                entries = value if isinstance(value, list) else [value] if value else []
                body[field] = [
                    {"value": entry, "primary": number == 0, "label": label}
                    for number, entry in enumerate(entries)
                ]
            elif field == "location":
                body[field] = {"value": value} if value else None
            elif field.endswith("_id") and value is not None:
                body[field] = int(str(value))
            else:
                body[field] = value
        return body

    def _field_keys(self) -> Mapping[str, str]:
        return self._keys if self._keys is not None else self._read_keys()

    def search(self, name: ObjectName, query: Body) -> list[Body]:
        """What the index shows: it lags by seconds, and deleted records linger in it unmarked."""
        answer = self._call("GET", f"{PATHS[name]}/search", params={**query, "limit": 100})
        return [entry["item"] for entry in answer["data"]["items"]]

    def get(self, name: ObjectName, record_id: str) -> Body | None:
        """One record, or None where it was deleted."""
        try:
            found: Body = self._call("GET", f"{PATHS[name]}/{record_id}")["data"]
        except Gone:
            return None
        return None if found.get("is_deleted") or found.get("status") == "deleted" else found

    def many(self, name: ObjectName, query: Body) -> Iterator[Body]:
        """The living records of a list."""
        for item in self._pages(PATHS[name], query):
            if not item.get("is_deleted"):
                yield item

    def values(self, name: ObjectName, item: Body) -> dict[str, FieldValue]:
        """A record's fields under the names that mapping files use, lists and objects flattened."""
        custom = item.get("custom_fields") or {}
        names = {
            key: n.partition(".")[2]
            for n, key in self._field_keys().items()
            if n.startswith(f"{name}.")
        }
        plain = {key: _flat(value) for key, value in item.items() if key != "custom_fields"}
        if item.get("status") in ("won", "lost"):
            # The stage stays what it was: who reads it has to see that the deal is closed.
            plain["stage_id"] = item["status"]
        return plain | {names[key]: _flat(value) for key, value in custom.items() if key in names}

    def key_of(self, name: ObjectName, field: str) -> str:
        """What Pipedrive calls a field: a hash for custom ones."""
        return self._field_keys().get(f"{name}.{field}", field)

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
        allowance = SEARCHES if path.endswith("/search") else CALLS

        def once(token: str) -> Any:
            headers = {**self.access.authorization(token), "Accept": "application/json"}
            try:
                response = self._session.request(method, path, headers, allowance, **kwargs)
            except RateLimited as error:
                raise RateLimited(error.message, error.after or 2.0) from None
            if response.status_code >= 400:
                raise _refusal(response)
            try:
                return response.json()
            except ValueError:
                raise RetryLater("Pipedrive's answer is not JSON.") from None

        return with_token(self.access, once, allowance)


class Finder(KeyFinder):
    """Answers questions about one company account."""

    def __init__(
        self, api: PipedriveAdapter, questions: Sequence[Question], ids: Mapping[Ref, str]
    ) -> None:
        super().__init__(questions, ids)
        self._api = api

    def _hit(self, question: Question, item: Body, by: str) -> Hit:
        values = self._api.values(question.ref.object, item)
        return question, Found(str(item["id"]), values, by, made_at=str(item.get("add_time") or ""))

    def by_id(self, name: ObjectName, wanted: Mapping[str, Question]) -> Iterator[Hit]:
        """One call each: a list costs as much as ten of them."""
        ids = [record_id for record_id in wanted if record_id.isdigit()]
        items = together(self._api.asking, lambda record_id: self._api.get(name, record_id), ids)
        for record_id, item in zip(ids, items, strict=True):
            if item:
                yield self._hit(wanted[record_id], item, "record id")

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Question, Key]]
    ) -> Iterator[Hit]:
        """Search, then read what was found: the index shows deleted records too."""
        if kind is MatchKey.BOOKING:
            begun = together(self._api.asking, lambda entry: list(self._begun(*entry)), asked)
            yield from itertools.chain.from_iterable(begun)
            return

        def look(entry: tuple[Question, Key]) -> list[Body]:
            question, key = entry
            if kind is MatchKey.OPEN_DEAL:
                return list(self._open_deals(key))
            return list(self._searched(name, kind, question, key))

        for (question, _), found in zip(
            asked, together(self._api.asking, look, asked), strict=True
        ):
            for item in found:
                yield self._hit(question, item, kind.replace("_", " "))

    def _searched(
        self, name: ObjectName, kind: MatchKey, question: Question, key: Key
    ) -> Iterator[Body]:
        term, query = key.value, {"exact_match": "true"}
        if kind is MatchKey.DOMAIN:
            # An organization has no domain in v2: its name is what the mapping makes of it.
            term = str(question.content.get("name") or key.value)
            query["fields"] = "name"
        elif kind is MatchKey.FIELD:
            query["fields"] = "custom_fields"
        elif kind is MatchKey.PHONE:
            # Phone numbers are indexed as typed: the national part finds more of them.
            term, query = key.value[-8:], {"fields": "phone"}
        else:
            query["fields"] = "email"
        for hit in self._api.search(name, {"term": term, **query}):
            # Compared again by us: a part of an address is no match.
            if kind is not MatchKey.FIELD and not _is_meant(kind, term, key, hit):
                continue
            item = self._api.get(name, str(hit["id"]))
            wanted = kind is not MatchKey.FIELD or (
                item and str(self._api.values(name, item).get(key.field)).lower() == term.lower()
            )
            if item and wanted:
                yield item

    def _open_deals(self, key: Key) -> Iterator[Body]:
        person = self.id_of(Ref(ObjectName.CONTACT, key.value))
        query = {"person_id": person, "status": "open"}
        for deal in self._api.many(ObjectName.DEAL, query) if person else ():
            if key.field in ("", str(deal.get("pipeline_id"))):
                yield deal

    def _begun(self, question: Question, key: Key) -> Iterator[Hit]:
        """What was begun before: lists do not lag, the search does."""
        name = question.ref.object
        body, title = ("note", "subject") if name is ObjectName.MEETING else ("", "title")
        found = False
        for item in self._candidates(name, question):
            values = self._api.values(name, item)
            by = told_begun(question, key, values, BOOKING_FIELD, body, title)
            if by:
                found = True
                yield self._hit(question, item, by)
        if name is ObjectName.DEAL and BOOKING_FIELD in question.content and not found:
            field = key._replace(field=BOOKING_FIELD)
            for item in self._searched(name, MatchKey.FIELD, question, field):
                yield self._hit(question, item, BY_NUMBER)

    def _candidates(self, name: ObjectName, question: Question) -> Iterator[Body]:
        """What hangs on the deal or the people that it was, or is to be, linked to."""
        ids = self.ids_of(question.anchors)
        deals = [i for i, ref in ids.items() if ref.object is ObjectName.DEAL]
        people = [i for i, ref in ids.items() if ref.object is ObjectName.CONTACT]
        companies = [i for i, ref in ids.items() if ref.object is ObjectName.COMPANY]
        lists = [{"deal_id": i} for i in deals if name is ObjectName.MEETING]
        lists += [{"person_id": i} for i in people] if not lists else []
        lists += [{"org_id": i} for i in companies] if not lists else []
        for query in lists:
            yield from self._api.many(name, query)


def _is_meant(kind: MatchKey, term: str, key: Key, hit: Body) -> bool:
    if kind is MatchKey.DOMAIN:
        return str(hit.get("name", "")).casefold() == term.casefold()
    if kind is MatchKey.PHONE:
        return key.value in map(normalise_phone, hit.get("phones") or ())
    addresses = [normalise_email(entry) for entry in hit.get("emails") or ()]
    # The first address is the person's own; the others are the secondary ones.
    mine = addresses[1:] if kind is MatchKey.SECONDARY_EMAIL else addresses
    return key.value in mine


def _numbers(value: FieldValue) -> Any:
    """Options as v2 takes them: by number."""
    if isinstance(value, list):
        return [int(item) for item in value]
    return int(str(value)) if value is not None else None


def _flat(value: Any) -> FieldValue:
    if isinstance(value, list):
        return [str(item.get("value") if isinstance(item, dict) else item) for item in value]
    if isinstance(value, dict):
        return _flat(value.get("value", value.get("id")))
    return value if isinstance(value, (str, int, float, bool)) else None


def _field(item: Body) -> CrmField:
    custom = bool(CUSTOM_KEY.fullmatch(item["field_code"]))
    options = item.get("options") or ()
    return CrmField(
        # Custom ones under their name, as mapping files write them.
        item["field_name"] if custom else item["field_code"],
        item["field_name"],
        KINDS.get(item["field_type"], Kind.OTHER),
        options=tuple(Choice(str(o["id"]), str(o["label"])) for o in options),
        custom=custom,
        # Only custom fields can be searched, and not all types of them:
        # https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons
        searchable=custom and item["field_type"] in SEARCHABLE,
    )


_NATIVE = frozenset({"name", "title", "subject", "owner_id", "note", "type"})


def _ids_of(name: ObjectName, refs: tuple[Ref, ...], ids: Mapping[Ref, str]) -> list[str]:
    return [ids[ref] for ref in refs if ref.object is name and ref in ids]


def _chosen_by_others(change: Change, ids: Mapping[Ref, str]) -> bool:
    """Whether an organization stands there that is none of those that are to be taken away."""
    there = change.present.get("org_id")
    return bool(there) and str(there) not in _ids_of(ObjectName.COMPANY, change.unlinks, ids)


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
