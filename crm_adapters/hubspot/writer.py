"""Writes a plan to a HubSpot portal: batches, inline links, a unique booking id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import compress
from typing import Any

from app.crm.changes import Change, Plan, WriteOutcome, WriteResult
from app.crm.links import plan_links
from app.crm.objects import SHARED, FieldValue, ObjectName, Ref
from app.crm.port import Report
from app.domain.errors import Conflict, CrmError, Gone, InvalidRecord, Unreadable
from app.domain.people import normalise_email
from app.outbound.reply import Json, an_id, header_number, rows
from crm_adapters.base import BOOKING_FIELD
from crm_adapters.finder import number_at_end
from crm_adapters.hubspot.client import LINK_TYPES, HubSpotClient, Pair, chunks, values_of
from crm_adapters.hubspot.errors import batch_error, context, errors_of
from crm_adapters.writing import problem_of, there_already, unblocked

PRIMARY_COMPANY = {ObjectName.CONTACT: 1, ObjectName.DEAL: 5}
"""Only for new records; on existing ones a person chooses the primary company."""
Mark = Callable[[Mapping[str, Any]], str]
"""Returns the value of a record's fields that identifies it; empty if it has none."""
Links = list[tuple[Change, tuple[str, str]]]
"""A change with links, and the ids at both ends of each link."""


class Writer:
    """Writes one plan, and keeps the ids of records that it creates."""

    def __init__(self, api: HubSpotClient, plan: Plan, report: Report) -> None:
        self._api = api
        self._report = report
        self._ids = plan.known_ids()

    def write(self, name: ObjectName, changes: list[Change]) -> None:
        """Update records that exist, and create the others."""
        ready = unblocked(changes, self._report, self._ids)
        self._delete([change for change in ready if change.delete])
        self._update([change for change in ready if change.record_id and not change.delete])
        new = [change for change in ready if not change.record_id]
        if new:
            self._create(name, new)

    def _delete(self, changes: list[Change]) -> None:
        for chunk in chunks(changes):
            self._api.archive(chunk[0].ref.object, [change.record_id for change in chunk])
            for change in chunk:
                self._done(change, change.record_id or "", WriteOutcome.DELETED)

    def _settled(self, change: Change) -> bool:
        return change.ref in self._report.results or change.ref in self._report.problems

    def _adopt(self, changes: list[Change], found: dict[Ref, str]) -> None:
        """Use records that exist already: write the allowed fields, make the links."""
        self._update(
            [
                replace(c, record_id=found[c.ref], fields=c.on_match, found_in_crm=True)
                for c in changes
                if c.ref in found
            ]
        )

    def _update(self, changes: list[Change]) -> None:
        for chunk in chunks([change for change in changes if change.fields]):
            self._update_chunk(chunk)
        good = [change for change in changes if change.ref not in self._report.problems]
        self._relink(good)
        # Only now: a change that is noted as done is not retried, and its links are part of it.
        for change in good:
            if change.ref not in self._report.problems:
                outcome = WriteOutcome.UPDATED if change.fields else WriteOutcome.UNCHANGED
                self._done(change, change.record_id or "", outcome)

    def _update_chunk(self, chunk: list[Change]) -> None:
        inputs = [{"id": c.record_id, "properties": _properties(c.fields)} for c in chunk]
        try:
            answer = self._api.update(chunk[0].ref.object, inputs)
        except (InvalidRecord, Conflict, Gone) as error:
            self._split(chunk, error, self._update_chunk)
            return
        told = {record_id: part for part in errors_of(answer) for record_id in context(part, "ids")}
        done = {an_id(record) for record in rows(answer, "results")}
        for change in chunk:
            refused = told.get(change.record_id or "")
            if refused is not None:
                self._report.problems[change.ref] = problem_of(change, batch_error(refused))
            elif change.record_id not in done:
                raise Unreadable("HubSpot's batch answer leaves a record out.")

    def _split(
        self, chunk: list[Change], error: CrmError, write: Callable[[list[Change]], None]
    ) -> None:
        """Halve a batch until the bad input stands alone: one bad input fails a whole batch."""
        if len(chunk) == 1:
            self._report.problems[chunk[0].ref] = problem_of(chunk[0], error)
            return
        middle = len(chunk) // 2
        write(chunk[:middle])
        write(chunk[middle:])

    def _create(self, name: ObjectName, changes: list[Change]) -> None:
        """Create records in batches. Results have no order: a record without a mark is sent alone."""
        rest = changes
        for mark in MARKS[name]:
            marks = [mark(change.fields) for change in rest]
            alike = Counter(marks)
            told = [bool(own) and alike[own] == 1 for own in marks]
            for chunk in chunks(list(compress(rest, told))):
                self._create_chunk(chunk, mark)
            rest = [change for change, is_told in zip(rest, told, strict=True) if not is_told]
        for change in rest:
            self._create_chunk([change], _no_mark)

    def _create_chunk(self, chunk: list[Change], mark: Mark) -> None:
        name = chunk[0].ref.object
        inputs = [
            {
                "properties": _properties(change.fields),
                "associations": self._associations(change),
                # With a trace id, each input succeeds or fails on its own (207).
                "objectWriteTraceId": str(number),
            }
            for number, change in enumerate(chunk)
        ]
        try:
            with self._report.sending(change.ref for change in chunk):
                answer = self._api.create(name, inputs)
        except (InvalidRecord, Conflict, Gone) as error:
            if len(chunk) > 1:
                self._split(chunk, error, lambda part: self._create_chunk(part, mark))
            else:
                self._resolve(chunk[0], error)
            return
        for record in rows(answer, "results"):
            change = chunk[0] if len(chunk) == 1 else _told_by(chunk, mark, record)
            self._done(change, an_id(record), WriteOutcome.CREATED)
        for error_of_one in errors_of(answer):
            for trace in context(error_of_one, "objectWriteTraceId"):
                number = header_number(trace)
                if number is None or number >= len(chunk):
                    raise Unreadable("HubSpot's batch answer names an input that was not sent.")
                self._resolve(chunk[number], batch_error(error_of_one))
        for change in chunk:
            if not self._settled(change):
                raise Unreadable("HubSpot's batch answer leaves a record out.")

    def _resolve(self, change: Change, error: CrmError) -> None:
        """After a failed create, use the record that exists already; otherwise note the problem.

        The present values of a person or company are read before a write: others may have set them.
        """
        error = problem_of(change, error)
        record_id = error.record_id if isinstance(error, Conflict) else None
        if isinstance(error, Conflict) and not record_id:
            record_id = self._conflicting(change)
        self._report.refused([change.ref])
        if record_id and change.ref.object in SHARED:
            words = f"There is a {change.ref.object} {record_id} already."
            self._report.problems[change.ref] = there_already(change, Conflict(words, record_id))
        elif record_id:
            self._adopt([change], {change.ref: record_id})
        else:
            self._report.problems[change.ref] = error

    def _conflicting(self, change: Change) -> str | None:
        """Return the record that a create conflicts with, by its unique key; reads by key do not lag."""
        name, key, value = change.ref.object, BOOKING_FIELD, change.fields.get(BOOKING_FIELD)
        if name is ObjectName.CONTACT:
            key, value = "email", change.match.email
        found = self._api.read(name, [str(value)], [key], key=key) if value else []
        return an_id(found[0]) if found else None

    def _associations(self, change: Change) -> list[dict[str, Any]]:
        source = change.ref.object
        entries, primary = [], PRIMARY_COMPANY.get(source)
        for record_id, ref in plan_links(change, self._ids).add:
            kinds = [LINK_TYPES[source, ref.object]]
            if ref.object is ObjectName.COMPANY and primary:
                kinds.append(primary)
            types = [
                {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}
                for kind in kinds
            ]
            entries.append({"to": {"id": record_id}, "types": types})
        return entries

    def _relink(self, changes: list[Change]) -> None:
        """Make and remove links of existing records, with one call for each pair of objects."""
        made: dict[Pair, Links] = {}
        gone: dict[Pair, Links] = {}
        for change in changes:
            plan = plan_links(change, self._ids)
            for table, ends in ((made, plan.add), (gone, plan.remove)):
                for record_id, ref in ends:
                    links = table.setdefault((change.ref.object, ref.object), [])
                    links.append((change, (change.record_id or "", record_id)))
        for pair, links in made.items():
            self._connect(self._api.link, pair, links)
        for pair, links in gone.items():
            self._connect(self._api.unlink, pair, links)

    def _connect(
        self, make: Callable[[Pair, list[tuple[str, str]]], None], pair: Pair, links: Links
    ) -> None:
        """Make links together; if one is refused, make those of each record separately."""
        try:
            make(pair, [ends for _, ends in links])
        except (InvalidRecord, Conflict, Gone) as error:
            owners = {change.ref: change for change, _ in links}
            for ref, change in owners.items():
                if len(owners) > 1:
                    mine = [link for link in links if link[0].ref == ref]
                    self._connect(make, pair, mine)
                    continue
                self._report.problems[ref] = problem_of(change, error)

    def _done(self, change: Change, record_id: str, outcome: WriteOutcome) -> None:
        self._ids[change.ref] = record_id
        self._report.results[change.ref] = WriteResult(record_id, outcome)


