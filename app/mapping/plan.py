"""Turns a booking into the records that a CRM should hold for it: pure, the same every time.

The parts of a plan are in people.py, departed.py, deals.py, meetings.py, and in keep_current.py for
records that the file would not create now. Each part takes PlanInputs, which never change, returns
its records, and adds notes for a person to the PlanReport.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from app.crm.lookup import MatchKey
from app.crm.objects import ObjectName, Ref
from app.crm.schema import CrmShape, Directory
from app.domain.booking import Booking
from app.mapping.companies import of_no_company
from app.mapping.conditions import holds
from app.mapping.departed import departed_people
from app.mapping.keep_current import keep_current
from app.mapping.mapping import Mapping
from app.mapping.people import (
    chosen_attendees,
    company_records,
    links_to_people,
    person_record,
    person_records,
)
from app.mapping.plan_context import PlanContext, PlanInputs, PlanReport
from app.mapping.plan_refs import OF_BOOKING, own_refs, refs_of, superseded_refs
from app.mapping.schema import RecordRules
from app.mapping.sections import make_by_section, makes_records, mark_of, under_rules
from app.mapping.unreadable import unreadable_notes
from app.sync.desired import DesiredBooking, DesiredRecord
from app.sync.lookups import match_of
from app.sync.merge import placeholder

SectionMark = tuple[str, str, str]
"""The rules and the section that a record follows, and our key for the record."""


class Planner:
    """Plans bookings for one connection: its mapping, its CRM's shape, its account's directory."""

    def __init__(self, mapping: Mapping, shape: CrmShape, directory: Directory) -> None:
        self._mapping = mapping
        self._shape = shape
        self._directory = directory

    def plan(self, booking: Booking, context: PlanContext | None = None) -> DesiredBooking:
        """Return the records for the newest state of a booking.

        A problem that concerns one record only is in its `problems`. Raises InvalidRecord with the
        field's name if a value does not fit and the mapping says that the booking then fails.
        """
        if booking.reduced_at:
            words = (
                f"The data of its people was deleted on {booking.reduced_at:%Y-%m-%d}, after"
                " RETENTION_DAYS or on request: its records stay as they are until a newer webhook"
                " of the booking comes."
            )
            return DesiredBooking(booking.key, booking.version, skipped=words)
        if booking.replaced_by:
            words = f"moved: booking {booking.replaced_by} takes its place"
            return DesiredBooking(booking.key, booking.version, skipped=words)
        mapping, report = self._mapping, PlanReport()
        booking = of_no_company(booking, mapping.no_company)
        rules = mapping.rules_for(booking.meeting_type.slug, _host_email(booking))
        inputs = PlanInputs(
            mapping, self._shape, self._directory, booking, context or PlanContext(), rules
        )
        inputs = under_rules(inputs, rules, report)
        plan = form_plan(inputs, report) if booking.form else booking_plan(inputs, report)
        unreadable = () if plan.skipped else unreadable_notes(booking)
        return replace(plan, notes=(*unreadable, *plan.notes))


def _host_email(booking: Booking) -> str | None:
    """Return the address of the first host who has one: rules may depend on it."""
    return next((host.email for host in booking.hosts if host.email), None)


def booking_plan(inputs: PlanInputs, report: PlanReport) -> DesiredBooking:
    """Return every record that a booking of a meeting calls for."""
    booking, existing = inputs.booking, inputs.context.existing
    skip = next((s for s in inputs.rules.skip if holds(s.when, inputs.path_values())), None)
    departed = departed_people(inputs, report)
    if skip and existing.isdisjoint(own_refs(booking)):
        return _finished(inputs, report, departed, skipped=skip.because)
    if skip:
        words = (
            f"The mapping skips this booking ({skip.because}); existing records are kept current."
        )
        report.notes.append(words)
    people = [] if skip else chosen_attendees(inputs)
    companies = company_records(inputs, report, people)
    company_refs = {company.ref for company in companies}
    persons = person_records(inputs, report, people, company_refs)
    links = links_to_people(persons)
    main_company = Ref(ObjectName.COMPANY, inputs.main_attendee.company_domain or "")
    if main_company in company_refs:
        links += (main_company,)
    own, marks = _own_records(inputs, report, links, skipped=skip is not None)
    own += _superseded_records(inputs, report)
    groups = (record.match.value(MatchKey.OPEN_DEAL) for record in own)
    records = [*companies, *persons, *departed, *own]
    group = next((group for group in groups if group), "")
    return replace(_finished(inputs, report, records), mapping_section=marks, group=group)


def form_plan(inputs: PlanInputs, report: PlanReport) -> DesiredBooking:
    """Return a form's contact or lead, once it is clear that no booking follows the form."""
    form, booking, context = inputs.mapping.form, inputs.booking, inputs.context
    if form is None:
        return _finished(inputs, report, (), skipped="the mapping has no form_submission")
    if context.booked_since:
        return _finished(inputs, report, (), skipped="a booking followed the form")
    ripe = booking.start + timedelta(hours=form.after_hours)
    if context.now < ripe:
        return replace(_finished(inputs, report, ()), wait_until=ripe)
    name = ObjectName(form.kind)
    base = next(iter(inputs.rules.sections(name)), RecordRules())
    section = base.model_copy(update={"fields": {**base.fields, **form.fields}})
    companies = company_records(inputs, report, booking.attendees)
    company_refs = {company.ref for company in companies}
    person = person_record(inputs, report, name, section, inputs.main_attendee, company_refs)
    return _finished(inputs, report, [*companies, *person])


