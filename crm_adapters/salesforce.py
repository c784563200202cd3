"""Salesforce through simple-salesforce: one composite query, then one composite graph, all or nothing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import requests
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceError
from simple_salesforce.format import format_soql

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
    PEOPLE,
    Account,
    Change,
    Choice,
    CrmField,
    CrmShape,
    Directory,
    Fields,
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
from crm_adapters.base import BOOKING_FIELD, Access, Report, unblocked
from crm_adapters.finder import (
    ids_of,
    note_lost_targets,
    oldest_first,
    record_id_in,
    told_begun,
)
from crm_adapters.http import (
    RefusedToken,
    raise_for_outage,
    shorten,
    unreachable,
    with_token,
)
from crm_adapters.wire import WatchedTransport

API_VERSION = "68.0"
"""The one place for the version (Autumn 2026)."""
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
JOINS = {
    ObjectName.DEAL: ("OpportunityContactRole", "OpportunityId", "ContactId"),
    ObjectName.MEETING: ("EventRelation", "EventId", "RelationId"),
}
"""The objects that link further people: name, field of the record, field of the person."""
MARKED = (ObjectName.DEAL, ObjectName.MEETING)
"""Objects that get the booking-id field."""
MERGEABLE = (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.LEAD)
COLUMNS: dict[ObjectName, tuple[str, ...]] = {
    ObjectName.COMPANY: ("Website",),
    ObjectName.CONTACT: ("Email", "Phone", "MobilePhone", "AccountId"),
    ObjectName.LEAD: ("Email", "Phone", "MobilePhone", "ConvertedContactId"),
    ObjectName.DEAL: ("AccountId",),
    ObjectName.CASE: ("AccountId", "ContactId"),
    ObjectName.MEETING: ("WhoId", "WhatId"),
}
"""What is read of every record beside the fields asked for."""
KINDS = {
    # https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/field_types.htm
    "string": Kind.TEXT, "textarea": Kind.TEXT, "email": Kind.TEXT, "phone": Kind.TEXT,
    "url": Kind.TEXT, "double": Kind.NUMBER, "currency": Kind.NUMBER, "percent": Kind.NUMBER,
    "int": Kind.WHOLE, "boolean": Kind.FLAG, "date": Kind.DATE, "datetime": Kind.MOMENT,
    "time": Kind.TIME, "picklist": Kind.CHOICE, "multipicklist": Kind.CHOICES,
    "combobox": Kind.TEXT, "reference": Kind.REFERENCE, "id": Kind.REFERENCE,
}  # fmt: skip
METADATA: dict[Kind, dict[str, Any]] = {
    Kind.TEXT: {"type": "Text", "length": 255},
    Kind.NUMBER: {"type": "Number", "precision": 18, "scale": 2},
    Kind.WHOLE: {"type": "Number", "precision": 18, "scale": 0},
    Kind.FLAG: {"type": "Checkbox", "defaultValue": False},
    Kind.DATE: {"type": "Date"},
    Kind.MOMENT: {"type": "DateTime"},
}
"""How a custom field of each kind is described to the Tooling API."""
MAX_NODES = 500
"""https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_limits.htm"""
MAX_GRAPHS = 75
"""In one call; more than 14 failed ones halt the rest."""
CALLS = Allowance("a second", 25, 1.0, told=False)
"""Salesforce has a budget of 24 hours, told in a header, and no limit a second; this one is ours."""
LIMIT_PAUSE = 900.0
"""Seconds to wait at REQUEST_LIMIT_EXCEEDED: the limit is one of 24 hours, rolling."""
BUSY = {"UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "REQUEST_RUNNING_TOO_LONG", "QUERY_TIMEOUT"}
LOST = {"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"}
Record = dict[str, Any]


class SalesforceAdapter:
    """One Salesforce org."""

    batch_size: ClassVar[int] = MAX_GRAPHS
    asks_ahead: ClassVar[bool] = False
    allowances: ClassVar[Sequence[Allowance]] = (CALLS,)
    shape: ClassVar[CrmShape] = CrmShape(
        objects=tuple(ObjectName),
        native_keys={ObjectName.DEAL: MatchKey.BOOKING},
        match_keys={
            ObjectName.CONTACT: (MatchKey.EMAIL, MatchKey.PHONE),
            ObjectName.LEAD: (MatchKey.EMAIL, MatchKey.PHONE),
            ObjectName.COMPANY: (MatchKey.DOMAIN,),
            ObjectName.DEAL: (MatchKey.OPEN_DEAL,),
        },
        new_fields=dict.fromkeys(SOBJECTS, r"[A-Za-z]\w*__c"),
        owner_fields=dict.fromkeys(ObjectName, "OwnerId"),
        pipeline_field=None,
        stage_field="StageName",
        stage_by_label=True,
        text_limits={
            "contact.FirstName": 40,
            "contact.LastName": 80,
            "contact.Phone": 40,
            "company.Name": 255,
            "company.Website": 255,
            "deal.Name": 120,
            "meeting.Subject": 255,
            "meeting.Location": 255,
            "meeting.Description": 32_000,
        },
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = _Session(access)

    def whoami(self) -> Account:
        """The organization's id and name."""
        row = self.query("SELECT Id, Name FROM Organization LIMIT 1")[0]
        return Account(str(row["Id"]), f"{row['Name']}, org {row['Id']}")

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        self.query(f"SELECT Id FROM {SOBJECTS[name]} LIMIT 1")  # noqa: S608 - names are ours

    def directory(self) -> Directory:
        """Active users, the opportunity's stages, and where the booking-id field is."""
        users = self.query("SELECT Id, Email FROM User WHERE IsActive = true")
        stages = self.query(
            "SELECT ApiName, MasterLabel, IsClosed FROM OpportunityStage"
            " WHERE IsActive = true ORDER BY SortOrder"
        )
        named = tuple(Stage(r["ApiName"], r["MasterLabel"], bool(r["IsClosed"])) for r in stages)
        schema = {
            name: {field.name: field for field in self.describe(name)}
            for name in self.shape.objects
        }
        return Directory(
            owners={user["Email"].lower(): user["Id"] for user in users if user["Email"]},
            pipelines=(Pipeline("opportunity", "Opportunity", named),),
            booking_fields={
                name: KEY for name in (*MARKED, ObjectName.CASE) if KEY in schema[name]
            },
            schema=schema,
        )

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The fields of an object, those that the connected user may see."""
        answer = self.call(lambda sf: sf.restful(f"sobjects/{SOBJECTS[name]}/describe"))
        return [_field(item) for item in answer["fields"]]

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Make the booking-id fields and let the connected user see them.

        Fields made by API are invisible until field-level security grants them:
        https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_fieldpermissions.htm
        """
        done = []
        for name in MARKED:
            if any(field.name == KEY for field in self.describe(name)):
                continue
            metadata = {"type": "Text", "length": 255, "label": "meetergo booking"}
            if name is ObjectName.DEAL:
                metadata |= {"externalId": True, "unique": True, "caseSensitive": True}
            done.append(self._make_field(name, KEY, metadata))
        for field in fields:
            label = field.label or field.name.removesuffix("__c").replace("_", " ")
            done.append(
                self._make_field(field.object, field.name, {"label": label, **METADATA[field.kind]})
            )
        return done

    def _make_field(self, name: ObjectName, field: str, metadata: Record) -> str:
        # Custom fields of events are made on Activity.
        owner = "Activity" if name is ObjectName.MEETING else SOBJECTS[name]
        body = {"FullName": f"{owner}.{field}", "Metadata": metadata}
        self.call(_post("tooling/sobjects/CustomField", body))
        self._grant(SOBJECTS[name], field)
        return f"Salesforce: field {field} made on {owner} and shown to the connected user"

    def _grant(self, sobject: str, field: str) -> None:
        label = "meetergo_bridge"
        found = self.query(format_soql("SELECT Id FROM PermissionSet WHERE Name = {}", label))
        if found:
            grant = found[0]["Id"]
        else:
            body: Record = {"Name": label, "Label": "meetergo bridge"}
            grant = self.call(_post("sobjects/PermissionSet", body))["id"]
            user = self.call(lambda sf: sf.oauth2("userinfo", method="GET"))["user_id"]
            body = {"PermissionSetId": grant, "AssigneeId": user}
            self.call(_post("sobjects/PermissionSetAssignment", body))
        row: Record = {
            "ParentId": grant,
            "SobjectType": sobject,
            "Field": f"{sobject}.{field}",
            "PermissionsRead": True,
            "PermissionsEdit": True,
        }
        self.call(_post("sobjects/FieldPermissions", row))

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Address of a record in Lightning."""
        return f"{self.access.api_base}/lightning/r/{SOBJECTS[name]}/{record_id}/view"

    def apply(self, plan: Plan, report: Report) -> None:
        """Write everything in one call, as far as it holds together."""
        links = _Links(self, plan)
        waiting = list(plan.changes)
        place = {change.ref: number for number, change in enumerate(waiting)}
        # A refused record is set aside with what hangs on it, and the rest is sent again.
        while waiting:
            waiting = unblocked(_small_enough(waiting, report), report)
            graphs = _connected(waiting, set(links.ids))
            # What does not fit into one graph waits for the ids of what it hangs on.
            waiting = [change for graph in graphs for change in graph[_fitting(graph) :]]
            for batch in _packed([graph[: _fitting(graph)] for graph in graphs]):
                waiting += self._send(batch, links, report, plan.assign)
            # What others hang on comes before them, as it did in the plan.
            waiting.sort(key=lambda change: place[change.ref])
        note_lost_targets(self.find, plan, report)

    def find(self, questions: Sequence[Question], ids: Mapping[Ref, str]) -> Findings:
        """Ask everything about all objects in one call, and again where a key found nothing."""
        return _Finder(self, questions, ids).run()

    def _send(
        self, batch: list[list[Change]], links: _Links, report: Report, assign: bool
    ) -> list[Change]:
        """Send graphs in one call; give the changes that have to be sent again."""
        graphs = [_Graph(number, changes, links) for number, changes in enumerate(batch)]
        busy = [graph for graph in graphs if graph.nodes]
        for graph in graphs:
            if not graph.nodes:
                graph.finish(report, {})
        if not busy:
            return []
        report.begun.update(change.ref for graph in busy for change in graph.changes)
        body = {"graphs": [graph.body for graph in busy]}
        answer = self.call(_post("composite/graph", body, assign))
        by_id = {entry["graphId"]: entry for entry in answer["graphs"]}
        again: list[Change] = []
        halted = 0
        for graph in busy:
            entry = by_id[graph.body["graphId"]]
            nodes = {n["referenceId"]: n for n in entry["graphResponse"]["compositeResponse"]}
            if entry["isSuccessful"]:
                graph.finish(report, nodes)
                continue
            graph.blame(report, nodes)
            # All or nothing: what stands in a graph that failed was not made.
            report.begun.difference_update(change.ref for change in graph.changes)
            halted += graph.halted
            again += [change for change in graph.changes if change.ref not in report.problems]
        if halted == len(busy):
            raise RetryLater("Salesforce halted the whole batch.")
        return again

    def query(self, soql: str) -> list[Record]:
        """Every row of a query."""
        rows: list[Record] = self.call(lambda sf: sf.query_all(soql)["records"])
        return rows

    def queries(self, soql: Mapping[str, str], resource: str = "query") -> dict[str, list[Record]]:
        """Rows of several queries, five to a call: composite takes no more.

        `queryAll` as the resource shows deleted and merged records too.
        """
        rows: dict[str, list[Record]] = {}
        names = list(soql)
        for start in range(0, len(names), 5):
            requests_ = [
                {
                    "method": "GET",
                    "referenceId": name,
                    "url": f"{DATA}/{resource}?{urlencode({'q': soql[name]})}",
                }
                for name in names[start : start + 5]
            ]
            body = {"allOrNone": False, "compositeRequest": requests_}
            answer = self.call(_post("composite", body))
            for part in answer["compositeResponse"]:
                # A read that failed is not 'nobody found': it would make duplicates.
                if part["httpStatusCode"] != 200:
                    raise _error(part["httpStatusCode"], part["body"])
                rows[part["referenceId"]] = part["body"]["records"]
        return rows

    def call(self, do: Callable[[Salesforce], Any]) -> Any:
        """Do something with the client, with a valid token and our errors."""

        def once(token: str) -> Any:
            client = Salesforce(
                instance_url=self.access.api_base,
                session_id=token,
                version=API_VERSION,
                session=self._session,
            )
            try:
                return do(client)
            except SalesforceError as error:
                raise _error(error.status, error.content) from None
            except requests.RequestException as error:
                raise unreachable(error) from None

        return with_token(self.access, once)


class _Session(requests.Session):
    """Counts calls, sets the timeout, and goes to a plain-http API base where one is set.

    simple-salesforce always writes https://.
    """

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access
        for scheme in ("https://", "http://"):
            self.mount(scheme, WatchedTransport(access.gate))

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        self._access.enter(CALLS)
        kwargs.setdefault("timeout", self._access.timeout)
        kwargs["allow_redirects"] = False
        if self._access.api_base.startswith("http://"):
            url = str(url).replace("https://", "http://", 1)
        response = super().request(method, url, *args, **kwargs)
        self._access.answered(CALLS, response.headers)
        raise_for_outage(response.status_code, response.headers, response.text)
        self._access.meter.count(answered=True)
        return response


class _Finder:
    """Answers questions about one org: the next key of every question goes into one call."""

    def __init__(
        self, api: SalesforceAdapter, questions: Sequence[Question], ids: Mapping[Ref, str]
    ) -> None:
        self._api = api
        self._ids = ids
        self._left = {q.ref: [*_own_id(q), *q.keys] for q in questions}
        self._questions = {q.ref: q for q in questions}
        self._roles: list[Record] = []
        self.findings = Findings(asked=frozenset(self._questions))

    def run(self) -> Findings:
        """Answer everything."""
        while True:
            asked: dict[tuple[ObjectName, MatchKey, str], list[tuple[Question, Key]]] = {}
            people = any(keys and ref.object in PEOPLE for ref, keys in self._left.items())
            waiting = {ref for ref, keys in self._left.items() if keys}
            for ref, keys in self._left.items():
                if not keys or self._waits(self._questions[ref], keys[0], people, waiting):
                    continue
                key = keys.pop(0)
                field = key.field if key.kind is MatchKey.FIELD else ""
                part = asked.setdefault((ref.object, key.kind, field), [])
                part.append((self._questions[ref], key))
            if not asked:
                break
            self._ask(asked)
            for ref in self.findings.found:
                self._left[ref] = []
        oldest_first(self.findings)
        return self.findings

    def _waits(self, question: Question, key: Key, people: bool, waiting: set[Ref]) -> bool:
        """Whether a record is found through others that are still being looked for."""
        if key.kind is MatchKey.OPEN_DEAL:
            return people
        marked = key.kind is not MatchKey.BOOKING or KEY in question.content
        return not marked and any(ref in waiting for ref in question.anchors)

    def _ask(
        self, asked: Mapping[tuple[ObjectName, MatchKey, str], list[tuple[Question, Key]]]
    ) -> None:
        soql, parts = {}, {}
        for number, ((name, kind, field), part) in enumerate(asked.items()):
            where = self._where(name, kind, field, part)
            if where:
                fields = {f for question, _ in part for f in question.fields if f != "Id"}
                columns = sorted(
                    {"Id", "CreatedDate", *COLUMNS[name], *fields, *([field] if field else [])}
                )
                soql[f"q{number}"] = (
                    f"SELECT {', '.join(columns)} FROM {SOBJECTS[name]}"  # noqa: S608 - names are ours
                    f" WHERE {where} ORDER BY CreatedDate"
                )
                parts[f"q{number}"] = (name, kind, part)
        lost: dict[ObjectName, list[tuple[Question, Key]]] = {}
        for query, rows in self._api.queries(soql).items():
            name, kind, part = parts[query]
            for question, key in part:
                hits = [
                    (row, by) for row in rows if (by := self._told_by(question, kind, key, row))
                ]
                for row, by in hits:
                    self._note(question, by, row)
                if kind is MatchKey.RECORD_ID and not hits and name in MERGEABLE:
                    lost.setdefault(name, []).append((question, key))
        if lost:
            self._follow(lost)

    def _where(
        self, name: ObjectName, kind: MatchKey, field: str, part: list[tuple[Question, Key]]
    ) -> str:
        """The condition that finds everything asked for by one kind of key; empty for nothing."""
        values = [key.value for _, key in part]
        condition, found = "", list[str]()
        if kind is MatchKey.RECORD_ID:
            condition, found = "Id IN {}", [i for v in values if (i := record_id_in(v))]
        elif kind is MatchKey.EMAIL:
            condition, found = "Email IN {}", values
        elif kind is MatchKey.PHONE:
            condition = "Phone IN {0} OR MobilePhone IN {0}"
            found = [form for value in values for form in _phone_forms(value)]
        elif kind is MatchKey.DOMAIN:
            condition, found = "Website IN {}", [f for v in values for f in _site_forms(v)]
        elif kind is MatchKey.FIELD:
            condition, found = f"{field} IN {{}}", values
        elif kind is MatchKey.OPEN_DEAL:
            condition, found = "IsClosed = false AND Id IN {}", self._deals_of(values)
        elif kind is MatchKey.BOOKING:
            condition = f"{KEY} IN {{}}"
            found = [key.value for question, key in part if KEY in question.content]
            if not found:
                condition, found = self._around(name, part)
        return str(format_soql(condition, found)) if found else ""

    def _around(self, name: ObjectName, part: list[tuple[Question, Key]]) -> tuple[str, list[str]]:
        """What hangs on the records that a begun one was linked to: there is no booking-id field."""
        refs = dict.fromkeys(ref for question, _ in part for ref in question.anchors)
        ids = ids_of(list(refs), self._ids, self.findings)
        people = [i for i, ref in ids.items() if ref.object in PEOPLE]
        if name is ObjectName.DEAL:
            return "Id IN {}", self._deals_of([r.key for r in ids.values() if r.object in PEOPLE])
        if name is ObjectName.CASE:
            return "ContactId IN {}", people
        return "WhatId IN {0} OR WhoId IN {0}", list(ids)

    def _deals_of(self, identities: list[str]) -> list[str]:
        people = [i for v in identities if (i := self._id_of(Ref(ObjectName.CONTACT, v)))]
        if people:
            text = (
                "SELECT OpportunityId, ContactId FROM OpportunityContactRole WHERE ContactId IN {}"
            )
            self._roles = self._api.queries({"roles": format_soql(text, people)})["roles"]
        return sorted({row["OpportunityId"] for row in self._roles})

    def _told_by(self, question: Question, kind: MatchKey, key: Key, row: Record) -> str:
        """By what a row answers a question, in words; empty where it answers another one."""
        if kind is MatchKey.BOOKING:
            title = "Name" if question.ref.object is ObjectName.DEAL else "Subject"
            return told_begun(question, key, row, KEY, "Description", title)
        return kind.replace("_", " ") if self._is_meant(kind, key, row) else ""

    def _is_meant(self, kind: MatchKey, key: Key, row: Record) -> bool:
        """Compared again by us, since one query asks for many."""
        if kind is MatchKey.OPEN_DEAL:
            person = self._id_of(Ref(ObjectName.CONTACT, key.value))
            return (row["Id"], person) in {
                (r["OpportunityId"], r["ContactId"]) for r in self._roles
            }
        phones = [normalise_phone(row.get(name)) for name in ("Phone", "MobilePhone")]
        there: dict[MatchKey, list[str | None]] = {
            MatchKey.EMAIL: [normalise_email(row.get("Email"))],
            MatchKey.PHONE: phones,
            MatchKey.DOMAIN: [_site_domain(row.get("Website") or "")],
            MatchKey.FIELD: [str(row.get(key.field) or "").lower()],
            MatchKey.RECORD_ID: [str(row["Id"])[:15]],
        }
        value = key.value.lower() if kind is MatchKey.FIELD else key.value
        return (record_id_in(value)[:15] if kind is MatchKey.RECORD_ID else value) in there[kind]

    def _note(self, question: Question, by: str, row: Record) -> None:
        values = {k: v for k, v in row.items() if k not in ("attributes", "Id")}
        made = str(row["CreatedDate"])
        contact = row.get("ConvertedContactId")
        if contact:
            became = Ref(ObjectName.CONTACT, question.ref.key)
            found = Found(contact, {}, "converted lead", became, made)
        else:
            found = Found(row["Id"], values, by, made_at=made)
        self.findings.add(question.ref, found)

    def _follow(self, lost: Mapping[ObjectName, list[tuple[Question, Key]]]) -> None:
        """Look whether what is gone was merged, and into what."""
        soql = {
            name.value: format_soql(
                f"SELECT Id, MasterRecordId FROM {SOBJECTS[name]} WHERE Id IN {{}}",  # noqa: S608 - names are ours
                [i for _, key in part if (i := record_id_in(key.value))],
            )
            for name, part in lost.items()
        }
        for name, rows in self._api.queries(soql, "queryAll").items():
            masters = {str(row["Id"])[:15]: row.get("MasterRecordId") for row in rows}
            for question, key in lost[ObjectName(name)]:
                master = masters.get(record_id_in(key.value)[:15])
                if master:
                    again = Key(MatchKey.RECORD_ID, master)
                    self._left[question.ref].insert(0, again)

    def _id_of(self, ref: Ref) -> str | None:
        return self._ids.get(ref) or self.findings.first(ref)


def _own_id(question: Question) -> list[Key]:
    return [Key(MatchKey.RECORD_ID, question.record_id)] if question.record_id else []


class _Links:
    """Ids as they come to be, and the rows that link people where some are to be taken away."""

    def __init__(self, api: SalesforceAdapter, plan: Plan) -> None:
        self.ids = dict(plan.ids)
        self.joins: dict[tuple[str, str], str] = {}
        """(record id, contact id) -> id of the row that links them."""
        known = {c.ref: c.record_id for c in plan.changes if c.record_id}
        self.ids.update(known)
        soql = {}
        for name, (table, key, other) in JOINS.items():
            ids = [
                c.record_id
                for c in plan.of(name)
                if c.record_id and (c.unlinks or c.main_changed or c.adopted)
            ]
            if ids:
                text = f"SELECT Id, {key}, {other} FROM {table} WHERE {key} IN {{}}"  # noqa: S608 - names are ours
                soql[table] = format_soql(text, ids)
        for rows in api.queries(soql).values():
            for row in rows:
                record = str(row.get("OpportunityId") or row.get("EventId"))
                person = str(row.get("ContactId") or row.get("RelationId"))
                self.joins[record, person] = row["Id"]


class _Graph:
    """One all-or-nothing group of changes as nodes of a composite graph."""

    def __init__(self, number: int, changes: list[Change], links: _Links) -> None:
        self.changes = changes
        self._links = links
        self._refs: dict[str, Ref] = {}
        self._made: dict[Ref, str] = {}
        self.nodes: list[Record] = []
        self.halted = False
        """Whether it was not tried, since too many others had failed."""
        for change in changes:
            self._add(change)
        self.body = {"graphId": f"g{number}", "compositeRequest": self.nodes}

    def _add(self, change: Change) -> None:
        name, known = change.ref.object, change.record_id
        if change.delete:
            self._node(change.ref, "DELETE", f"sobjects/{SOBJECTS[name]}/{known}")
            return
        fields = {key: _plain(value) for key, value in change.fields.items()}
        self._point(change, fields)
        self._unjoin(change, known)
        if known:
            if fields:
                self._node(change.ref, "PATCH", f"sobjects/{SOBJECTS[name]}/{known}", fields)
        elif name is ObjectName.DEAL and KEY in fields:
            value = quote(str(fields.pop(KEY)), safe="")
            path = f"sobjects/Opportunity/{KEY}/{value}"
            self._made[change.ref] = self._node(change.ref, "PATCH", path, fields)
        else:
            path = f"sobjects/{SOBJECTS[name]}"
            self._made[change.ref] = self._node(change.ref, "POST", path, fields)
        self._join(change, known)

    def _point(self, change: Change, fields: dict[str, Any]) -> None:
        """Set the reference fields that a record carries itself."""
        if not change.relinked:
            return
        first = {
            kind: next((self._id(ref) for ref in change.targets if ref.object is kind), None)
            for kind in ObjectName
        }
        person, company = first[ObjectName.CONTACT], first[ObjectName.COMPANY]
        points: dict[str, str | None] = {}
        if change.ref.object in (ObjectName.CONTACT, ObjectName.DEAL):
            points = {"AccountId": company}
        elif change.ref.object is ObjectName.CASE:
            points = {"AccountId": company, "ContactId": person}
        elif change.ref.object is ObjectName.MEETING:
            main = next((ref for ref in change.targets if ref.object in PEOPLE), None)
            what = first[ObjectName.DEAL] or first[ObjectName.CASE] or company
            # An event with a lead may stand for nothing else (FIELD_INTEGRITY_EXCEPTION).
            by_lead = main is not None and main.object is ObjectName.LEAD
            who = self._id(main) if main else None
            points = {"WhoId": who, "WhatId": None if by_lead else what}
        for field, target in points.items():
            if self._stands(change, field):
                continue
            empty = target is None and (
                change.ref.object is ObjectName.CONTACT or not change.record_id
            )
            if not empty and not (change.adopted and target is None):
                fields[field] = target

    def _stands(self, change: Change, field: str) -> bool:
        """Whether what a record points to is to stay: a person's choice, or nothing new."""
        there = change.present.get(field)
        if not change.record_id or change.adopted:
            return bool(there)
        if change.ref.object is ObjectName.MEETING or change.main_changed:
            new = True
        else:
            links = {ref.object for ref in change.links}
            new = field == "AccountId" and ObjectName.COMPANY in links
        ours = [self._links.ids.get(ref) for ref in change.unlinks]
        others = field == "AccountId" and bool(there) and there not in ours
        return others or not new

    def _unjoin(self, change: Change, known: str | None) -> None:
        """Take away who left, and who is to become a meeting's main person."""
        gone = [self._links.ids[r] for r in change.unlinks if r in self._links.ids]
        people = [ref for ref in change.targets if ref.object is ObjectName.CONTACT]
        if change.ref.object is ObjectName.MEETING and people:
            gone += [self._links.ids[ref] for ref in people[:1] if ref in self._links.ids]
        for person in gone:
            row = self._links.joins.get((known or "", person))
            if row:
                table = JOINS[change.ref.object][0]
                self._node(change.ref, "DELETE", f"sobjects/{table}/{row}")

    def _join(self, change: Change, known: str | None) -> None:
        """Link the people beyond what a record's own fields can say."""
        name = change.ref.object
        if name not in JOINS or not change.relinked:
            return
        table = JOINS[name][0]
        people = [ref for ref in change.targets if ref.object is ObjectName.CONTACT]
        if name is ObjectName.MEETING and any(r.object is ObjectName.LEAD for r in change.targets):
            # An event takes one lead or many contacts.
            people = people[:1]
        # The main person of a deal that others have made is theirs to choose.
        chosen = change.record_id and not change.main_changed
        chosen = chosen and (not change.adopted or any(r == known for r, _ in self._links.joins))
        for number, ref in enumerate(people):
            person = self._id(ref)
            row = self._links.joins.get((known or "", person))
            if name is ObjectName.DEAL and row and change.main_changed:
                body: Record = {"IsPrimary": number == 0}
                self._node(change.ref, "PATCH", f"sobjects/{table}/{row}", body)
            if row or (name is ObjectName.MEETING and number == 0):
                continue
            if ref not in change.links and not change.main_changed:
                continue
            record = known or f"@{{{self._made[change.ref]}.id}}"
            body = (
                {"OpportunityId": record, "ContactId": person, "IsPrimary": not (number or chosen)}
                if name is ObjectName.DEAL
                else {"EventId": record, "RelationId": person, "IsParent": True, "IsWhat": False}
            )
            self._node(change.ref, "POST", f"sobjects/{table}", body)

    def _id(self, ref: Ref) -> str:
        if ref in self._made:
            return f"@{{{self._made[ref]}.id}}"
        return self._links.ids[ref]

    def _node(self, ref: Ref, method: str, path: str, body: Fields | None = None) -> str:
        name = f"n{len(self.nodes)}"
        node: Record = {"method": method, "url": f"{DATA}/{path}", "referenceId": name}
        if body is not None:
            node["body"] = dict(body)
        self.nodes.append(node)
        self._refs[name] = ref
        return name

    def finish(self, report: Report, answers: Mapping[str, Record]) -> None:
        """Note what every change came to."""
        touched = set(self._refs.values())
        for change in self.changes:
            node = self._made.get(change.ref)
            if node:
                answer = answers[node]
                fresh = answer["httpStatusCode"] == 201
                result = Result(answer["body"]["id"], Outcome.CREATED if fresh else Outcome.UPDATED)
            else:
                outcome = Outcome.UPDATED if change.ref in touched else Outcome.UNCHANGED
                outcome = Outcome.DELETED if change.delete else outcome
                result = Result(self._links.ids[change.ref], outcome)
            self._links.ids[change.ref] = result.record_id
            report.results[change.ref] = result

    def blame(self, report: Report, answers: Mapping[str, Record]) -> None:
        """Find the record that a graph failed for, if it did not fail for others' sake."""
        for name, ref in self._refs.items():
            node = answers.get(name)
            if node is None or node["httpStatusCode"] < 300:
                continue
            codes = {entry.get("errorCode") for entry in _entries(node["body"])}
            if codes == {"PROCESSING_HALTED"}:
                continue
            error = _error(node["httpStatusCode"], node["body"])
            if not isinstance(error, CrmError):
                raise error
            if isinstance(error, Gone):
                error.record_id = self._links.ids.get(ref, "")
            report.problems[ref] = error
            return
        # It only came after too many others had failed: those are sent without it first.
        self.halted = True


