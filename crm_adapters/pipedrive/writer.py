"""Writes a plan into a Pipedrive account, one call a change, several under way together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import structlog

from app.crm.changes import Change, Plan, WriteOutcome, WriteResult
from app.crm.objects import Fields, ObjectName, Ref
from app.crm.port import Report
from app.domain.errors import (
    AccountRefused,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RetryLater,
    Unauthorized,
)
from app.outbound.reply import Json
from crm_adapters.base import confirmed, ids_of, problem_of, unblocked, unlinked
from crm_adapters.http import together
from crm_adapters.pipedrive.client import PipedriveClient, is_lead
from crm_adapters.pipedrive.schema import CustomFields
from crm_adapters.pipedrive.shapes import LEAD_NAMES, MONEY, as_v1, custom_value, native_value

T = TypeVar("T")
STAGE = "stage_id"
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
        """`currency`: gives the one in which amounts are meant that name none (ISO 4217)."""
        self._api, self._custom, self._pool = api, custom, pool
        self._plan, self._report = plan, report
        self._currency = currency

    def write(self, objects: tuple[ObjectName, ...]) -> None:
        """Write every change; known records first look nowhere."""
        ids, report = self._plan.known_ids(), self._report
        writers: dict[ObjectName, Callable[[Change, Mapping[Ref, str]], WriteResult]] = {
            ObjectName.COMPANY: self._company,
            ObjectName.CONTACT: self._person,
            ObjectName.DEAL: self._deal,
            ObjectName.MEETING: self._activity,
        }

        def write(change: Change) -> None:
            try:
                do = self._erase if change.delete else writers[change.ref.object]
                result = do(change, ids)
            except (RetryLater, AccountRefused, Unauthorized):
                raise
            except CrmError as error:
                report.problems[change.ref] = problem_of(change, error)
                return
            report.results[change.ref] = result
            ids[change.ref] = result.record_id

        for name in objects:
            # What the next object is linked to has to be there first.
            together(self._pool, write, unblocked(self._plan.of(name), report, ids))

    def _erase(self, change: Change, ids: Mapping[Ref, str]) -> WriteResult:
        try:
            self._api.erase(change.ref.object, change.record_id or "")
        except Gone:
            log.info("record_gone_already", object=change.ref.object.value)
        return WriteResult(change.record_id or "", WriteOutcome.DELETED)

    def _company(self, change: Change, ids: Mapping[Ref, str]) -> WriteResult:
        return self._save(change, change.fields)

    def _person(self, change: Change, ids: Mapping[Ref, str]) -> WriteResult:
        companies = _ids_of(ObjectName.COMPANY, change.links, ids)
        # An organization that a colleague chose stays.
        taken = change.present.get("org_id")
        link = {"org_id": companies[0]} if companies and not taken else {}
        return self._save(change, {**change.fields, **link})

    def _deal(self, change: Change, ids: Mapping[Ref, str]) -> WriteResult:
        if is_lead(change.record_id) if change.record_id else change.inbox:
            return self._lead(change, ids)
        people = _ids_of(ObjectName.CONTACT, change.links_after, ids)
        companies = _ids_of(ObjectName.COMPANY, change.links_after, ids)
        fields, fresh = dict(change.fields), not change.record_id or change.found_in_crm
        stands = change.present.get(STAGE)
        if change.record_id and STAGE in fields and stands in (None, "won", "lost"):
            # A deal that was won or lost keeps its stage: moved to another one it is open again.
            fields.setdefault("status", "open")
        if change.relinked and (fresh or change.primary_changed):
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
        theirs = change.found_in_crm or (change.converted and not change.primary_changed)
        main = change.present.get("person_id") if theirs else None
        first = (
            people[0]
            if people and (fresh or change.primary_changed or change.links_to_remove)
            else ""
        )
        self._participants(change, result.record_id, str(main or first), people, ids)
        return result

    def _lead(self, change: Change, ids: Mapping[Ref, str]) -> WriteResult:
        """A lead of the inbox: it has one person and one organization, and at least one of the two."""
        fields, fresh = dict(change.fields), not change.record_id or change.found_in_crm
        people = _ids_of(ObjectName.CONTACT, change.links_after, ids)
        companies = _ids_of(ObjectName.COMPANY, change.links_after, ids)
        ends = {"person_id": people[:1], "org_id": companies[:1]}
        if change.relinked and (fresh or change.primary_changed):
            # What would leave nobody on it stays: Pipedrive takes no lead without one.
            fields |= {key: found[0] for key, found in ends.items() if found}
            if any(ends.values()) and not fresh:
                fields |= {key: None for key, found in ends.items() if not found}
        elif _ids_of(ObjectName.COMPANY, change.links, ids):
            fields["org_id"] = companies[0]
        if fresh:
            fields = {k: v for k, v in fields.items() if k not in ends or not change.present.get(k)}
        elif _chosen_by_others(change, ids):
            fields.pop("org_id", None)
        if not change.record_id and not any(ends.values()):
            words = (
                "Pipedrive makes no lead without a person or an organization, and there is neither."
            )
            raise InvalidRecord(words)
        body = self._lead_body(fields, change.present)
        if not change.record_id:
            return self._create(change, partial(self._api.create_lead, body))
        return self._update(change.ref.object, change.record_id, body)

    def _lead_body(self, fields: Fields, present: Fields) -> Json:
        """Our flat fields as v1 takes them: https://developers.pipedrive.com/docs/api/v1/Leads#addLead."""
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
                # Both are required where there is one.
                body["value"] = {"amount": amount, "currency": currency or self._currency()}
            elif "value" in fields:
                body["value"] = None
        return body

    def _participants(
        self, change: Change, deal_id: str, main: str, people: list[str], ids: Mapping[Ref, str]
    ) -> None:
        """Whoever is not the deal's own person stands beside it as a participant (v1 only).

        v1 is out of support: where it is gone the others are left out, and that is told.
        """
        others = [person for person in people if person != main]
        if not (change.links_to_remove or change.primary_changed or change.found_in_crm):
            new = _ids_of(ObjectName.CONTACT, change.links, ids)
            others = [person for person in others if person in new]
            there: dict[str, str] | None = {}
        elif change.relinked:
            there = self._there(deal_id)
        else:
            return
        try:
            for person in others if there is not None else ():
                if there is not None and person not in there:
                    self._surely(partial(self._api.add_participant, deal_id, person))
            # Who became the deal's own person is no longer one of the others.
            for person in [*unlinked(change, ids), main]:
                if there and person in there:
                    row = there[person]
                    self._surely(partial(self._api.drop_participant, deal_id, row))
        except (Gone, AccountRefused, InvalidRecord) as error:
            there = None
            log.info("participants_refused", kind=type(error).__name__)
        if there is None and others:
            words = "Pipedrive takes no further people on the deal; the meeting names them."
            self._report.note(change.ref, words)

    def _surely(self, call: Callable[[], T]) -> T:
        """Make a call that is done without where v1 refuses it, and not the whole account."""
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

    def _activity(self, change: Change, ids: Mapping[Ref, str]) -> WriteResult:
        fields: Json = dict(change.fields)
        if change.relinked:
            people = _ids_of(ObjectName.CONTACT, change.links_after, ids)
            fields["participants"] = [
                {"person_id": int(person), "primary": number == 0}
                for number, person in enumerate(people)
            ]
            for name, usual in ((ObjectName.DEAL, "deal_id"), (ObjectName.COMPANY, "org_id")):
                fields |= self._place_of(change, name, usual, ids)
        return self._save(change, fields)

    def _place_of(
        self, change: Change, name: ObjectName, usual: str, ids: Mapping[Ref, str]
    ) -> Json:
        """The fields that hang an activity on a deal (or a lead in its place) or on a company."""
        targets = _ids_of(name, change.links_after, ids)
        gone = _ids_of(name, change.links_to_remove, ids)
        left = change.record_id and any(ref.object is name for ref in change.links_to_remove)
        if not targets and not left:
            return {}
        lead = name is ObjectName.DEAL and is_lead(next(iter(targets or gone), ""))
        place: Json = {"lead_id" if lead else usual: targets[0] if targets else None}
        anew = any(ref.object is name for ref in change.links)
        if lead and targets and anew and change.record_id:
            # Wherever a colleague has hung it meanwhile: it hangs on one of the two.
            place[usual] = None
        return place

    def _save(self, change: Change, fields: Fields) -> WriteResult:
        """Create or update; nothing is sent where nothing is to be written."""
        name, known = change.ref.object, change.record_id
        body = self._body(name, fields)
        if not known:
            return self._create(change, partial(self._api.create, name, body))
        return self._update(name, known, body)

    def _create(self, change: Change, call: Callable[[], str]) -> WriteResult:
        try:
            with self._report.sending([change.ref]):
                return WriteResult(call(), WriteOutcome.CREATED)
        except (InvalidRecord, Conflict, AccountRefused, Gone):
            self._report.begun.discard(change.ref)
            raise

    def _update(self, name: ObjectName, record_id: str, body: Json) -> WriteResult:
        if not body:
            return WriteResult(record_id, WriteOutcome.UNCHANGED)
        self._api.update(name, record_id, body)
        return WriteResult(record_id, WriteOutcome.UPDATED)

    def _body(self, name: ObjectName, fields: Fields) -> Json:
        """Our flat fields in v2's shape: typed ids, lists of e-mails, custom fields by their key."""
        body: Json = {}
        for field, value in fields.items():
            key = self._custom.key_of(name, field)
            if key:
                type_ = self._custom.types.get((name, key), "")
                body.setdefault("custom_fields", {})[key] = custom_value(type_, value)
            else:
                body[field] = native_value(field, value)
        return body


def _ids_of(name: ObjectName, refs: tuple[Ref, ...], ids: Mapping[Ref, str]) -> list[str]:
    return list(ids_of(refs, ids, name))


def _chosen_by_others(change: Change, ids: Mapping[Ref, str]) -> bool:
    """Whether an organization stands there that is none of those that are to be taken away."""
    there = change.present.get("org_id")
    return bool(there) and str(there) not in _ids_of(
        ObjectName.COMPANY, change.links_to_remove, ids
    )
