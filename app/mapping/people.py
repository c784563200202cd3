"""Plans the people of a booking: which attendees count, their companies, contacts and leads."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

from app.crm.objects import PEOPLE, ObjectName, Ref
from app.domain.booking import Attendee
from app.mapping.conditions import holds
from app.mapping.field_values import evaluate_fields
from app.mapping.match_keys import match_keys
from app.mapping.owners import set_owner
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.records import assemble, attempt
from app.mapping.schema import CompanyRules, RecordRules
from app.sync.desired import DesiredRecord


def main_attendee(inputs: PlanInputs) -> Attendee:
    """Return the first attendee who counts by the rules; if nobody counts, the first one of all."""
    chosen, people = inputs.rules.attendees, inputs.booking.attendees
    if isinstance(chosen, str):
        return inputs.main_attendee
    counting = (p for p in people if holds(chosen.when, inputs.path_values(p)))
    return next(counting, inputs.main_attendee)


def chosen_attendees(inputs: PlanInputs) -> list[Attendee]:
    """Return the attendees who become contacts or leads by the rules."""
    chosen = inputs.rules.attendees
    people = [person for person in inputs.booking.attendees if person.identity]
    if chosen == "booker":
        return people[:1]
    if chosen == "all":
        return people
    return [person for person in people if holds(chosen.when, inputs.path_values(person))]


def company_records(
    inputs: PlanInputs, report: PlanReport, people: Sequence[Attendee]
) -> list[DesiredRecord]:
    """Return the companies of the attendees, each once: a domain's first attendee gives the values."""
    section = inputs.rules.company
    if not section:
        return []
    first_of = {p.company_domain: p for p in reversed(people) if p.company_domain}
    records: list[DesiredRecord] = []
    for domain in dict.fromkeys(p.company_domain for p in people if p.company_domain):
        person, ref = first_of[domain], Ref(ObjectName.COMPANY, domain)
        if inputs.applies(section, person):
            make = partial(_company, inputs, report, section, ref, person)
            records += attempt(inputs, report, ref, make)
    return records


def _company(
    inputs: PlanInputs, report: PlanReport, section: CompanyRules, ref: Ref, person: Attendee
) -> DesiredRecord:
    fields = evaluate_fields(inputs, report, ref.object, section.fields, person, {})
    set_owner(inputs, fields, ref.object)
    keys = match_keys(inputs, section, section.match or ("domain",), person)
    return assemble(inputs, ref, fields, (), section, keys, bool(section.match))


def person_records(
    inputs: PlanInputs,
    report: PlanReport,
    people: Sequence[Attendee],
    companies: AbstractSet[Ref],
) -> list[DesiredRecord]:
    """Return the contacts and leads of the attendees; a contact is linked to one of these companies."""
    rules = inputs.rules
    sections = {ObjectName.CONTACT: rules.contact, ObjectName.LEAD: rules.lead}
    records: list[DesiredRecord] = []
    for person in people:
        for name in _objects_of_person(inputs):
            section = sections[name]
            if section and inputs.applies(section, person):
                records += person_record(inputs, report, name, section, person, companies)
    return records


def _objects_of_person(inputs: PlanInputs) -> tuple[ObjectName, ...]:
    """Return the objects that an attendee may become."""
    contact = inputs.rules.contact
    if contact is None:
        return ()
    if contact.kind == "contact":
        return (ObjectName.CONTACT,)
    return (ObjectName.LEAD,) if contact.kind == "lead" else PEOPLE


def person_record(
    inputs: PlanInputs,
    report: PlanReport,
    name: ObjectName,
    section: RecordRules,
    person: Attendee,
    companies: AbstractSet[Ref],
) -> list[DesiredRecord]:
    """Return an attendee's contact or lead in a list; an empty list if it cannot be planned."""
    ref = Ref(name, person.identity or "")
    make = partial(_person, inputs, report, ref, section, person, companies)
    return attempt(inputs, report, ref, make)


def _person(
    inputs: PlanInputs,
    report: PlanReport,
    ref: Ref,
    section: RecordRules,
    person: Attendee,
    companies: AbstractSet[Ref],
) -> DesiredRecord:
    is_contact = ref.object is ObjectName.CONTACT
    fields = evaluate_fields(inputs, report, ref.object, section.fields, person, {})
    set_owner(inputs, fields, ref.object)
    company = Ref(ObjectName.COMPANY, person.company_domain or "")
    links = (company,) if company in companies and is_contact else ()
    wanted: tuple[Any, ...] = getattr(section, "match", ())
    usual = ("email",) if person.email else ("phone",)
    keys = match_keys(inputs, section, wanted or usual, person)
    record = assemble(inputs, ref, fields, links, section, keys, bool(wanted))
    record = replace(record, with_company=inputs.rules.company is not None)
    kind = inputs.rules.contact.kind if inputs.rules.contact else "contact"
    if is_contact and kind != "contact" and not inputs.booking.form:
        # A new contact is only created under an existing account; otherwise a lead is created.
        create = kind == "contact_under_account_else_lead" and record.match.create
        record = replace(record, match=replace(record.match, create=create, asked=True))
    return record


def links_to_people(records: Sequence[DesiredRecord]) -> tuple[Ref, ...]:
    """Return links to people for other records; a person who may be either is linked as a contact."""
    refs = {record.ref for record in records}
    pairs = ((Ref(ObjectName.CONTACT, record.ref.key), record.ref) for record in records)
    return tuple(dict.fromkeys(contact if contact in refs else ref for contact, ref in pairs))
