"""Plans for people who left a booking: updates their summaries and removes links to them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from app.crm.lookup import MatchKey
from app.crm.objects import PEOPLE, ObjectName, Ref
from app.domain.booking import Attendee, Booking
from app.domain.people import company_domain
from app.mapping.field_values import evaluate_fields
from app.mapping.plan_context import NOBODY, PlanInputs, PlanReport
from app.mapping.records import attempt
from app.mapping.value_source import FieldMap
from app.sync.desired import DesiredRecord
from app.sync.lookups import match_of


def departed_people(inputs: PlanInputs, report: PlanReport) -> list[DesiredRecord]:
    """Update people who took part before: a summary of their bookings no longer counts this one."""
    records: list[DesiredRecord] = []
    for number, identity in enumerate(inputs.booking.former_attendees):
        refs = [Ref(name, identity) for name in PEOPLE]
        if inputs.context.existing & set(refs):
            person = _former_attendee(number, identity)
            for ref in refs:
                records += _summary_record(inputs, report, ref, person)
    return records


def departed_refs(booking: Booking) -> frozenset[Ref]:
    """Return the people who left the booking, and the companies that nobody takes part for any more."""
    former = booking.former_attendees
    domains = {company_domain(identity.partition(":")[2]) for identity in former}
    domains -= {person.company_domain for person in booking.attendees}
    people = {Ref(name, identity) for name in PEOPLE for identity in former}
    return frozenset(people | {Ref(ObjectName.COMPANY, domain or "") for domain in domains})


def _former_attendee(number: int, identity: str) -> Attendee:
    """Return what is still known of a person who left; the position belongs to no present attendee."""
    kind, _, address = identity.partition(":")
    by_email = kind == MatchKey.EMAIL
    return replace(
        NOBODY,
        position=-1 - number,
        email=address if by_email else None,
        phone=None if by_email else address,
    )


def _summary_record(
    inputs: PlanInputs, report: PlanReport, ref: Ref, person: Attendee
) -> list[DesiredRecord]:
    """Return the person's record with only the summaries; none if the file has no such field."""
    specs = _summary_fields(inputs, ref.object)
    if not specs:
        return []
    return attempt(inputs, report, ref, partial(_summarised, inputs, report, ref, specs, person))


def _summary_fields(inputs: PlanInputs, name: ObjectName) -> FieldMap:
    """Return the fields whose values come only from the person's bookings."""
    specs: FieldMap = {}
    sections = (
        s for rules in (inputs.rules, *inputs.mapping.every()) for s in rules.sections(name)
    )
    for section in sections:
        pure = {key: spec for key, spec in section.fields.items() if spec.purely_personal}
        specs = {**pure, **specs}
    return specs


def _summarised(
    inputs: PlanInputs, report: PlanReport, ref: Ref, specs: FieldMap, person: Attendee
) -> DesiredRecord:
    fields = evaluate_fields(inputs, report, ref.object, specs, person, {})
    return DesiredRecord(
        ref,
        fields.values,
        fields.rules,
        match=replace(match_of(ref), create=False),
        person_summary_fields=fields.person_summary,
        fill_only=True,
        person=ref.key,
    )