def _connected(changes: list[Change], known: set[Ref]) -> list[list[Change]]:
    """Group changes that refer to each other's new records: a graph cannot see another's."""
    group: dict[Ref, list[Change]] = {}
    for change in changes:
        mine = [change]
        for ref in change.targets:
            other = group.get(ref)
            if other is not None and other is not mine and ref not in known:
                other += mine
                for member in mine:
                    group[member.ref] = other
                mine = other
        group[change.ref] = mine
    return list({id(members): members for members in group.values()}.values())


def _size(change: Change) -> int:
    """The most nodes that a change takes: itself, and a row for everybody whom it links or unlinks."""
    if change.ref.object not in JOINS:
        return 1
    people = sum(ref.object is ObjectName.CONTACT for ref in change.targets)
    rows = people * (2 if change.record_id else 1) + len(change.unlinks)
    return 1 + rows - (change.ref.object is ObjectName.MEETING and not change.record_id)


def _small_enough(changes: list[Change], report: Report) -> list[Change]:
    """The changes that one call can make; of the others it is noted that Salesforce takes no such."""
    for change in changes:
        if _size(change) > MAX_NODES:
            words = f"The {change.ref.object} has more people than Salesforce links in one call."
            report.problems[change.ref] = InvalidRecord(words)
    return [change for change in changes if change.ref not in report.problems]


