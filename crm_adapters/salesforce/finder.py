"""Runs lookups in a Salesforce org: the next key of every lookup goes into one call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from simple_salesforce.format import format_soql

from app.crm.lookup import CrmRecord, FoundBy, Lookup, LookupKey, LookupResults, MatchKey, Whose
from app.crm.objects import PEOPLE, SHARED, ObjectName, Ref
from app.domain.countries import read_country
from app.domain.people import spellings
from app.outbound.reply import Json, an_id, some_text
from crm_adapters.finder import booked_ids, ids_of, oldest_first, recognise_lost_create
from crm_adapters.matching import Shown, matches
from crm_adapters.salesforce.client import KEY, SOBJECTS, SalesforceClient
from crm_adapters.salesforce.columns import COUNTRIES, PHONES, Columns
from crm_adapters.salesforce.literals import IDS, literal, plain
from crm_adapters.salesforce.sites import (
    digits_in_order,
    longer_site_forms,
    site_domain,
    site_forms,
)

_ROLES = "SELECT OpportunityId, ContactId FROM OpportunityContactRole"


RECORD_ID = re.compile(r"[a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?")


MERGEABLE = (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.LEAD)


NUMBERS = 25
"""Numbers in one query: each is searched in every field of PHONES."""


MOST_ROWS = 500
"""The most rows that a query for numbers returns."""


Claim = tuple[Lookup, Whose, Json]
"""A lookup of a record named by hand, the attendee it must belong to, and the row found."""


class Finder:
    """Runs lookups in one org: the next key of every lookup goes into one call."""

    def __init__(
        self,
        api: SalesforceClient,
        columns: Columns,
        questions: Sequence[Lookup],
        ids: Mapping[Ref, str],
        country: str | None = None,
    ) -> None:
        """`country`: the country of the org."""
        self._api, self._columns, self._country = api, columns, country
        self._ids = ids
        self._left = {q.ref: [*_own_id(q), *q.keys] for q in questions}
        self._questions = {q.ref: q for q in questions}
        self._roles: list[Json] = []
        self._claims: list[Claim] = []
        """Records named by hand that are not known yet to be the attendee's."""
        self._on_deals: set[tuple[str, str]] = set()
        """Deals named by hand, with the contacts that have a role in them."""
        self.findings = LookupResults(asked=frozenset(self._questions))

    def run(self) -> LookupResults:
        """Run all lookups."""
        while True:
            asked: dict[tuple[ObjectName, MatchKey, str], list[tuple[Lookup, LookupKey]]] = {}
            claimed = {question.ref for question, _, _ in self._claims}
            waiting = self._waiting() | claimed
            people = any(ref.object in PEOPLE for ref in waiting)
            for ref, keys in self._left.items():
                if not keys or ref in claimed:
                    continue
                if self._waits(self._questions[ref], keys[0], people, waiting):
                    continue
                key = keys.pop(0)
                field = key.field if key.kind is MatchKey.FIELD else ""
                part = asked.setdefault((ref.object, key.kind, field), [])
                part.append((self._questions[ref], key))
            if not asked:
                break
            self._ask(asked)
            self._settle_claims()
        oldest_first(self.findings)
        return self.findings

    def _waiting(self) -> set[Ref]:
        """Return the refs that still have to be looked up."""
        for ref in self.findings.found:
            self._left[ref] = []
        return {ref for ref, keys in self._left.items() if keys}

    def _settle_claims(self) -> None:
        """Accept records named by hand that are the attendee's, as soon as that can be decided.

        A person or a company is decided by itself, or by the person's account. A deal or a case is
        decided by the people on it, once the records of the booking's own people and companies are
        known.
        """
        self._settle(
            [claim for claim in self._claims if claim[0].ref.object in SHARED], self._by_domain
        )
        waiting = self._waiting()
        self._settle(
            [claim for claim in self._claims if not waiting & {*claim[0].anchors}],
            lambda claims: {q.ref for q, _, row in claims if self._hangs_on_ours(q, row)},
        )

    def _settle(self, claims: list[Claim], tell: Callable[[list[Claim]], set[Ref]]) -> None:
        theirs = tell(claims)
        for claim in claims:
            question, _, row = claim
            self._claims.remove(claim)
            if question.ref in theirs:
                self._note(question, FoundBy.RECORD_ID, row)
            else:
                self.findings.refuse(question.ref, an_id(row, "Id"))

    def _by_domain(self, claims: list[Claim]) -> set[Ref]:
        """Return the people and companies with the attendee's address or domain; for the other
        contacts, one call reads their accounts."""
        theirs, left = set(), list[Claim]()
        for claim in claims:
            question, whose, row = claim
            if whose.owns([row.get("Email")], [site_domain(some_text(row, "Website"))]):
                theirs.add(question.ref)
            elif whose.domain and some_text(row, "AccountId"):
                left.append(claim)
        for question, _, row in left:
            if row["AccountId"] in self._booked(question, ObjectName.COMPANY):
                theirs.add(question.ref)
        accounts = [row["AccountId"] for q, _, row in left if q.ref not in theirs]
        if accounts and self._columns.has(ObjectName.COMPANY, "Website"):
            text = "SELECT Id, Website FROM Account WHERE Id IN {}"
            soql = {"accounts": format_soql(text, list(dict.fromkeys(accounts)))}
            rows = self._api.queries(soql, optional=soql)["accounts"]
            sites = {row["Id"]: site_domain(some_text(row, "Website")) for row in rows}
            theirs |= {
                question.ref
                for question, whose, row in left
                if whose.owns(domains=[sites.get(row["AccountId"], "")])
            }
        return theirs

    def _hangs_on_ours(self, question: Lookup, row: Json) -> bool:
        """Whether a deal or case is linked to one of the booking's own people or companies."""
        people = self._booked(question, *PEOPLE)
        on_it = {person for deal, person in self._on_deals if deal == row["Id"]}
        on_it |= {some_text(row, "ContactId")}
        account = some_text(row, "AccountId")
        return bool(people & on_it) or account in self._booked(question, ObjectName.COMPANY)

    def _booked(self, question: Lookup, *names: ObjectName) -> set[str]:
        """Return the ids of the booking's own records of some objects, with converted leads."""
        anchors = [ref for ref in question.anchors if ref.object in SHARED]
        leads = [Ref(ObjectName.LEAD, ref.key) for ref in anchors if ref.object in PEOPLE]
        return booked_ids([*anchors, *leads], names, self._ids, self.findings)

    def _waits(self, question: Lookup, key: LookupKey, people: bool, waiting: set[Ref]) -> bool:
        """Whether a record is found through others that are still being looked up."""
        if key.kind is MatchKey.OPEN_DEAL:
            return people
        marked = key.kind is not MatchKey.BOOKING or KEY in question.content
        return not marked and any(ref in waiting for ref in question.anchors)

    def _ask(
        self, asked: Mapping[tuple[ObjectName, MatchKey, str], list[tuple[Lookup, LookupKey]]]
    ) -> None:
        soql: dict[str, str] = {}
        parts, deeper = {}, set[str]()
        pieces = ((what, piece) for what, part in asked.items() for piece in _pieces(what[1], part))
        for number, ((name, kind, field), part) in enumerate(pieces):
            where = self._where(name, kind, field, part)
            if not where:
                continue
            text = self._select(name, where, field, part)
            text += f" LIMIT {MOST_ROWS}" if kind is MatchKey.PHONE else ""
            soql[f"q{number}"], parts[f"q{number}"] = text, (name, kind, part)
            likes = [form for _, key in part for form in longer_site_forms(key.value)]
            if kind is MatchKey.DOMAIN and likes:
                # A website may have a path after its domain.
                paths = " OR ".join(f"Website LIKE '{form}'" for form in likes)
                text = text.replace(where, paths)
                soql[f"p{number}"], parts[f"p{number}"] = text, (name, kind, part)
                deeper.add(f"p{number}")
            limited = [key.value for _, key in part if key.of]
            if name is ObjectName.DEAL and limited:
                # A second query reads the people on the deal: it may be another attendee's.
                soql[f"r{number}"] = format_soql(f"{_ROLES} WHERE OpportunityId IN {{}}", limited)
                deeper.add(f"r{number}")
        lost: dict[ObjectName, list[tuple[Lookup, LookupKey]]] = {}
        for query, rows in self._api.queries(soql, optional=deeper).items():
            if query not in parts:
                self._on_deals |= {(row["OpportunityId"], row["ContactId"]) for row in rows}
                continue
            name, kind, part = parts[query]
            for question, key in part:
                found = self._take(question, kind, key, rows)
                if kind is MatchKey.RECORD_ID and not found and name in MERGEABLE:
                    lost.setdefault(name, []).append((question, key))
        if lost:
            self._follow(lost)

    def _take(self, question: Lookup, kind: MatchKey, key: LookupKey, rows: list[Json]) -> bool:
        """Use the rows that answer a lookup; a record named by hand has to be the attendee's."""
        hits = [(row, by) for row in rows if (by := self._told_by(question, kind, key, row))]
        for row, by in hits:
            if key.of:
                self._claims.append((question, key.of, row))
            else:
                self._note(question, by, row)
        return bool(hits)

    def _select(
        self, name: ObjectName, where: str, field: str, part: list[tuple[Lookup, LookupKey]]
    ) -> str:
        """Return the query for records of an object, with the requested columns that are visible."""
        fields = {f for question, _ in part for f in question.fields if f != "Id"}
        if name is ObjectName.LEAD and any(key.of for _, key in part):
            fields |= {"Website"}
        fields = {f for f in fields if self._columns.has(name, f)}
        fields |= {field} if field else set()
        columns = sorted({"Id", "CreatedDate", *self._columns.of(name), *fields})
        return (
            f"SELECT {', '.join(columns)} FROM {SOBJECTS[name]}"  # noqa: S608 - names are ours
            f" WHERE {where} ORDER BY CreatedDate"
        )

    def _where(
        self, name: ObjectName, kind: MatchKey, field: str, part: list[tuple[Lookup, LookupKey]]
    ) -> str:
        """Return the condition that finds all values for one kind of key; empty if there are none."""
        values = [key.value for _, key in part]
        condition, found = "", list[str]()
        column = {MatchKey.EMAIL: "Email", MatchKey.DOMAIN: "Website"}.get(kind, field)
        if column and not self._columns.has(name, column):
            return ""
        if kind is MatchKey.RECORD_ID:
            # A value that is no Salesforce id would make the whole query fail.
            condition, found = "Id IN {}", [v for v in values if RECORD_ID.fullmatch(v)]
        elif kind is MatchKey.EMAIL:
            condition, found = "Email IN {}", [f for v in values for f in spellings(v)]
        elif kind is MatchKey.PHONE:
            shown = [column for column in PHONES if column in self._columns.of(name)]
            return " OR ".join(
                f"{column} LIKE '{digits_in_order(value)}'"
                for value in dict.fromkeys(values)
                for column in shown
            )
        elif kind is MatchKey.DOMAIN:
            condition, found = "Website IN {}", [f for v in values for f in site_forms(v)]
        elif kind is MatchKey.FIELD:
            column_kind = self._columns.kind_of(name, field)
            literals = [text for value in values if (text := literal(value, column_kind))]
            return f"{field} IN ({', '.join(literals)})" if literals else ""
        elif kind is MatchKey.OPEN_DEAL:
            condition, found = "IsClosed = false AND Id IN {}", self._deals_of(values)
        elif kind is MatchKey.BOOKING:
            condition = f"{KEY} IN {{}}"
            found = [key.value for question, key in part if KEY in question.content]
            if not found:
                condition, found = self._around(name, part)
        return str(format_soql(condition, found)) if found else ""

    def _around(
        self, name: ObjectName, part: list[tuple[Lookup, LookupKey]]
    ) -> tuple[str, list[str]]:
        """Find records linked to the targets of a lost create, since there is no booking-id field."""
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
            soql = {"roles": format_soql(f"{_ROLES} WHERE ContactId IN {{}}", people)}
            self._roles = self._api.queries(soql, optional=soql)["roles"]
        return sorted({row["OpportunityId"] for row in self._roles})

    def _told_by(
        self, question: Lookup, kind: MatchKey, key: LookupKey, row: Json
    ) -> FoundBy | None:
        """Return the key by which a row answers a lookup; None if it answers another one."""
        if kind is MatchKey.BOOKING:
            title = "Name" if question.ref.object is ObjectName.DEAL else "Subject"
            return recognise_lost_create(question, key, row, KEY, "Description", title)
        meant = self._is_meant(question.ref.object, kind, key, row)
        return FoundBy.of(kind) if meant else None

    def _is_meant(self, name: ObjectName, kind: MatchKey, key: LookupKey, row: Json) -> bool:
        """Compare a row again, since one query covers many lookups."""
        if kind is MatchKey.OPEN_DEAL:
            person = self._id_of(Ref(ObjectName.CONTACT, key.value))
            return (row["Id"], person) in {
                (r["OpportunityId"], r["ContactId"]) for r in self._roles
            }
        if kind is MatchKey.FIELD:
            return self._holds(name, key, row.get(key.field))
        if kind is MatchKey.RECORD_ID:
            return str(row["Id"])[:15] == key.value[:15]
        countries = COUNTRIES if kind is MatchKey.PHONE else ()
        shown = Shown(
            emails=[row.get("Email")],
            phones=[row.get(column) for column in PHONES],
            country=next(filter(None, (read_country(row.get(c)) for c in countries)), None),
            domains=[site_domain(row.get("Website") or "")],
        )
        return matches(key, shown, self._country)

    def _holds(self, name: ObjectName, key: LookupKey, now: object) -> bool:
        """Whether a column holds the value of a key, in any notation of either."""
        column_kind = self._columns.kind_of(name, key.field)
        wanted = plain(key.value, column_kind)
        stands = None if now is None else plain(now, column_kind)
        if column_kind in IDS:
            return stands is not None and stands == wanted
        return bool(stands and wanted and stands.lower() == wanted.lower())

    def _note(self, question: Lookup, by: FoundBy, row: Json) -> None:
        values = {k: v for k, v in row.items() if k not in ("attributes", "Id")}
        made = some_text(row, "CreatedDate")
        contact = row.get("ConvertedContactId")
        if contact:
            became = Ref(ObjectName.CONTACT, question.ref.key)
            found = CrmRecord(str(contact), {}, FoundBy.CONVERSION, became, made)
        else:
            person = question.ref.object is ObjectName.CONTACT
            company = some_text(row, "AccountId") if person else ""
            # The contact of a person account can only be written through its account.
            found = CrmRecord(
                an_id(row, "Id"), values, by, made_at=made, company=company,
                read_only=row.get("IsPersonAccount") is True,
            )  # fmt: skip
        self.findings.add(question.ref, found)

    def _follow(self, lost: Mapping[ObjectName, list[tuple[Lookup, LookupKey]]]) -> None:
        """Look up whether a missing record was merged, and into which one."""
        asked = {
            name: [key.value for _, key in part if RECORD_ID.fullmatch(key.value)]
            for name, part in lost.items()
        }
        soql = {
            name.value: format_soql(
                f"SELECT Id, MasterRecordId FROM {SOBJECTS[name]} WHERE Id IN {{}}",  # noqa: S608 - names are ours
                ids,
            )
            for name, ids in asked.items()
            if ids
        }
        for name, rows in self._api.queries(soql, "queryAll").items():
            masters = {str(row["Id"])[:15]: row.get("MasterRecordId") for row in rows}
            for question, key in lost[ObjectName(name)]:
                master = masters.get(key.value[:15])
                if master:
                    self._left[question.ref].insert(0, key._replace(value=master))

    def _id_of(self, ref: Ref) -> str | None:
        return self._ids.get(ref) or self.findings.first(ref)


def _own_id(question: Lookup) -> list[LookupKey]:
    return [LookupKey(MatchKey.RECORD_ID, question.record_id)] if question.record_id else []


def _pieces(
    kind: MatchKey, part: list[tuple[Lookup, LookupKey]]
) -> Iterator[list[tuple[Lookup, LookupKey]]]:
    """Split the keys into the parts that one query takes."""
    size = NUMBERS if kind is MatchKey.PHONE else len(part)
    yield from (part[start : start + size] for start in range(0, len(part), size))
