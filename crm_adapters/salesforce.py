"""Salesforce through simple-salesforce: one composite query, then one composite graph, all or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import requests
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceError
from simple_salesforce.format import format_soql

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
from crm_adapters.http import (
    RefusedToken,
    note_limits,
    raise_for_outage,
    shorten,
    unreachable,
    with_token,
)

API_VERSION = "68.0"
"""The one place for the version (Autumn 2026)."""
DATA = f"/services/data/v{API_VERSION}"
KEY = f"{BOOKING_FIELD}__c"
SOBJECTS = {
    ObjectName.COMPANY: "Account",
    ObjectName.CONTACT: "Contact",
    ObjectName.DEAL: "Opportunity",
    ObjectName.MEETING: "Event",
}
JOINS = {
    ObjectName.DEAL: ("OpportunityContactRole", "OpportunityId", "ContactId"),
    ObjectName.MEETING: ("EventRelation", "EventId", "RelationId"),
}
"""The objects that link further people: name, field of the record, field of the person."""
MAX_NODES = 500
"""https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_limits.htm"""
LIMIT_PAUSE = 900.0
"""Seconds to wait at REQUEST_LIMIT_EXCEEDED: the limit is one of 24 hours, rolling."""
BUSY = {"UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "REQUEST_RUNNING_TOO_LONG", "QUERY_TIMEOUT"}
LOST = {"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"}
Record = dict[str, Any]


class SalesforceAdapter:
    """One Salesforce org."""

    batch_size: ClassVar[int] = 25
    shape: ClassVar[CrmShape] = CrmShape(
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
            "SELECT ApiName, MasterLabel FROM OpportunityStage"
            " WHERE IsActive = true ORDER BY SortOrder"
        )
        named = tuple(Stage(row["ApiName"], row["MasterLabel"]) for row in stages)
        return Directory(
            owners={user["Email"].lower(): user["Id"] for user in users if user["Email"]},
            pipelines=(Pipeline("opportunity", "Opportunity", named),),
            booking_fields={
                name: KEY
                for name in (ObjectName.DEAL, ObjectName.MEETING)
                if any(field.name == KEY for field in self.describe(name))
            },
        )

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The fields of an object, those that the connected user may see."""
        answer = self.call(lambda sf: sf.restful(f"sobjects/{SOBJECTS[name]}/describe"))
        return [
            CrmField(
                item["name"],
                item["label"],
                item["type"],
                required=not (item["nillable"] or item["defaultedOnCreate"]),
                unique=bool(item.get("unique")),
                writable=bool(item["createable"]),
                options=tuple(o["value"] for o in item.get("picklistValues") or ()),
            )
            for item in answer["fields"]
        ]

    def provision(self) -> list[str]:
        """Make the booking-id fields and let the connected user see them.

        Fields made by API are invisible until field-level security grants them:
        https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_fieldpermissions.htm
        """
        done = []
        # Custom fields of events are made on Activity.
        for name, owner in ((ObjectName.DEAL, "Opportunity"), (ObjectName.MEETING, "Activity")):
            if any(field.name == KEY for field in self.describe(name)):
                continue
            unique = name is ObjectName.DEAL
            metadata = {"type": "Text", "length": 255, "label": "meetergo booking"}
            if unique:
                metadata |= {"externalId": True, "unique": True, "caseSensitive": True}
            body = {"FullName": f"{owner}.{KEY}", "Metadata": metadata}
            self.call(_post("tooling/sobjects/CustomField", body))
            self._grant(SOBJECTS[name])
            done.append(f"Salesforce: field {KEY} made on {owner} and shown to the connected user")
        return done

    def _grant(self, sobject: str) -> None:
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
        body = {
            "ParentId": grant,
            "SobjectType": sobject,
            "Field": f"{sobject}.{KEY}",
            "PermissionsRead": True,
            "PermissionsEdit": True,
        }
        self.call(_post("sobjects/FieldPermissions", body))

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Address of a record in Lightning."""
        return f"{self.access.api_base}/lightning/r/{SOBJECTS[name]}/{record_id}/view"

    def apply(self, plan: Plan, report: Report) -> None:
        """Look up what is not known in one call, write everything in another."""
        lookup = _Lookup(self, plan)
        lookup.run()
        waiting = list(plan.changes)
        # A refused record is set aside with what hangs on it, and the rest is sent again.
        while waiting:
            waiting = _set_aside_blocked(waiting, report)
            graphs = _connected(waiting, set(plan.ids) | set(lookup.found))
            waiting = []
            for batch in _packed(graphs):
                waiting += self._send(batch, lookup, report)

    def _send(self, batch: list[list[Change]], lookup: _Lookup, report: Report) -> list[Change]:
        """Send graphs in one call; give the changes that have to be sent again."""
        graphs = [_Graph(number, changes, lookup) for number, changes in enumerate(batch)]
        busy = [graph for graph in graphs if graph.nodes]
        for graph in graphs:
            if not graph.nodes:
                graph.finish(report, {})
        if not busy:
            return []
        report.begun.update(change.ref for graph in busy for change in graph.changes)
        body = {"graphs": [graph.body for graph in busy]}
        answer = self.call(_post("composite/graph", body))
        by_id = {entry["graphId"]: entry for entry in answer["graphs"]}
        again: list[Change] = []
        for graph in busy:
            entry = by_id[graph.body["graphId"]]
            nodes = {n["referenceId"]: n for n in entry["graphResponse"]["compositeResponse"]}
            if entry["isSuccessful"]:
                graph.finish(report, nodes)
                continue
            graph.blame(report, nodes)
            again += [change for change in graph.changes if change.ref not in report.problems]
        return again

    def query(self, soql: str) -> list[Record]:
        """Every row of a query."""
        rows: list[Record] = self.call(lambda sf: sf.query_all(soql)["records"])
        return rows

    def queries(self, soql: Mapping[str, str]) -> dict[str, list[Record]]:
        """Rows of several queries, five to a call: composite takes no more."""
        rows: dict[str, list[Record]] = {}
        names = list(soql)
        for start in range(0, len(names), 5):
            requests_ = [
                {
                    "method": "GET",
                    "referenceId": name,
                    "url": f"{DATA}/query?{urlencode({'q': soql[name]})}",
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

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        self._access.meter.calls += 1
        kwargs.setdefault("timeout", self._access.timeout)
        kwargs["allow_redirects"] = False
        if self._access.api_base.startswith("http://"):
            url = str(url).replace("https://", "http://", 1)
        response = super().request(method, url, *args, **kwargs)
        note_limits(self._access.meter, response.headers)
        raise_for_outage(response.status_code, response.headers, response.text)
        return response


class _Lookup:
    """What has to be read before writing: who is there already, and links to take away."""

    def __init__(self, api: SalesforceAdapter, plan: Plan) -> None:
        self._api = api
        self._plan = plan
        self.found: dict[Ref, str] = {}
        self.ids = dict(plan.ids)
        self.joins: dict[tuple[str, str], str] = {}
        """(record id, contact id) -> id of the row that links them."""

    def run(self) -> None:
        """Ask all questions of the first round in one call; doubtful creates need a second."""
        new = [change for change in self._plan.changes if not change.record_id]
        rows = self._api.queries(self._first_questions(new))
        self._contacts(new, rows.get("emails", []) + rows.get("phones", []))
        self._accounts(new, rows.get("accounts", []))
        for name in (ObjectName.DEAL, ObjectName.MEETING):
            for row in rows.get(f"begun_{name}", []):
                self.found[Ref(name, row[KEY])] = row["Id"]
        self.ids.update(self.found)
        linked = [
            (change.ref.object, self.ids[change.ref])
            for change in self._plan.changes
            if change.unlinks or change.main_changed or change.ref in self.found
        ]
        self._read_joins(linked)

    def _first_questions(self, new: list[Change]) -> dict[str, str]:
        people = [c.match for c in new if c.ref.object is ObjectName.CONTACT]
        emails = [match.email for match in people if match.email]
        phones = [form for m in people if not m.email and m.phone for form in _phone_forms(m.phone)]
        sites = [f for c in new for f in _site_forms(c.match.domain) if c.match.domain]
        soql = {}
        if emails:
            text = "SELECT Id, Email FROM Contact WHERE Email IN {} ORDER BY CreatedDate"
            soql["emails"] = format_soql(text, emails)
        if phones:
            text = (
                "SELECT Id, Phone, MobilePhone FROM Contact"
                " WHERE Phone IN {phones} OR MobilePhone IN {phones} ORDER BY CreatedDate"
            )
            soql["phones"] = format_soql(text, phones=phones)
        if sites:
            text = "SELECT Id, Website FROM Account WHERE Website IN {} ORDER BY CreatedDate"
            soql["accounts"] = format_soql(text, sites)
        for name in (ObjectName.DEAL, ObjectName.MEETING):
            begun = [c.match.booking_id for c in new if c.ref.object is name and c.uncertain]
            if begun and any(KEY in c.fields for c in new if c.ref.object is name):
                text = f"SELECT Id, {KEY} FROM {SOBJECTS[name]} WHERE {KEY} IN {{}}"  # noqa: S608 - names are ours
                soql[f"begun_{name}"] = format_soql(text, begun)
        return soql

    def _contacts(self, new: list[Change], rows: list[Record]) -> None:
        for change in new:
            if change.ref.object is not ObjectName.CONTACT:
                continue
            for row in rows:
                numbers = (normalise_phone(row.get(key)) for key in ("Phone", "MobilePhone"))
                email = change.match.email
                same = (
                    email == normalise_email(row.get("Email"))
                    if email
                    else (change.match.phone in numbers)
                )
                if same:
                    self.found.setdefault(change.ref, row["Id"])

    def _accounts(self, new: list[Change], rows: list[Record]) -> None:
        for row in rows:
            ref = Ref(ObjectName.COMPANY, _site_domain(row["Website"]))
            if any(change.ref == ref for change in new):
                self.found.setdefault(ref, row["Id"])

    def _read_joins(self, records: list[tuple[ObjectName, str]]) -> None:
        soql = {}
        for name, (table, key, other) in JOINS.items():
            ids = [record_id for kind, record_id in records if kind is name]
            if ids:
                text = f"SELECT Id, {key}, {other} FROM {table} WHERE {key} IN {{}}"  # noqa: S608 - names are ours
                soql[table] = format_soql(text, ids)
        for rows in self._api.queries(soql).values():
            for row in rows:
                record = str(row.get("OpportunityId") or row.get("EventId"))
                person = str(row.get("ContactId") or row.get("RelationId"))
                self.joins[record, person] = row["Id"]


class _Graph:
    """One all-or-nothing group of changes as nodes of a composite graph."""

    def __init__(self, number: int, changes: list[Change], lookup: _Lookup) -> None:
        self.changes = changes
        self._lookup = lookup
        self._refs: dict[str, Ref] = {}
        self._made: dict[Ref, str] = {}
        self.nodes: list[Record] = []
        for change in changes:
            self._add(change)
        self.body = {"graphId": f"g{number}", "compositeRequest": self.nodes}

    def _add(self, change: Change) -> None:
        name = change.ref.object
        found = self._lookup.found.get(change.ref)
        known = change.record_id or found
        fields = {**(change.on_match if found else change.fields)}
        fields = {key: None if value == "" else value for key, value in fields.items()}
        self._point(change, fields, known)
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

    def _point(self, change: Change, fields: dict[str, Any], known: str | None) -> None:
        """Set the reference fields that a record carries itself."""
        name = change.ref.object
        if not change.relinked:
            return
        people, company, deal = (
            [self._id(ref) for ref in change.targets if ref.object is kind]
            for kind in (ObjectName.CONTACT, ObjectName.COMPANY, ObjectName.DEAL)
        )
        found = known is not None and not change.record_id
        if name is ObjectName.CONTACT and company and not found:
            # A contact that was found keeps the account that a person gave it.
            fields["AccountId"] = company[0]
        if name is ObjectName.DEAL and (company or known):
            fields["AccountId"] = company[0] if company else None
        if name is ObjectName.MEETING:
            fields["WhoId"] = people[0] if people else None
            what = deal or company
            if what or known:
                fields["WhatId"] = what[0] if what else None

    def _unjoin(self, change: Change, known: str | None) -> None:
        """Take away who left, and who is to become a meeting's main person."""
        gone = [self._lookup.ids[r] for r in change.unlinks if r in self._lookup.ids]
        people = [ref for ref in change.targets if ref.object is ObjectName.CONTACT]
        if change.ref.object is ObjectName.MEETING and people:
            gone += [self._lookup.ids[ref] for ref in people[:1] if ref in self._lookup.ids]
        for person in gone:
            row = self._lookup.joins.get((known or "", person))
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
        for number, ref in enumerate(people):
            person = self._id(ref)
            row = self._lookup.joins.get((known or "", person))
            if name is ObjectName.DEAL and row and change.main_changed:
                body: Record = {"IsPrimary": number == 0}
                self._node(change.ref, "PATCH", f"sobjects/{table}/{row}", body)
            if row or (name is ObjectName.MEETING and number == 0):
                continue
            if ref not in change.links and not change.main_changed:
                continue
            record = known or f"@{{{self._made[change.ref]}.id}}"
            body = (
                {"OpportunityId": record, "ContactId": person, "IsPrimary": number == 0}
                if name is ObjectName.DEAL
                else {"EventId": record, "RelationId": person, "IsParent": True, "IsWhat": False}
            )
            self._node(change.ref, "POST", f"sobjects/{table}", body)

    def _id(self, ref: Ref) -> str:
        if ref in self._made:
            return f"@{{{self._made[ref]}.id}}"
        return self._lookup.ids[ref]

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
                result = Result(self._lookup.ids[change.ref], outcome)
            self._lookup.ids[change.ref] = self._lookup.found[change.ref] = result.record_id
            report.results[change.ref] = result

    def blame(self, report: Report, answers: Mapping[str, Record]) -> None:
        """Find the record that a graph failed for.

        Raises RetryLater where it only came after too many other failures.
        """
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
                error.record_id = self._lookup.ids.get(ref, "")
            report.problems[ref] = error
            return
        raise RetryLater("Salesforce halted the batch.")


def _set_aside_blocked(changes: list[Change], report: Report) -> list[Change]:
    left = []
    for change in changes:
        blocker = report.blocked_by(change.links)
        if blocker:
            words = f"The {blocker.object} was not written: {report.problems[blocker]}"
            report.problems[change.ref] = Blocked(words)
        else:
            left.append(change)
    return left


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


def _packed(graphs: list[list[Change]]) -> Iterable[list[list[Change]]]:
    """Fill calls with graphs up to the limits of nodes and graphs."""
    batch: list[list[Change]] = []
    size = 0
    for graph in graphs:
        nodes = sum(1 + len(change.links) + len(change.unlinks) for change in graph)
        if batch and (size + nodes > MAX_NODES or len(batch) >= 75):
            yield batch
            batch, size = [], 0
        batch.append(graph)
        size += nodes
    if batch:
        yield batch


def _post(path: str, body: Record) -> Callable[[Salesforce], Any]:
    # A stranger who shares a name with somebody is no duplicate: an alert rule must not stop him.
    headers = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
    return lambda sf: sf.restful(path, method="POST", json=body, headers=headers)


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
