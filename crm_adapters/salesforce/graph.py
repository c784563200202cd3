"""One all-or-nothing group of changes as nodes of a composite graph."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from simple_salesforce.format import format_soql

from app.crm.changes import Change, Plan, WriteOutcome, WriteResult
from app.crm.links import KEEP, LinkEnd, LinkPlan, Place, plan_links
from app.crm.objects import PEOPLE, SHARED, Fields, ObjectName, Ref
from app.crm.port import Report
from app.domain.errors import (
    AccountRefused,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RetryLater,
)
from app.domain.values import with_seconds
from app.outbound.reply import Json, an_id, an_object, part, some_text
from crm_adapters.salesforce.client import (
    DATA,
    KEY,
    SOBJECTS,
    SalesforceClient,
    rule_headers,
    status_of,
)
from crm_adapters.salesforce.errors import entries_of, error_of, only_warned
from crm_adapters.writing import problem_of, there_already

JOINS = {
    ObjectName.DEAL: ("OpportunityContactRole", "OpportunityId", "ContactId"),
    ObjectName.MEETING: ("EventRelation", "EventId", "RelationId"),
}
"""The objects that link further people -> name, field of the record, field of the person."""
POINTS = {
    ObjectName.CONTACT: {"AccountId": ObjectName.COMPANY},
    ObjectName.DEAL: {"AccountId": ObjectName.COMPANY},
    ObjectName.CASE: {"AccountId": ObjectName.COMPANY, "ContactId": ObjectName.CONTACT},
}
"""The fields that hold one record -> the object of that record."""
WHAT = (ObjectName.DEAL, ObjectName.CASE, ObjectName.COMPANY)
"""The objects that an event may relate to: the first of these that exists."""
ASSIGNED = (ObjectName.LEAD, ObjectName.CASE)
"""The objects that an org's assignment rules give to users, on create and on update."""
RULED = (*SHARED, ObjectName.CASE)
"""The objects that have duplicate or assignment rules."""
LOST = {"INVALID_CROSS_REFERENCE_KEY", "ENTITY_IS_DELETED"}
"""Codes that mean that one end of a link does not exist."""
ONE_PERSON = (
    "This org relates only one person to an event; the event's text names the others. To relate"
    " all of them, switch on 'Allow Users to Relate Multiple Contacts to Tasks and Events' in Setup."
)
MOST_CONTACTS = 50
ONE_LEAD = (
    "Salesforce relates one lead, or up to 50 contacts, to an event; its text names the others."
)
"""https://developer.salesforce.com/docs/platform/object-reference/references/standard-objects/object-eventrelation.html"""
LEAD_ALONE = (
    "Salesforce cannot link an opportunity to a lead, so this one has no link to the lead"
    " and its meeting."
)
NO_ROLES = (
    "This org does not show contact roles to the connected user: deals are written without their people."
    " To link them, let the user read and edit opportunities and contacts in Setup."
)


class Links:
    """The known ids, including new ones, and the rows that link people, if links are to be removed."""

    def __init__(
        self,
        api: SalesforceClient,
        plan: Plan,
        hidden: set[ObjectName],
        times: Mapping[ObjectName, frozenset[str]],
    ) -> None:
        """`hidden`: objects whose link rows the org does not show; more are added when they are noticed.

        `times`: the fields of each object that hold a time of day.
        """
        self.times = times
        self.ids = plan.known_ids()
        self.hidden = hidden
        self.done_without: set[tuple[Ref, Ref | str]] = set()
        """(record, person or row) of links that were refused, or that exist already."""
        self.assign = plan.assign
        self.warned: set[Ref] = set()
        """Records that a duplicate rule warns about: they are sent by a call with a header."""
        self.joins: dict[tuple[str, str], str] = {}
        """(record id, contact id) -> id of the row that links them."""
        soql = {}
        for name, (table, key, other) in JOINS.items():
            ids = [c.record_id for c in plan.of(name) if plan_links(c, self.ids).must_read]
            if ids and name not in hidden:
                text = f"SELECT Id, {key}, {other} FROM {table} WHERE {key} IN {{}}"  # noqa: S608 - names are ours
                soql[table] = format_soql(text, ids)
        for rows in api.queries(soql, optional=set(soql)).values():
            for row in rows:
                record = str(row.get("OpportunityId") or row.get("EventId"))
                person = str(row.get("ContactId") or row.get("RelationId"))
                self.joins[record, person] = row["Id"]

    def needs_headers(self, change: Change) -> bool:
        """Whether a change needs headers for the org's rules."""
        if change.ref in self.warned:
            return True
        return change.ref.object in ASSIGNED and not change.delete and not self.assigns(change)

    def assigns(self, change: Change) -> bool:
        """Whether an assignment rule may act: it assigns new records, and moves none later."""
        return self.assign and not change.record_id


