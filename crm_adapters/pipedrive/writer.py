"""Writes a plan to a Pipedrive account: one call for each change, several at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import structlog

from app.crm.changes import Change, Plan, WriteOutcome, WriteResult
from app.crm.links import KEEP, LinkPlan
from app.crm.objects import Fields, ObjectName
from app.crm.port import Report
from app.domain.errors import AccountRefused, Gone, InvalidRecord, RetryLater
from app.outbound.reply import Json
from crm_adapters.base import confirmed
from crm_adapters.pipedrive.client import PipedriveClient, is_lead
from crm_adapters.pipedrive.schema import CustomFields
from crm_adapters.pipedrive.shapes import LEAD_NAMES, MONEY, as_v1, custom_value, native_value
from crm_adapters.writing import creating, write_each

T = TypeVar("T")
STAGE = "stage_id"
PLACES = {"person_id": ObjectName.CONTACT, "org_id": ObjectName.COMPANY}
"""Fields that hold one record -> the object of that record."""
log = structlog.get_logger(__name__)


class Writer:
    """Writes one plan."""

    def __init__(
        self,
        api: PipedriveClient,
        custom: CustomFields,
        pool: Executor,
        plan: Plan,
        report: Report,
        currency: Callable[[], str],
    ) -> None:
        """`currency`: returns the currency of amounts that name none (ISO 4217)."""
        self._api, self._custom, self._pool = api, custom, pool
        self._plan, self._report = plan, report
        self._currency = currency

    def write(self, objects: tuple[ObjectName, ...]) -> None:
        """Write every change; known records need no lookup."""
        writers: dict[ObjectName, Callable[[Change, LinkPlan], WriteResult]] = {
            ObjectName.COMPANY: self._company,
            ObjectName.CONTACT: self._person,
            ObjectName.DEAL: self._deal,
            ObjectName.MEETING: self._activity,
        }

        def write(change: Change, links: LinkPlan) -> WriteResult:
            return (
                self._erase(change) if change.delete else writers[change.ref.object](change, links)
            )

        write_each(self._pool, self._plan, self._report, objects, write)

    def _erase(self, change: Change) -> WriteResult:
        try:
            self._api.erase(change.ref.object, change.record_id or "")
        except Gone:
            log.info("record_gone_already", object=change.ref.object.value)
        return WriteResult(change.record_id or "", WriteOutcome.DELETED)

    def _company(self, change: Change, links: LinkPlan) -> WriteResult:
        return self._save(change, change.fields)

    def _person(self, change: Change, links: LinkPlan) -> WriteResult:
        return self._save(change, {**change.fields, **_places(links, change.present, "org_id")})

    def _deal(self, change: Change, links: LinkPlan) -> WriteResult:
        if is_lead(change.record_id) if change.record_id else change.inbox:
            return self._lead(change, links)
        fields = dict(change.fields)
        stands = change.present.get(STAGE)
        if change.record_id and STAGE in fields and stands in (None, "won", "lost"):
            # A deal that was won or lost keeps its stage: moving it to another stage opens it
            # again.
            fields.setdefault("status", "open")
        fields |= _places(links, change.present, "person_id", "org_id")
        result = self._save(change, fields)
        self._participants(change, result.record_id, links)
        return result

    def _lead(self, change: Change, links: LinkPlan) -> WriteResult:
        """Write a lead of the inbox: it has one person, one organization, or both."""
        places = _places(links, change.present, "person_id", "org_id")
        if not any(links.of(kind).after for kind in PLACES.values()):
            if not change.record_id:
                words = "Pipedrive makes no lead without a person or an organization, and there is"
                raise InvalidRecord(f"{words} neither.")
            # Pipedrive accepts no lead without a person or an organization: the last one stays.
            places = {}
        body = self._lead_body({**change.fields, **places}, change.present)
        if not change.record_id:
            return self._create(change, partial(self._api.create_lead, body))
        return self._update(change.ref.object, change.record_id, body)

    def _lead_body(self, fields: Fields, present: Fields) -> Json:
        """Return our flat fields in the form of v1:
        https://developers.pipedrive.com/docs/api/v1/Leads#addLead."""
        body: Json = {}
        for field, value in fields.items():
            key = self._custom.key_of(ObjectName.DEAL, field)
            if key:
                type_ = self._custom.types.get((ObjectName.DEAL, key), "")
                body |= as_v1(key, custom_value(type_, value))
            elif field in MONEY:
                continue
            elif field == "visible_to":
                body[field] = str(value)
            else:
                body[LEAD_NAMES.get(field, field)] = native_value(field, value)
        if set(MONEY) & set(fields):
            amount = fields.get("value", present.get("value"))
            currency = fields.get("currency") or present.get("currency") or ""
            if amount not in (None, ""):
                # An amount needs a currency, and the other way round.
                body["value"] = {"amount": amount, "currency": currency or self._currency()}
            elif "value" in fields:
                body["value"] = None
        return body

    def _participants(self, change: Change, deal_id: str, links: LinkPlan) -> None:
        """Write the people other than the deal's own person as its participants (v1 only).

        v1 is out of support: if it is gone, these people are left out and a note reports it.
        """
        # If a colleague chose another person for the deal, that one stays, and ours become
        # participants.
        main = links.holder(ObjectName.CONTACT, change.present.get("person_id"))
        people = links.of(ObjectName.CONTACT)
        there: dict[str, str] | None = {}
        if links.must_read:
            if not links.changed:
                return
            there = self._there(deal_id)
        others = [i for i in (people.after if links.must_read else people.add) if i != main]
        try:
            for person in others if there is not None else ():
                if there is not None and person not in there:
                    self._surely(partial(self._api.add_participant, deal_id, person))
            # A person who became the deal's own person is no longer a participant.
            for person in [*people.remove, main]:
                if there and person in there:
                    row = there[person]
                    self._surely(partial(self._api.drop_participant, deal_id, row))
        except (Gone, AccountRefused, InvalidRecord) as error:
            there = None
            log.info("participants_refused", kind=type(error).__name__)
        if there is None and others:
            words = "Pipedrive accepts no more people on the deal; the meeting names them."
            self._report.note(change.ref, words)

    def _surely(self, call: Callable[[], T]) -> T:
        """Make an optional call: v1 may refuse it, as long as the account as a whole answers."""
        return confirmed(call, self._probe)

    def _probe(self) -> None:
        try:
            self._api.one_of(ObjectName.DEAL)
        except AccountRefused as error:
            raise RetryLater(error.message) from None

    def _there(self, deal_id: str) -> dict[str, str] | None:
        try:
            return self._surely(partial(self._api.participants, deal_id))
        except (Gone, AccountRefused, InvalidRecord):
            return None

    def _activity(self, change: Change, links: LinkPlan) -> WriteResult:
        fields: Json = dict(change.fields)
        if links.changed:
            fields["participants"] = [
                {"person_id": int(person), "primary": number == 0}
                for number, person in enumerate(links.of(ObjectName.CONTACT).after)
            ]
            fields |= _places(links, {}, "org_id") | self._deal_or_lead(change, links)
        return self._save(change, fields)

    def _deal_or_lead(self, change: Change, links: LinkPlan) -> Json:
        """Return the fields that link an activity to a deal, or to a lead in its place."""
        deals, target = links.of(ObjectName.DEAL), links.place(ObjectName.DEAL)
        if target is KEEP:
            return {}
        lead = is_lead(next(iter(deals.after or deals.remove), ""))
        place: Json = {"lead_id" if lead else "deal_id": target}
        if lead and target and deals.add and change.record_id:
            # An activity is linked to a lead or a deal, not both: a colleague's link to a deal is
            # removed.
            place["deal_id"] = None
        return place

    def _save(self, change: Change, fields: Fields) -> WriteResult:
        """Create or update the record; send nothing if there is nothing to write."""
        name, known = change.ref.object, change.record_id
        body = self._body(name, fields)
        if not known:
            return self._create(change, partial(self._api.create, name, body))
        return self._update(name, known, body)

    def _create(self, change: Change, call: Callable[[], str]) -> WriteResult:
        with creating(self._report, change):
            return WriteResult(call(), WriteOutcome.CREATED)

    def _update(self, name: ObjectName, record_id: str, body: Json) -> WriteResult:
        if not body:
            return WriteResult(record_id, WriteOutcome.UNCHANGED)
        self._api.update(name, record_id, body)
        return WriteResult(record_id, WriteOutcome.UPDATED)

    def _body(self, name: ObjectName, fields: Fields) -> Json:
        """Return our flat fields in v2's form: typed ids, lists of e-mails, custom fields by key."""
        body: Json = {}
        for field, value in fields.items():
            key = self._custom.key_of(name, field)
            if key:
                type_ = self._custom.types.get((name, key), "")
                body.setdefault("custom_fields", {})[key] = custom_value(type_, value)
            else:
                body[field] = native_value(field, value)
        return body


def _places(links: LinkPlan, stands: Fields, *fields: str) -> Json:
    """Return the fields with one person or organization that are to be written.

    `stands`: the values that were read from the record just now.
    """
    places = {field: links.place(PLACES[field], stands.get(field)) for field in fields}
    return {field: place for field, place in places.items() if place is not KEEP}
