"""Looks for records in a Pipedrive account: by id, by search, by what hangs on what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor

from app.domain.countries import read_country
from app.domain.errors import AccountRefused, Gone, InvalidRecord
from app.domain.people import normalise_email, spellings
from app.domain.phones import is_number, last_digits
from app.domain.records import (
    BY_NUMBER,
    FieldValue,
    Found,
    Key,
    MatchKey,
    ObjectName,
    Question,
    Ref,
    Whose,
)
from app.outbound.reply import Json, an_id, some_object, some_text
from crm_adapters.base import BOOKING_FIELD
from crm_adapters.finder import Claim, Hit, KeyFinder, told_begun
from crm_adapters.http import together
from crm_adapters.pipedrive.client import SEARCH_PAGE, PipedriveClient
from crm_adapters.pipedrive.schema import CustomFields
from crm_adapters.pipedrive.shapes import custom_text, flat

TOGETHER = 4
"""Last digits of a number that nearly all write without a sign between them."""
MANY_TOGETHER = 8
"""Last digits that few numbers share."""


class Finder(KeyFinder):
    """Answers questions about one company account."""

    def __init__(
        self,
        api: PipedriveClient,
        custom: CustomFields,
        pool: Executor,
        questions: Sequence[Question],
        ids: Mapping[Ref, str],
        country: str | None = None,
    ) -> None:
        """`country`: in which one the company is."""
        super().__init__(questions, ids)
        self._api, self._custom, self._pool = api, custom, pool
        self._country = country

    def _values(self, name: ObjectName, item: Json) -> dict[str, FieldValue]:
        return values_of(self._custom, name, item)

    def _hit(self, question: Question, item: Json, by: str) -> Hit:
        name, made_at = question.ref.object, some_text(item, "add_time")
        company = str(flat(item.get("org_id")) or "") if name is ObjectName.CONTACT else ""
        values = self._values(name, item)
        return question, Found(an_id(item), values, by, made_at=made_at, company=company)

    def telling(self, name: ObjectName) -> frozenset[str]:
        """All of a record is read anyway."""
        return frozenset()

    def theirs(self, name: ObjectName, named: list[Claim]) -> set[Ref]:
        """By what was read with them; else a call each, for a person's company or a deal's people."""
        tell = {
            ObjectName.COMPANY: lambda q, whose, hit: self._is_called(hit.values, whose, q),
            ObjectName.CONTACT: self._is_his,
        }.get(name, self._hangs_on_ours)
        told = together(self._pool, lambda claim: tell(*claim), named)
        return {claim[0].ref for claim, is_theirs in zip(named, told, strict=True) if is_theirs}

    def _is_his(self, question: Question, whose: Whose, hit: Found) -> bool:
        """Whether a person has the attendee's address, or an address or company of that domain."""
        emails, company = hit.values.get("emails"), hit.company
        if whose.owns(emails if isinstance(emails, list) else ()):
            return True
        if not (company and whose.domain):
            return False
        if company in self.booked(question, ObjectName.COMPANY):
            return True
        asked = [q for q in self._questions if q.ref in question.anchors]
        return self._is_called(self._api.get(ObjectName.COMPANY, company) or {}, whose, *asked)

    def _hangs_on_ours(self, question: Question, whose: Whose, hit: Found) -> bool:
        """Whether a deal is of the booking's company, or one of its people takes part in it."""
        company, person = (str(hit.values.get(key) or "") for key in ("org_id", "person_id"))
        people = self.booked(question, ObjectName.CONTACT)
        if company in self.booked(question, ObjectName.COMPANY) or person in people:
            return True
        # Who is not the deal's own person may be one of its participants.
        return bool(people and people & self._others(hit.record_id))

    def _is_called(self, company: Mapping[str, object], whose: Whose, *questions: Question) -> bool:
        """Whether a company's name is the attendee's domain, or what the mapping makes of that.

        An organization has no domain in v2.
        """
        names = {str(q.content.get("name") or "") for q in questions} | {*spellings(whose.domain)}
        there = str(company.get("name") or "").casefold()
        return bool(whose.domain and there) and there in {name.casefold() for name in names}

    def _others(self, deal_id: str) -> set[str]:
        """The participants of a deal; nobody where v1, which is out of support, does not tell."""
        try:
            return {*self._api.participants(deal_id)}
        except (Gone, AccountRefused, InvalidRecord):
            return set()

    def by_id(self, name: ObjectName, wanted: Mapping[str, Question]) -> Iterator[Hit]:
        """One call each: a list costs as much as ten of them."""
        ids = [record_id for record_id in wanted if record_id.isdigit()]
        items = together(self._pool, lambda record_id: self._api.get(name, record_id), ids)
        for record_id, item in zip(ids, items, strict=True):
            if item:
                yield self._hit(wanted[record_id], item, "record id")

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Question, Key]]
    ) -> Iterator[Hit]:
        """Search, then read what was found: the index shows deleted records too."""
        if kind is MatchKey.BOOKING:
            begun = together(self._pool, lambda entry: list(self._begun(*entry)), asked)
            yield from itertools.chain.from_iterable(begun)
            return

        def look(entry: tuple[Question, Key]) -> list[Json]:
            question, key = entry
            if kind is MatchKey.OPEN_DEAL:
                return list(self._open_deals(key))
            return self._searched(name, kind, question, key)

        for (question, _), found in zip(asked, together(self._pool, look, asked), strict=True):
            for item in found:
                yield self._hit(question, item, kind.replace("_", " "))

    def _searched(
        self, name: ObjectName, kind: MatchKey, question: Question, key: Key
    ) -> list[Json]:
        """What is found; a search takes one spelling, so that the other one is looked for after it."""
        value = key.value
        if kind is MatchKey.DOMAIN:
            # An organization has no domain in v2: its name is what the mapping makes of it.
            value = str(question.content.get("name") or key.value)
        for term in (value,) if kind is MatchKey.FIELD else spellings(value):
            found = list(self._search(name, kind, term, key))
            if found:
                return found
        return []

    def _search(self, name: ObjectName, kind: MatchKey, term: str, key: Key) -> Iterator[Json]:
        query = {"exact_match": "true"}
        if kind is MatchKey.DOMAIN:
            query["fields"] = "name"
        elif kind is MatchKey.FIELD:
            query["fields"] = "custom_fields"
        else:
            query["fields"] = "email"
        by_phone = kind is MatchKey.PHONE
        hits = (
            self._with_phone(key) if by_phone else self._api.search(name, {"term": term, **query})
        )
        for hit in hits:
            # Compared again by us: a part of an address is no match.
            if kind is not MatchKey.FIELD and not self._is_meant(kind, term, key, hit):
                continue
            item = self._api.get(name, an_id(hit))
            wanted = kind is not MatchKey.FIELD or (
                item and str(self._values(name, item).get(key.field)).lower() == term.lower()
            )
            if item and wanted and (not by_phone or self._lives_there(key, hit, item)):
                yield item

    def _with_phone(self, key: Key) -> list[Json]:
        """Persons whose numbers may be this one.

        Numbers are indexed as typed, and 'term can be present anywhere in the resulting field
        values': the few last digits that stand together in all spellings find them all. Where they
        find more than one answer holds, those with more of the digits together are asked for too.
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

    def _is_meant(self, kind: MatchKey, term: str, key: Key, hit: Json) -> bool:
        if kind is MatchKey.DOMAIN:
            return str(hit.get("name", "")).casefold() == term.casefold()
        if kind is MatchKey.PHONE:
            return self._has_number(key, hit)
        addresses = [normalise_email(entry) for entry in hit.get("emails") or ()]
        # The first address is the person's own; the others are the secondary ones.
        mine = addresses[1:] if kind is MatchKey.SECONDARY_EMAIL else addresses
        return key.value in mine

    def _has_number(self, key: Key, hit: Json, own: str | None = None) -> bool:
        others = (key.field, self._country)
        return any(is_number(entry, key.value, own, others) for entry in hit.get("phones") or ())

    def _lives_there(self, key: Key, hit: Json, item: Json) -> bool:
        """Whether it is that number in the person's own country too, which only the person tells.

        Pipedrive shows an address of persons where Contact Sync is on.
        """
        own = read_country(some_object(item, "postal_address").get("country"))
        return own is None or self._has_number(key, hit, own)

    def _open_deals(self, key: Key) -> Iterator[Json]:
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
            values = self._values(name, item)
            by = told_begun(question, key, values, BOOKING_FIELD, body, title)
            if by:
                found = True
                yield self._hit(question, item, by)
        if name is ObjectName.DEAL and BOOKING_FIELD in question.content and not found:
            field = key._replace(field=BOOKING_FIELD)
            for item in self._searched(name, MatchKey.FIELD, question, field):
                yield self._hit(question, item, BY_NUMBER)

    def _candidates(self, name: ObjectName, question: Question) -> Iterator[Json]:
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


def values_of(custom: CustomFields, name: ObjectName, item: Json) -> dict[str, FieldValue]:
    """A record's fields under the names that mapping files use, lists and objects flattened."""
    plain = {key: flat(value) for key, value in item.items() if key != "custom_fields"}
    if item.get("status") in ("won", "lost"):
        # The stage stays what it was: who reads it has to see that the deal is closed.
        plain["stage_id"] = item["status"]
    for key, value in some_object(item, "custom_fields").items():
        told = custom_text(custom.types.get((name, key), ""), value)
        plain[custom.name_of(name, key)] = plain[key] = told
    return plain
