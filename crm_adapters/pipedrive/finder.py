"""Looks up records in a Pipedrive account: by id, by search, through linked records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor

from app.crm.lookup import CrmRecord, FoundBy, Lookup, LookupKey, MatchKey, Whose
from app.crm.objects import FieldValue, ObjectName, Ref
from app.domain.countries import read_country
from app.domain.errors import AccountRefused, Gone, InvalidRecord
from app.domain.people import spellings
from app.domain.phones import last_digits
from app.outbound.reply import Json, an_id, some_object, some_text
from crm_adapters.base import BOOKING_FIELD
from crm_adapters.finder import Claim, Hit, KeyFinder, recognise_lost_create
from crm_adapters.http import together
from crm_adapters.matching import Shown, matches
from crm_adapters.pipedrive.client import SEARCH_PAGE, SOURCE_LEAD, PipedriveClient, is_lead
from crm_adapters.pipedrive.schema import NOT_OF_LEADS, CustomFields
from crm_adapters.pipedrive.shapes import LEAD_NAMES, custom_text, flat, from_v1

TOGETHER = 4
"""Last digits of a number, which nearly everybody writes without a sign between them."""
MANY_TOGETHER = 8
"""So many last digits that few numbers share them."""


SEARCHED = {
    MatchKey.DOMAIN: "name",
    MatchKey.FIELD: "custom_fields",
}
"""Kind of key -> the fields that a search covers; for all other kinds the e-mail addresses."""


class Finder(KeyFinder):
    """Runs lookups in one company account."""

    def __init__(
        self,
        api: PipedriveClient,
        custom: CustomFields,
        pool: Executor,
        questions: Sequence[Lookup],
        ids: Mapping[Ref, str],
        country: str | None = None,
    ) -> None:
        """`country`: the country of the company."""
        super().__init__(questions, ids)
        self._api, self._custom, self._pool = api, custom, pool
        self._country = country

    def _values(self, name: ObjectName, item: Json) -> dict[str, FieldValue]:
        if name is ObjectName.DEAL and is_lead(an_id(item)):
            return values_of_lead(self._custom, item)
        return values_of(self._custom, name, item)

    def _hit(self, question: Lookup, item: Json, by: FoundBy, was: str = "") -> Hit:
        name, made_at = question.ref.object, some_text(item, "add_time")
        company = str(flat(item.get("org_id")) or "") if name is ObjectName.CONTACT else ""
        values = self._values(name, item)
        return question, CrmRecord(
            an_id(item), values, by, made_at=made_at, company=company, was=was
        )

    def telling(self, name: ObjectName) -> frozenset[str]:
        """Return no fields: all values of a record are read anyway."""
        return frozenset()

    def theirs(self, name: ObjectName, named: list[Claim]) -> set[Ref]:
        """Decide by the values that were read, or with one call for a person's company or a deal."""
        tell = {
            ObjectName.COMPANY: lambda q, whose, hit: self._is_called(hit.values, whose, q),
            ObjectName.CONTACT: self._is_his,
        }.get(name, self._hangs_on_ours)
        told = together(self._pool, lambda claim: tell(*claim), named)
        return {claim[0].ref for claim, is_theirs in zip(named, told, strict=True) if is_theirs}

    def _is_his(self, question: Lookup, whose: Whose, hit: CrmRecord) -> bool:
        """Whether a person has the attendee's address, or an address or a company of that domain."""
        emails, company = hit.values.get("emails"), hit.company
        if whose.owns(emails if isinstance(emails, list) else ()):
            return True
        if not (company and whose.domain):
            return False
        if company in self.booked(question, ObjectName.COMPANY):
            return True
        asked = [q for q in self._questions if q.ref in question.anchors]
        return self._is_called(self._api.get(ObjectName.COMPANY, company) or {}, whose, *asked)

    def _hangs_on_ours(self, question: Lookup, whose: Whose, hit: CrmRecord) -> bool:
        """Whether a deal belongs to the booking's company or to one of the booking's people."""
        company, person = (str(hit.values.get(key) or "") for key in ("org_id", "person_id"))
        people = self.booked(question, ObjectName.CONTACT)
        if company in self.booked(question, ObjectName.COMPANY) or person in people:
            return True
        # A person who is not the deal's own person may be one of its participants.
        return bool(people and people & self._others(hit.record_id))

    def _is_called(self, company: Mapping[str, object], whose: Whose, *questions: Lookup) -> bool:
        """Whether a company's name is the attendee's domain, or the name that the mapping makes of it.

        In v2, an organization has no domain.
        """
        names = {str(q.content.get("name") or "") for q in questions} | {*spellings(whose.domain)}
        there = str(company.get("name") or "").casefold()
        return bool(whose.domain and there) and there in {name.casefold() for name in names}

    def _others(self, deal_id: str) -> set[str]:
        """Return the participants of a deal; none if v1, which is out of support, does not show them.

        A lead of the inbox has none.
        """
        if is_lead(deal_id):
            return set()
        try:
            return {*self._api.participants(deal_id)}
        except (Gone, AccountRefused, InvalidRecord):
            return set()

    def by_id(self, name: ObjectName, wanted: Mapping[str, Lookup]) -> Iterator[Hit]:
        """Read each record with one call: a list costs as much as ten of them."""
        ids = [i for i, q in wanted.items() if i.isdigit() or _may_be_lead(q, i)]

        def read(record_id: str) -> tuple[Json | None, str]:
            item = self._api.get(name, record_id)
            if item or not _may_be_converted(wanted[record_id], record_id):
                return item, ""
            return self._converted(wanted[record_id], record_id), record_id

        for record_id, (item, was) in zip(ids, together(self._pool, read, ids), strict=True):
            if item:
                yield self._hit(
                    wanted[record_id], item, FoundBy.CONVERSION if was else FoundBy.RECORD_ID, was
                )

    def _converted(self, question: Lookup, lead_id: str) -> Json | None:
        """Return the deal that a person converted from a lead that is gone; None if there is none.

        'Related entities (notes, files, emails, activities, ...) are transferred … the lead is
        marked as deleted.' The deal names the lead. If it does not, the deal is recognised by the
        booking's id in it, or by the booking's activity, which is linked to the deal now.

        https://developers.pipedrive.com/docs/api/v1/Leads#convertLeadToDeal
        """
        named = {"include_fields": SOURCE_LEAD}
        deals = list(self._on_its_people(question, named))
        for deal in deals:
            if deal.get(SOURCE_LEAD) == lead_id:
                return deal
        marked = BOOKING_FIELD in question.content
        for deal in deals if marked else ():
            if self._values(ObjectName.DEAL, deal).get(BOOKING_FIELD) == question.ref.key:
                return deal
        for activity_id in self._meetings_of(question.ref.key):
            activity = self._api.get(ObjectName.MEETING, activity_id) or {}
            number = some_text(activity, "deal_id")
            found = self._api.get(ObjectName.DEAL, number, named) if number else None
            # A deal that names another lead, or none, was not converted from this one.
            if found and found.get(SOURCE_LEAD, lead_id) == lead_id:
                return found
        key = LookupKey(MatchKey.FIELD, question.ref.key, BOOKING_FIELD)
        hits = self._searched(ObjectName.DEAL, question, key) if marked else []
        return next(iter(hits), None)

    def _meetings_of(self, key: str) -> list[str]:
        """Return the known activities of a booking, including those of its earlier times."""
        return [
            i
            for ref, i in self._ids.items()
            if ref.object is ObjectName.MEETING and ref.key.partition("@")[0] == key
        ]

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Lookup, LookupKey]]
    ) -> Iterator[Hit]:
        """Search, then read each result: the index shows deleted records too."""
        if kind is MatchKey.BOOKING:
            begun = together(self._pool, lambda entry: list(self._begun(*entry)), asked)
            yield from itertools.chain.from_iterable(begun)
            return

        def look(entry: tuple[Lookup, LookupKey]) -> list[Json]:
            question, key = entry
            if kind is MatchKey.OPEN_DEAL:
                return list(self._open_deals(key)) or self._newest_lead(question, key)
            found = self._searched(name, question, key)
            return found or (self._searched(name, question, key, True) if question.inbox else [])

        for (question, _), found in zip(asked, together(self._pool, look, asked), strict=True):
            for item in found:
                yield self._hit(question, item, FoundBy.of(kind))

    def _searched(
        self, name: ObjectName, question: Lookup, key: LookupKey, leads: bool = False
    ) -> list[Json]:
        """Return the records found; a search takes one spelling, so the other one is searched after it.

        `leads`: search leads of the inbox instead of deals.
        """
        value = key.value
        if key.kind is MatchKey.DOMAIN:
            # In v2, an organization has no domain: the mapping makes its name from the domain.
            value = str(question.content.get("name") or key.value)
        for term in (value,) if key.kind is MatchKey.FIELD else spellings(value):
            found = list(self._search(name, term, key, leads))
            if found:
                return found
        return []

    def _search(self, name: ObjectName, term: str, key: LookupKey, leads: bool) -> Iterator[Json]:
        by_field, by_phone = key.kind is MatchKey.FIELD, key.kind is MatchKey.PHONE
        fields = SEARCHED.get(key.kind, "email")
        query = {"term": term, "exact_match": "true", "fields": fields}
        hits = self._with_phone(key) if by_phone else self._api.search(name, query, leads)
        for hit in hits:
            if not by_field and not self._is_meant(term, key, hit):
                continue
            item = self._api.get(name, an_id(hit))
            if not item or (by_phone and not self._lives_there(key, hit, item)):
                continue
            value = self._values(name, item).get(key.field) if by_field else None
            if not by_field or matches(key, Shown(value=value)):
                yield item

    def _with_phone(self, key: LookupKey) -> list[Json]:
        """Return the persons who may have this number.

        Numbers are indexed as typed, and 'term can be present anywhere in the resulting field
        values': a search for the few last digits that people write together finds all of them. If
        they are more than one answer holds, a second search with more digits follows.

        https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons
        """
        hits: dict[str, Json] = {}
        for most in (TOGETHER, MANY_TOGETHER):
            query = {"term": last_digits(key.value, most), "fields": "phone"}
            found = self._api.search(ObjectName.CONTACT, query)
            hits |= {an_id(hit): hit for hit in found}
            if len(found) < SEARCH_PAGE:
                break
        return list(hits.values())

    def _is_meant(self, term: str, key: LookupKey, hit: Json, own: str | None = None) -> bool:
        """Compare a hit again: a part of an address is no match. `own`: the person's country."""
        if key.kind is MatchKey.DOMAIN:
            return str(hit.get("name", "")).casefold() == term.casefold()
        emails, phones = hit.get("emails") or (), hit.get("phones") or ()
        return matches(key, Shown(emails=emails, phones=phones, country=own), self._country)

    def _lives_there(self, key: LookupKey, hit: Json, item: Json) -> bool:
        """Whether the number also matches in the person's own country, which only the record shows.

        Pipedrive shows the address of a person only if Contact Sync is on.
        """
        own = read_country(some_object(item, "postal_address").get("country"))
        return own is None or self._is_meant(key.value, key, hit, own)

    def _open_deals(self, key: LookupKey) -> Iterator[Json]:
        person = self.id_of(Ref(ObjectName.CONTACT, key.value))
        query = {"person_id": person, "status": "open"}
        for deal in self._api.many(ObjectName.DEAL, query) if person else ():
            if key.field in ("", str(deal.get("pipeline_id"))):
                yield deal

    def _newest_lead(self, question: Lookup, key: LookupKey) -> list[Json]:
        """Return a person's newest lead that is not archived."""
        person = self.id_of(Ref(ObjectName.CONTACT, key.value))
        if not (question.inbox and person):
            return []
        leads = self._api.leads({"person_id": person})
        return sorted(leads, key=lambda lead: some_text(lead, "add_time"))[-1:]

    def _begun(self, question: Lookup, key: LookupKey) -> Iterator[Hit]:
        """Find records whose create got no answer: lists do not lag, but the search does."""
        name = question.ref.object
        body, title = ("note", "subject") if name is ObjectName.MEETING else ("", "title")
        found = False
        for item in self._candidates(name, question):
            values = self._values(name, item)
            by = recognise_lost_create(question, key, values, BOOKING_FIELD, body, title)
            if by:
                found = True
                yield self._hit(question, item, by)
        if name is ObjectName.DEAL and BOOKING_FIELD in question.content and not found:
            field = key._replace(kind=MatchKey.FIELD, field=BOOKING_FIELD)
            for leads in (False, True) if question.inbox else (False,):
                for item in self._searched(name, question, field, leads):
                    yield self._hit(question, item, FoundBy.BOOKING_NUMBER)

    def _candidates(self, name: ObjectName, question: Lookup) -> Iterator[Json]:
        """Give the records that are linked to the deal or the people that the lost create names."""
        deals = [ref for ref in question.anchors if ref.object is ObjectName.DEAL]
        if name is ObjectName.MEETING and deals:
            # A converted lead is found under another id than its known one.
            ids = {*self.ids_of(deals)}
            ids |= {hit.record_id for ref in deals for hit in self.findings.found.get(ref, ())}
            lists = [{"lead_id" if is_lead(i) else "deal_id": i} for i in sorted(ids)]
            for query in lists:
                yield from self._api.many(name, query)
            if lists:
                return
        yield from self._on_its_people(question, {}, name)
        if question.inbox:
            for query in self._people_of(question):
                named = {LEAD_NAMES.get(key, key): value for key, value in query.items()}
                yield from self._api.leads(named)

    def _on_its_people(
        self, question: Lookup, more: Json, name: ObjectName = ObjectName.DEAL
    ) -> Iterator[Json]:
        """Give the records of an object that are linked to a booking's people or, if there are
        none, to its companies; `more` is added to each query."""
        for query in self._people_of(question):
            yield from self._api.many(name, {**query, **more})

    def _people_of(self, question: Lookup) -> list[Json]:
        ids = self.ids_of(question.anchors)
        people = [i for i, ref in ids.items() if ref.object is ObjectName.CONTACT]
        companies = [i for i, ref in ids.items() if ref.object is ObjectName.COMPANY]
        return [{"person_id": i} for i in people] or [{"org_id": i} for i in companies]