class Graph:
    """One all-or-nothing group of changes as nodes of a composite graph, or as subrequests."""

    def __init__(
        self,
        number: int,
        changes: list[Change],
        links: Links,
        shares_events: bool = True,
        headers: bool = False,
    ) -> None:
        """`shares_events`: whether the org relates several people to one event.

        `headers`: whether the group is a plain composite call, whose parts take headers.
        """
        self.changes = changes
        self._headers = headers
        self._links, self._shares_events = links, shares_events
        self.exact: dict[Ref, dict[str, Any]] = {}
        """Texts that Salesforce would read as references; another call writes them again."""
        self.left_out: dict[Ref, str] = {}
        """Records that are written without some of their people, and the reason."""
        self._rows: dict[str, Ref | str] = {}
        """Nodes that link or unlink a record's people -> the person, or the row to be removed."""
        self._refs: dict[str, Ref] = {}
        self._made: dict[Ref, str] = {}
        self._ids: ChainMap[Ref, str] = ChainMap({}, links.ids)
        """The ids of existing records, and references to records that an earlier node creates."""
        self.nodes: list[Json] = []
        self.halted = False
        """Whether it was not tried because too many other graphs had failed."""
        for change in changes:
            self._add(change)
        self.id = f"g{number}"
        self.body = {"graphId": self.id, "compositeRequest": self.nodes}

    def _add(self, change: Change) -> None:
        name, known = change.ref.object, change.record_id
        ruled = self._headers and name in RULED
        headers = rule_headers(self._links.assigns(change)) if ruled else None
        if change.delete:
            self._node(change.ref, "DELETE", f"sobjects/{SOBJECTS[name]}/{known}")
            return
        times = self._links.times.get(name, frozenset())
        fields = {key: _plain(value, key in times) for key, value in change.fields.items()}
        exact = {key: value for key, value in fields.items() if has_reference(value)}
        if exact:
            self.exact[change.ref] = exact
            fields |= {key: without_reference(value) for key, value in exact.items()}
        links = plan_links(change, self._ids)
        self._point(change, links, fields)
        self._unjoin(change, links)
        if known:
            if fields:
                path = f"sobjects/{SOBJECTS[name]}/{known}"
                self._node(change.ref, "PATCH", path, fields, headers)
        elif name is ObjectName.DEAL and KEY in fields:
            value = quote(str(fields.pop(KEY)), safe="")
            path = f"sobjects/Opportunity/{KEY}/{value}"
            self._make(change.ref, "PATCH", path, fields)
        else:
            path = f"sobjects/{SOBJECTS[name]}"
            self._make(change.ref, "POST", path, fields, headers)
        self._join(change, links)

    def _point(self, change: Change, links: LinkPlan, fields: dict[str, Any]) -> None:
        """Set the reference fields of the record itself."""
        places: dict[str, Place] = {
            field: links.place(kind, change.present.get(field))
            for field, kind in POINTS.get(change.ref.object, {}).items()
        }
        main = links.main_person
        if change.ref.object is ObjectName.MEETING and links.changed:
            who, what = change.present.get("WhoId"), change.present.get("WhatId")
            people = (main.ref.object,) if main else PEOPLE
            places["WhoId"] = _first([links.place(kind, who) for kind in people])
            places["WhatId"] = _first([links.place(kind, what) for kind in WHAT])
            if main and main.ref.object is ObjectName.LEAD:
                # An event with a lead cannot relate to anything else (FIELD_INTEGRITY_EXCEPTION).
                places["WhatId"] = None if change.record_id and not change.found_in_crm else KEEP
        fields |= {field: place for field, place in places.items() if place is not KEEP}

    def _unjoin(self, change: Change, links: LinkPlan) -> None:
        """Remove the link rows of people who left, and of the new main person of a meeting."""
        gone = [end.record_id for end in links.remove]
        if change.ref.object is ObjectName.MEETING:
            gone += links.of(ObjectName.CONTACT).after[:1]
        for person in gone:
            row = self._links.joins.get((change.record_id or "", person))
            if row and (change.ref, row) not in self._links.done_without:
                table = JOINS[change.ref.object][0]
                self._rows[self._node(change.ref, "DELETE", f"sobjects/{table}/{row}")] = row

    def _that_fit(self, change: Change, links: LinkPlan) -> list[LinkEnd]:
        """Return the contacts that a record can be linked to; note the reason for all others."""
        name, main = change.ref.object, links.main_person
        people = [end for end in links.after if end.ref.object is ObjectName.CONTACT]
        leads = links.of(ObjectName.LEAD).after
        hidden = name in self._links.hidden
        if name is ObjectName.DEAL:
            if leads and not people:
                self.left_out[change.ref] = LEAD_ALONE
            if people and hidden:
                self.left_out[change.ref] = NO_ROLES
            return [] if hidden else people
        by_lead = main is not None and main.ref.object is ObjectName.LEAD
        shown = 1 if by_lead else min(len(people), MOST_CONTACTS)
        if len(people) + len(leads) > shown:
            self.left_out[change.ref] = ONE_LEAD
        people = [] if by_lead else people[:MOST_CONTACTS]
        if len(people) > 1 and (hidden or not self._shares_events):
            self.left_out[change.ref] = ONE_PERSON
            return people[:1]
        return people

    def _join(self, change: Change, links: LinkPlan) -> None:
        """Link the people that the record's own fields cannot hold."""
        name, known = change.ref.object, change.record_id or ""
        if name not in JOINS or not links.changed:
            return
        table = JOINS[name][0]
        # If others created the deal, they choose its main person.
        others = any(record == known for record, _ in self._links.joins)
        main = links.place(ObjectName.CONTACT, others)
        for number, end in enumerate(self._that_fit(change, links)):
            person, ref = end
            if (change.ref, ref) in self._links.done_without:
                continue
            row = self._links.joins.get((known, person))
            if name is ObjectName.DEAL and row and links.primary_changed:
                body: Json = {"IsPrimary": person == main}
                path = f"sobjects/{table}/{row}"
                self._rows[self._node(change.ref, "PATCH", path, body)] = ref
            if row or (name is ObjectName.MEETING and number == 0):
                continue
            if end not in links.add and not links.primary_changed:
                continue
            record = known or self._ids[change.ref]
            body = (
                {"OpportunityId": record, "ContactId": person, "IsPrimary": person == main}
                if name is ObjectName.DEAL
                else {"EventId": record, "RelationId": person, "IsParent": True, "IsWhat": False}
            )
            self._rows[self._node(change.ref, "POST", f"sobjects/{table}", body)] = ref

    def _make(
        self,
        ref: Ref,
        method: str,
        path: str,
        body: Fields,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Add the node that creates a record; later nodes may refer to it."""
        self._made[ref] = self._node(ref, method, path, body, headers)
        self._ids[ref] = f"@{{{self._made[ref]}.id}}"

    def _node(
        self,
        ref: Ref,
        method: str,
        path: str,
        body: Fields | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        name = f"n{len(self.nodes)}"
        node: Json = {"method": method, "url": f"{DATA}/{path}", "referenceId": name}
        if body is not None:
            node["body"] = dict(body)
        if headers:
            node["httpHeaders"] = dict(headers)
        self.nodes.append(node)
        self._refs[name] = ref
        return name

    @property
    def names(self) -> list[str]:
        """The names of the graph's nodes."""
        return list(self._refs)

    def finish(self, report: Report, answers: Mapping[str, Json]) -> None:
        """Note the result of every change. Raises Unreadable if the answer does not contain it."""
        touched = set(self._refs.values())
        for change in self.changes:
            node = self._made.get(change.ref)
            if node:
                answer = an_object(answers.get(node))
                fresh = status_of(answer) == 201
                record_id = an_id(part(answer, "body"))
                result = WriteResult(
                    record_id, WriteOutcome.CREATED if fresh else WriteOutcome.UPDATED
                )
            else:
                outcome = WriteOutcome.UPDATED if change.ref in touched else WriteOutcome.UNCHANGED
                outcome = WriteOutcome.DELETED if change.delete else outcome
                result = WriteResult(self._links.ids[change.ref], outcome)
            self._links.ids[change.ref] = result.record_id
            report.results[change.ref] = result
        for ref, words in self.left_out.items():
            report.note(ref, words)

    def blame(self, report: Report, answers: Mapping[str, Json], overrun: bool) -> Exception | None:
        """Find the record that made a graph fail, unless other graphs were the reason.

        `overrun`: so many other graphs failed in the call that the rest was not tried. Return the
        error if no single record caused it.
        """
        for name, ref in self._refs.items():
            node = answers.get(name)
            if node is None or status_of(node) < 300:
                continue
            codes = {entry.get("errorCode") for entry in entries_of(node.get("body"))}
            if codes == {"PROCESSING_HALTED"}:
                continue
            if only_warned(node.get("body")) and ref not in self._links.warned:
                self._links.warned.add(ref)
                return None
            error = error_of(status_of(node), node.get("body"), SOBJECTS[ref.object])
            if name in self._rows:
                if not codes & LOST and self._do_without(report, ref, self._rows[name], error):
                    return None
                # Not the record is gone, but the person it links to.
                if isinstance(error, Gone):
                    error = InvalidRecord(error.message).because(error.refusal)
            return self._note(report, ref, error)
        if overrun:
            # It only came after too many failures: the other graphs are sent without it first.
            self.halted = True
            return None
        words = next((t for node in answers.values() if (t := _words(node))), "no reason was given")
        report.problems[self.changes[0].ref] = InvalidRecord(f"Salesforce halted it: {words}")
        return None

    def _do_without(self, report: Report, ref: Ref, link: Ref | str, error: Exception) -> bool:
        """Allow a record to be sent again without a refused link; False if the link is not the cause."""
        if not isinstance(error, CrmError) or isinstance(error, RetryLater):
            return False
        if isinstance(error, (Gone, AccountRefused)) and isinstance(link, Ref):
            self._links.hidden.add(ref.object)
            return True
        self._links.done_without.add((ref, link))
        # A link that exists already, or a row that is gone already, is no error.
        as_it_should = isinstance(error, Conflict) or (
            isinstance(error, Gone) and not isinstance(link, Ref)
        )
        if not as_it_should:
            words = f"Some people are not linked to the {ref.object}: {error.message}"
            report.note(ref, words)
        return True

    def _note(self, report: Report, ref: Ref, error: Exception) -> Exception | None:
        if not isinstance(error, CrmError) or isinstance(error, (RetryLater, AccountRefused)):
            return error
        change = next(change for change in self.changes if change.ref == ref)
        error = problem_of(change, error)
        if isinstance(error, Conflict) and ref.object in SHARED and not change.record_id:
            error = there_already(change, error)
        report.problems[ref] = error
        return None


def _first(places: list[Place]) -> Place:
    """Return what to write into a field that may hold one of several objects."""
    ids = [place for place in places if isinstance(place, str)]
    return ids[0] if ids else None if None in places else KEEP


def _words(node: Json) -> str:
    return next((some_text(e, "message") for e in entries_of(node.get("body"))), "")[:300]


def has_reference(value: Any) -> bool:
    """Whether Salesforce would read part of a text as a reference to another node's result.

    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm
    """
    return isinstance(value, str) and "@{" in value


def without_reference(value: str) -> str:
    """Return a harmless form of such a text, until a call without references writes the real one."""
    return value.replace("@{", "@ {")


def _plain(value: Any, is_time: bool = False) -> Any:
    """Return a value for the API: empty is null, several choices are one text, a time is in UTC.

    https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/primitive_data_types.htm
    """
    if isinstance(value, list):
        return ";".join(value)
    if is_time and isinstance(value, str) and value:
        return f"{with_seconds(value)}.000Z"
    return None if value == "" else value
