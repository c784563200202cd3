"""Looks up records in a HubSpot portal: by id, by unique property, by search, through links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product

from app.crm.lookup import CrmRecord, FoundBy, Lookup, LookupKey, LookupResults, MatchKey, Whose
from app.crm.objects import SHARED, ObjectName, Ref
from app.domain.countries import read_country
from app.domain.errors import Unreadable
from app.domain.people import ascii_domain, spellings
from app.domain.phones import digit_forms, usual_spellings
from app.outbound.reply import Json, an_id, some_text
from crm_adapters.base import BOOKING_FIELD
from crm_adapters.finder import Claim, Hit, KeyFinder, recognise_lost_create
from crm_adapters.hubspot.client import LINK_TYPES, SEARCH_PAGE, HubSpotClient, chunks, values_of
from crm_adapters.matching import Shown, matches

FURTHER_EMAILS = "hs_additional_emails"
"""A contact's further e-mail addresses, separated by semicolons."""
FURTHER_DOMAINS = "hs_additional_domains"
"""A company's further domains, separated by semicolons."""
PHONES = ("phone", "mobilephone", "hs_whatsapp_phone_number")
CALCULATED = ("hs_searchable_calculated_phone_number", "hs_searchable_calculated_mobile_number")
"""What HubSpot makes of phone and mobilephone for its search: 'HubSpot only uses the area code and
local number. You should refrain from including the country code in your search or filter criteria.'
HubSpot does not say how it treats a number without a country code: every form of the digits is
searched. https://developers.hubspot.com/docs/api-reference/search/guide"""
COUNTRIES = ("hs_country_region_code", "country")
"""The country in which a contact lives: its code, and the name that people write."""
NUMBERS = 10
"""Numbers in one search: IN takes a hundred values, and each number has about nine forms."""
MANY_DOMAINS = 15
"""Above so many domains, it is checked whether all companies with further domains are fewer."""
MOST_GROUPS = 5
"""Groups of rules in one search: https://developers.hubspot.com/docs/api-reference/search/guide"""


@dataclass(frozen=True)
class Portal:
    """Properties of a portal that a search depends on."""

    further: bool = False
    """Whether the portal shows the further domains of companies."""
    phones: frozenset[str] = frozenset({"phone", CALCULATED[0]})
    """The contact properties for phone numbers and countries that the portal shows."""
    country: str | None = None
    """The country of the portal, by its time zone."""


def find(
    api: HubSpotClient, questions: Sequence[Lookup], ids: Mapping[Ref, str], portal: Portal
) -> LookupResults:
    """Read and search, object by object: contacts decide which companies and deals are possible."""
    return Finder(api, questions, ids, portal).run()