def _own_records(
    inputs: PlanInputs, report: PlanReport, links: tuple[Ref, ...], skipped: bool
) -> tuple[list[DesiredRecord], dict[str, SectionMark]]:
    """Return the booking's deal, case and meetings, and the section that each object follows.

    Each record is linked to `links` and to the records before it. `skipped`: nothing new is
    created.
    """
    records: list[DesiredRecord] = []
    marks: dict[str, SectionMark] = {}
    overflow: dict[str, str] = {}
    for name in OF_BOOKING:
        sections = inputs.rules.sections(name)
        section = next((section for section in sections if inputs.applies(section)), None)
        if section and not skipped and makes_records(section):
            made = make_by_section(inputs, report, section, links, overflow)
            marks[name] = _mark(inputs, section, made)
        else:
            made, remembered = _records_there(inputs, report, name, links, overflow)
            marks |= {name: remembered} if remembered else {}
        records += made
        links += tuple(record.ref for record in made)
    return records, marks


def _mark(inputs: PlanInputs, section: RecordRules, made: Sequence[DesiredRecord]) -> SectionMark:
    """Return the rules and the section that made these records, and our key for the newest of them."""
    booking = inputs.booking
    place = inputs.mapping.place(booking.meeting_type.slug, _host_email(booking))
    return place, mark_of(section), made[-1].ref.key if made else ""


def _records_there(
    inputs: PlanInputs,
    report: PlanReport,
    name: ObjectName,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
) -> tuple[list[DesiredRecord], SectionMark | None]:
    """Return existing records that the file would not create now, and the section that created them.

    They are kept current; if nothing can be written, other records are still linked to them.
    """
    there = [ref for ref in refs_of(inputs.booking) if ref.object is name]
    there = [ref for ref in there if ref in inputs.context.existing]
    if not there:
        return [], None
    remembered = inputs.context.mapping_section.get(name)
    mark = (remembered[0], remembered[1], remembered[2]) if remembered else None
    kept = keep_current(inputs, report, name, links, overflow)
    left_alone = [placeholder(ref) for ref in there[:1] if name is not ObjectName.MEETING]
    return kept or left_alone, mark


def _superseded_records(inputs: PlanInputs, report: PlanReport) -> list[DesiredRecord]:
    """Delete the records that the booking got before it was known to be a move."""
    refs = [ref for ref in superseded_refs(inputs.booking) if ref in inputs.context.existing]
    if refs:
        words = "It continues an earlier booking: the records that it got on its own are deleted."
        report.notes.append(words)
    return [_deleted(ref, inputs.directory) for ref in refs]


def _deleted(ref: Ref, directory: Directory) -> DesiredRecord:
    """Return a record to delete: if its create got no answer, it is found by its fields."""
    marker = directory.booking_fields.get(ref.object)
    fields = {marker: ref.key} if marker else {}
    match = replace(match_of(ref), create=False)
    return DesiredRecord(ref, fields, {}, match=match, delete=True)


def _finished(
    inputs: PlanInputs, report: PlanReport, records: Sequence[DesiredRecord], skipped: str = ""
) -> DesiredBooking:
    """Return the plan with these records and all notes and problems of the report."""
    booking = inputs.booking
    records = [_without_refused(inputs, report, record) for record in records]
    return DesiredBooking(
        booking.key,
        (booking.counts_from or booking.version) + _tie(booking.key),
        tuple(records),
        skipped=skipped,
        recheck_at=_recheck_at(inputs) if records else None,
        notes=tuple(report.notes),
        problems=report.problems,
    )


def _without_refused(
    inputs: PlanInputs, report: PlanReport, record: DesiredRecord
) -> DesiredRecord:
    """Return the record without values that the CRM refuses although its own lists have them."""
    left_out = {name for of, name in inputs.context.left_out if of is record.ref.object}
    refused = left_out & record.fields.keys()
    if not refused:
        return record
    for name in sorted(refused):
        report.notes.append(
            f"{record.ref.object}.{name} is left out: the CRM refuses"
            f" {record.fields[name]!r}, although its own list has it."
        )
    fields = {name: value for name, value in record.fields.items() if name not in refused}
    return replace(record, fields=fields, atomic_fields=record.atomic_fields - refused)


def _recheck_at(inputs: PlanInputs) -> datetime | None:
    """Return the next time to check again: for companies that others create, and meetings that pass.

    Links are checked once more after each sync, for a booking of any age.
    """
    minutes, now = inputs.mapping.recheck_minutes, inputs.context.now
    passed = inputs.booking.start + timedelta(seconds=1)
    moments = []
    if minutes is not None and inputs.context.recheck_of in (None, passed):
        moments.append(now + timedelta(minutes=minutes))
    if inputs.mapping.tells_of_people and not inputs.booking.cancelled:
        moments.append(passed)
    return min((moment for moment in moments if moment > now), default=None)


def _tie(key: str) -> timedelta:
    """Return less than a second, different for each booking. If two bookings changed at one moment,
    always the same one is newer, so that shared records do not depend on the order of work."""
    return timedelta(microseconds=zlib.crc32(key.encode()) % 1_000_000)