def _fitting(graph: list[Change]) -> int:
    """How many of a graph's changes fit into one call; each comes after what it hangs on."""
    sizes = itertools.accumulate(map(_size, graph))
    return sum(size <= MAX_NODES for size in sizes)


def _packed(graphs: list[list[Change]]) -> Iterable[list[list[Change]]]:
    """Fill calls with graphs up to the limits of nodes and graphs."""
    batch: list[list[Change]] = []
    size = 0
    for graph in graphs:
        nodes = sum(map(_size, graph))
        if batch and (size + nodes > MAX_NODES or len(batch) >= MAX_GRAPHS):
            yield batch
            batch, size = [], 0
        batch.append(graph)
        size += nodes
    if batch:
        yield batch


def _post(path: str, body: Record, assign: bool = False) -> Callable[[Salesforce], Any]:
    headers = {
        # A stranger who shares a name with somebody is no duplicate: an alert rule must not stop him.
        "Sforce-Duplicate-Rule-Header": "allowSave=true",
        # Left out it means TRUE: an assignment rule would take leads and cases from their owner.
        # https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_autoassign.htm
        "Sforce-Auto-Assign": str(assign).upper(),
    }
    return lambda sf: sf.restful(path, method="POST", json=body, headers=headers)


def _field(item: Record) -> CrmField:
    options = [o for o in item.get("picklistValues") or () if o.get("active", True)]
    kind = KINDS.get(item["type"], Kind.OTHER)
    # A list that is not restricted takes any text.
    if kind is Kind.CHOICE and not (options and item.get("restrictedPicklist")):
        kind = Kind.TEXT
    return CrmField(
        item["name"],
        item["label"],
        kind,
        required=not (item["nillable"] or item["defaultedOnCreate"]) and item["type"] != "boolean",
        unique=bool(item.get("unique")),
        writable=bool(item["createable"]),
        options=tuple(Choice(o["value"], o.get("label") or o["value"]) for o in options),
        length=item.get("length") or None,
        custom=bool(item.get("custom")),
        searchable=bool(item.get("filterable", True)),
    )