class Finder(KeyFinder):
    """Runs lookups in one portal."""

    def __init__(
        self,
        api: HubSpotClient,
        questions: Sequence[Lookup],
        ids: Mapping[Ref, str],
        portal: Portal,
    ) -> None:
        super().__init__(questions, ids)
        self._api, self._portal = api, portal

    def after(self, name: ObjectName) -> None:
        """Add to each contact that was found the company that it belongs to."""
        if name is not ObjectName.CONTACT:
            return
        found = self.findings.found
        people = {
            hit.record_id: question.ref
            for question in self._questions
            if question.ref.object is ObjectName.CONTACT
            and any(ref.object is ObjectName.COMPANY for ref in question.anchors)
            for hit in found.get(question.ref, ())
        }
        linked = self._api.linked(ObjectName.CONTACT, list(people), ObjectName.COMPANY)
        for record_id, companies in linked.items():
            ref = people.get(record_id)
            if ref and companies:
                found[ref] = [
                    replace(hit, company=companies[0]) if hit.record_id == record_id else hit
                    for hit in found[ref]
                ]

    def telling(self, name: ObjectName) -> frozenset[str]:
        """Return a contact's addresses or a company's domains; a deal is recognised by its links."""
        if name is ObjectName.CONTACT:
            return frozenset({"email", FURTHER_EMAILS})
        if name is not ObjectName.COMPANY:
            return frozenset()
        return frozenset({"domain", FURTHER_DOMAINS} if self._portal.further else {"domain"})

    def theirs(self, name: ObjectName, named: list[Claim]) -> set[Ref]:
        """Decide by the values that were read, or else by links, in one call or two for all records."""
        if name not in SHARED:
            linked = self._hanging(name, named, ObjectName.CONTACT)
            rest = [claim for claim in named if claim[0].ref not in linked]
            return linked | self._hanging(name, rest, ObjectName.COMPANY)
        theirs = {question.ref for question, whose, hit in named if _shows(whose, hit)}
        rest = [claim for claim in named if claim[0].ref not in theirs and claim[1].domain]
        return theirs | (self._by_company(rest) if name is ObjectName.CONTACT else set())

    def _hanging(self, name: ObjectName, named: list[Claim], target: ObjectName) -> set[Ref]:
        """Return the records that are linked to a record of the booking of one object."""
        booked = {question.ref: self.booked(question, target) for question, _, _ in named}
        ids = list(dict.fromkeys(hit.record_id for q, _, hit in named if booked[q.ref]))
        linked = self._api.linked(name, ids, target)
        return {q.ref for q, _, hit in named if booked[q.ref] & {*linked.get(hit.record_id, ())}}

    def _by_company(self, named: list[Claim]) -> set[Ref]:
        """Return the contacts that belong to a company with the attendee's domain."""
        ids = list(dict.fromkeys(hit.record_id for _, _, hit in named))
        linked = self._api.linked(ObjectName.CONTACT, ids, ObjectName.COMPANY)
        companies = list(dict.fromkeys(i for there in linked.values() for i in there))
        fields = sorted(self.telling(ObjectName.COMPANY))
        there = {
            hit.record_id: hit
            for chunk in chunks(companies)
            for hit in (
                _found(record, FoundBy.RECORD_ID)
                for record in self._api.read(ObjectName.COMPANY, chunk, fields)
            )
        }
        return {
            question.ref
            for question, whose, hit in named
            for company in linked.get(hit.record_id, ())
            if company in there and _shows(whose, there[company])
        }

    def by_id(self, name: ObjectName, wanted: Mapping[str, Lookup]) -> Iterator[Hit]:
        """Read in batches; a record missing there may be merged, and answers to a single GET."""
        fields = sorted({field for question in wanted.values() for field in question.fields})
        there = set()
        for chunk in chunks(list(wanted)):
            for record in self._api.read(name, chunk, fields):
                record_id = an_id(record)
                if record_id not in wanted:
                    raise Unreadable("HubSpot's answer has a record that was not requested.")
                there.add(record_id)
                yield wanted[record_id], _found(record, FoundBy.RECORD_ID)
        for record_id, question in wanted.items():
            if record_id not in there and record_id.isdigit():
                merged = self._api.get(name, record_id, fields)
                if merged:
                    yield question, _found(merged, FoundBy.RECORD_ID)

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Lookup, LookupKey]]
    ) -> Iterator[Hit]:
        """Look up the records of one object by one kind of key."""
        if kind is MatchKey.EMAIL:
            yield from self._read_by(name, "email", FoundBy.EMAIL, asked)
        elif kind is MatchKey.SECONDARY_EMAIL:
            yield from self._by_secondary(asked)
        elif kind is MatchKey.PHONE:
            yield from self._by_phone(asked)
        elif kind is MatchKey.DOMAIN:
            yield from self._by_domain(asked)
        elif kind is MatchKey.OPEN_DEAL:
            yield from self._open_deals(asked)
        elif kind is MatchKey.BOOKING:
            yield from self._begun(name, asked)
        elif kind is MatchKey.FIELD:
            for field in dict.fromkeys(key.field for _, key in asked):
                part = [entry for entry in asked if entry[1].field == field]
                yield from self._search_in(name, field, part)

    def _read_by(
        self, name: ObjectName, field: str, by: FoundBy, asked: list[tuple[Lookup, LookupKey]]
    ) -> Iterator[Hit]:
        """Read by a unique property: unlike the search, this does not lag."""
        by_value = {form: question for question, key in asked for form in spellings(key.value)}
        fields = sorted({f for q, _ in asked for f in q.fields} | {field})
        for chunk in chunks(list(by_value)):
            for record in self._api.read(name, chunk, fields, key=field):
                question = by_value.get((values_of(record).get(field) or "").lower())
                question = question or by_value.get(values_of(record).get(field) or "")
                if question:
                    yield question, _found(record, by)

    def _search_in(
        self, name: ObjectName, field: str, asked: list[tuple[Lookup, LookupKey]]
    ) -> Iterator[Hit]:
        fields = sorted({f for q, _ in asked for f in q.fields} | {field})
        for chunk in chunks(asked):
            values = [key.value.lower() for _, key in chunk]
            rule = {"propertyName": field, "operator": "IN", "values": values}
            pairs = product(self._api.search(name, [rule], fields), chunk)
            for record, (question, key) in pairs:
                if matches(key, Shown(value=values_of(record).get(field))):
                    yield question, _found(record, FoundBy.FIELD)

    def _by_domain(self, asked: list[tuple[Lookup, LookupKey]]) -> Iterator[Hit]:
        """Find companies by their first domain, or else by a further one.

        The rule for further domains takes one domain each. A few of them fit into the call for the
        first domains. For many domains, all companies with further domains are read instead, if
        that takes fewer calls; otherwise more calls follow for the domains that were not found.
        """
        asked_as = {form: key.value for _, key in asked for form in spellings(key.value.lower())}
        questions = {key.value: question for question, key in asked}
        names = ["domain", FURTHER_DOMAINS] if self._portal.further else ["domain"]
        fields = sorted({f for q, _ in asked for f in q.fields} | {*names})
        for chunk in chunks(list(asked_as)):
            hits: dict[str, list[Hit]] = {}
            groups: list[Json] = [{"propertyName": "domain", "operator": "IN", "values": chunk}]
            waiting = chunk if self._portal.further else []
            listed = self._all_with_further(fields, len(waiting))
            if listed is not None:
                waiting = []
                for form, found in self._with_domains(listed, set(chunk)):
                    domain = asked_as[form]
                    hits.setdefault(domain, []).append((questions[domain], found))
            while groups or waiting:
                room = MOST_GROUPS - len(groups)
                groups += [
                    {"propertyName": FURTHER_DOMAINS, "operator": "CONTAINS_TOKEN", "value": domain}
                    for domain in waiting[:room]
                ]
                for form, found in self._companies(groups, fields, set(chunk)):
                    domain = asked_as[form]
                    hits.setdefault(domain, []).append((questions[domain], found))
                waiting = [domain for domain in waiting[room:] if asked_as[domain] not in hits]
                groups = []
            for there in hits.values():
                yield from [hit for hit in there if hit[1].by is FoundBy.DOMAIN] or there

    def _all_with_further(self, fields: list[str], domains: int) -> list[Json] | None:
        """All companies with further domains, unless it takes fewer calls to ask for each domain."""
        if domains <= MANY_DOMAINS:
            return None
        # https://developers.hubspot.com/docs/api-reference/search/guide#filter-operators
        rule: Json = {"propertyName": FURTHER_DOMAINS, "operator": "HAS_PROPERTY"}
        most = SEARCH_PAGE * (domains // MOST_GROUPS - 2)
        return self._api.search_few(ObjectName.COMPANY, rule, fields, most)

    def _companies(
        self, groups: list[Json], fields: list[str], domains: set[str]
    ) -> Iterator[tuple[str, CrmRecord]]:
        """Search companies by these rules; give those with one of the domains."""
        return self._with_domains(self._api.search(ObjectName.COMPANY, groups, fields), domains)

    def _with_domains(
        self, records: list[Json], domains: set[str]
    ) -> Iterator[tuple[str, CrmRecord]]:
        """Give the companies with one of these domains, each with the domain that it was found by."""
        for record in records:
            values = values_of(record)
            first, *others = _domains(values.get("domain"), values.get(FURTHER_DOMAINS))
            for form in {first, *others} & domains:
                by = FoundBy.DOMAIN if form == first else FoundBy.FURTHER_DOMAIN
                yield form, _found(record, by)

    def _by_secondary(self, asked: list[tuple[Lookup, LookupKey]]) -> Iterator[Hit]:
        name = FURTHER_EMAILS
        for question, key in asked:
            rules: list[Json] = [
                {"propertyName": name, "operator": "CONTAINS_TOKEN", "value": form}
                for form in spellings(key.value)
            ]
            fields = sorted(question.fields | {name})
            for record in self._api.search(ObjectName.CONTACT, rules, fields):
                further = (values_of(record).get(name) or "").split(";")
                if matches(key, Shown(emails=("", *further))):
                    yield question, _found(record, FoundBy.SECONDARY_EMAIL)

    def _by_phone(self, asked: list[tuple[Lookup, LookupKey]]) -> Iterator[Hit]:
        """Find contacts by a number: HubSpot's index has the digits, this service compares."""
        shown = self._portal.phones
        if not shown & {*PHONES, *CALCULATED}:
            return  # A search without a rule would find all contacts.
        for start in range(0, len(asked), NUMBERS):
            part = asked[start : start + NUMBERS]
            written = [form for _, key in part for form in usual_spellings(key.value)]
            digits = [
                form
                for _, key in part
                for form in digit_forms(key.value, (key.field, self._portal.country))
            ]
            rules: list[Json] = [
                {"propertyName": name, "operator": "IN", "values": list(dict.fromkeys(values))}
                for names, values in ((PHONES, written), (CALCULATED, digits))
                for name in names
                if name in shown
            ]
            fields = {field for question, _ in part for field in question.fields}
            fields |= {"email", *(shown & {*PHONES, *COUNTRIES})}
            pairs = product(self._api.search(ObjectName.CONTACT, rules, sorted(fields)), part)
            for record, (question, key) in pairs:
                if self._has_number(values_of(record), key):
                    yield question, _found(record, FoundBy.PHONE)

    def _has_number(self, values: Mapping[str, str | None], key: LookupKey) -> bool:
        own = next(filter(None, (read_country(values.get(name)) for name in COUNTRIES)), None)
        shown = Shown(phones=[values.get(name) for name in PHONES], country=own)
        return matches(key, shown, self._portal.country)

    def _open_deals(self, asked: list[tuple[Lookup, LookupKey]]) -> Iterator[Hit]:
        """Find a contact's deals that are not closed; unlike the search, links do not lag."""
        people = {}
        for question, key in asked:
            person = self.id_of(Ref(ObjectName.CONTACT, key.value))
            if person:
                people[person] = (question, key)
        linked = self._api.linked(ObjectName.CONTACT, list(people), ObjectName.DEAL)
        for person, deals in linked.items():
            question, key = people[person]
            fields = sorted(question.fields | {"pipeline", "hs_is_closed"})
            for record in chain.from_iterable(
                self._api.read(ObjectName.DEAL, chunk, fields) for chunk in chunks(deals)
            ):
                same = key.field in ("", values_of(record).get("pipeline"))
                if same and values_of(record).get("hs_is_closed") != "true":
                    yield question, _found(record, FoundBy.OPEN_DEAL)

    def _begun(self, name: ObjectName, asked: list[tuple[Lookup, LookupKey]]) -> Iterator[Hit]:
        """Find records whose create got no answer: by the unique id, or else through their links."""
        if name is ObjectName.DEAL and any(BOOKING_FIELD in q.content for q, _ in asked):
            yield from self._read_by(name, BOOKING_FIELD, FoundBy.BOOKING_FIELD, asked)
            return
        body, title = ("hs_meeting_body", "hs_meeting_title")
        if name is ObjectName.DEAL:
            body, title = ("description", "dealname")
        for question, key in asked:
            fields = sorted({BOOKING_FIELD, body, title, *question.fields})
            for record in self._linked_to(name, question.anchors, fields):
                values = values_of(record)
                by = recognise_lost_create(question, key, values, BOOKING_FIELD, body, title)
                if by:
                    yield question, _found(record, by)

    def _linked_to(
        self, name: ObjectName, anchors: Sequence[Ref], fields: list[str]
    ) -> Iterator[Json]:
        """Give the records of an object that are linked to any of the existing anchors."""
        seen: set[str] = set()
        for start, anchor in reversed(self.ids_of(anchors).items()):
            if (name, anchor.object) not in LINK_TYPES:
                continue
            ids = self._api.linked(anchor.object, [start], name).get(start, [])
            for chunk in chunks([item for item in ids if item not in seen]):
                yield from self._api.read(name, chunk, fields)
            seen.update(ids)


def _shows(whose: Whose, found: CrmRecord) -> bool:
    """Whether a contact's addresses, or a company's domains, belong to the attendee."""
    values = {name: str(value or "") for name, value in found.values.items()}
    emails = [values.get("email", ""), *values.get(FURTHER_EMAILS, "").split(";")]
    domains = _domains(values.get("domain"), values.get(FURTHER_DOMAINS))
    return whose.owns(emails, [ascii_domain(domain) or domain for domain in domains])


def _found(record: Json, by: FoundBy) -> CrmRecord:
    return CrmRecord(an_id(record), values_of(record), by, made_at=some_text(record, "createdAt"))


def _domains(first: str | None, further: str | None) -> list[str]:
    """Return the domains of a company, with its first domain first."""
    return [part.strip().lower() for part in (first or "", *(further or "").split(";"))]