def _may_be_lead(question: Lookup, record_id: str) -> bool:
    """Whether an id is read as a lead's. If somebody typed a lead's id and the mapping creates no
    leads, it is not: the account may not even show leads to this service."""
    mine = question.inbox or question.record_id == record_id
    return question.ref.object is ObjectName.DEAL and mine and is_lead(record_id)


def _may_be_converted(question: Lookup, record_id: str) -> bool:
    """Whether the id is the booking's own lead, which a person may have converted."""
    return _may_be_lead(question, record_id) and question.record_id == record_id


def values_of_lead(custom: CustomFields, item: Json) -> dict[str, FieldValue]:
    """Return a lead's fields under the names of a deal's fields."""
    names = {other: name for name, other in LEAD_NAMES.items()}
    plain: dict[str, FieldValue] = {}
    for key, value in item.items():
        if key in NOT_OF_LEADS or key == "value":
            continue  # A lead's labels differ from a deal's.
        type_ = custom.types.get((ObjectName.DEAL, key))
        if type_ is None:
            plain[names.get(key, key)] = flat(value)
            continue
        told = custom_text(type_, from_v1(type_, item, key))
        plain[custom.name_of(ObjectName.DEAL, key)] = plain[key] = told
    worth = some_object(item, "value")
    plain |= {"value": flat(worth.get("amount")), "currency": flat(worth.get("currency"))}
    return plain


def values_of(custom: CustomFields, name: ObjectName, item: Json) -> dict[str, FieldValue]:
    """Return a record's fields under the names in mapping files, with lists and objects flattened."""
    plain = {key: flat(value) for key, value in item.items() if key != "custom_fields"}
    if item.get("status") in ("won", "lost"):
        # Pipedrive keeps the stage of a closed deal: this value shows the reader that it is closed.
        plain["stage_id"] = item["status"]
    for key, value in some_object(item, "custom_fields").items():
        told = custom_text(custom.types.get((name, key), ""), value)
        plain[custom.name_of(name, key)] = plain[key] = told
    return plain