def _plain(value: Any) -> Any:
    """A value as the API takes it: empty is null, and several choices are one text."""
    if isinstance(value, list):
        return ";".join(value)
    return None if value == "" else value


def _phone_forms(phone: str) -> list[str]:
    return [phone, phone.lstrip("+"), "00" + phone.lstrip("+")]


def _site_forms(domain: str | None) -> list[str]:
    return [
        f"{scheme}{www}{domain}{slash}"
        for scheme in ("", "http://", "https://")
        for www in ("", "www.")
        for slash in ("", "/")
    ]


def _site_domain(website: str) -> str:
    return re.sub(r"^(https?://)?(www\.)?|/$", "", website.strip().lower())


def _entries(content: Any) -> list[Record]:
    entries = content if isinstance(content, list) else [content]
    return [entry for entry in entries if isinstance(entry, dict)]


def _error(status: int, content: Any) -> Exception:  # noqa: PLR0911 - one line a kind of error
    """Our error for a list of Salesforce's: [{errorCode, message, fields}]."""
    entries = _entries(content)
    first = entries[0] if entries else {}
    code = str(first.get("errorCode") or first.get("error") or "")
    words = shorten(str(first.get("message") or first.get("error_description") or content))
    message = f"{code}: {words}" if code else words
    if status == 401 or code == "INVALID_SESSION_ID":
        return RefusedToken(message)
    if code == "REQUEST_LIMIT_EXCEEDED":
        return RateLimited(message, LIMIT_PAUSE)
    if code in BUSY or status >= 500:
        return RetryLater(message)
    if code in LOST or (status == 404 and code != "INVALID_FIELD"):
        return Gone(message)
    if code in {"DUPLICATE_VALUE", "DUPLICATES_DETECTED"}:
        match = re.search(r"id: (\w{15,18})", str(first.get("message")))
        return Conflict(message, match[1] if match else None)
    if code in {"API_DISABLED_FOR_ORG", "INSUFFICIENT_SCOPE"}:
        return MissingScope(message)
    return InvalidRecord(message, {str(name): words for name in first.get("fields") or ()})