def _properties(fields: Any) -> dict[str, str]:
    """Return the properties as text; an empty text clears a property."""
    return {name: _text(value) for name, value in fields.items()}


def _text(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else str(value)


def _told_by(chunk: list[Change], mark: Mark, record: Json) -> Change:
    value = mark(values_of(record))
    for change in chunk:
        if mark(change.fields) == value:
            return change
    raise Unreadable("HubSpot's batch answer names a record that was not in the batch.")


def _value_of(name: str) -> Mark:
    return lambda fields: str(fields.get(name) or "")


def _email(fields: Mapping[str, Any]) -> str:
    written = str(fields.get("email") or "")
    return normalise_email(written) or written


def _number_in(name: str) -> Mark:
    return lambda fields: number_at_end(fields.get(name))


def _no_mark(_fields: Mapping[str, Any]) -> str:
    return ""


MARKS: dict[ObjectName, tuple[Mark, ...]] = {
    ObjectName.CONTACT: (_email,),
    ObjectName.COMPANY: (_value_of("domain"),),
    ObjectName.DEAL: (_value_of(BOOKING_FIELD), _number_in("description")),
    ObjectName.MEETING: (_value_of(BOOKING_FIELD), _number_in("hs_meeting_body")),
}
"""The marks that tell records of a batch apart. A record uses the first one that it has: a unique
value or, if the portal has no booking-id field, the booking's number at the end of the text."""
