"""Turns a booking into the records that a CRM should hold for it: pure, the same every time."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from app.domain.booking import Attendee, Booking
from app.domain.errors import InvalidRecord
from app.domain.records import (
    CrmShape,
    DesiredBooking,
    DesiredRecord,
    Directory,
    FieldValue,
    Match,
    ObjectName,
    Pipeline,
    Ref,
    Stage,
    WriteRule,
)
from app.domain.text import as_html, cut, is_link
from app.mapping.paths import NAME_PATHS, build_context, resolve
from app.mapping.schema import KEEP, DealRules, FieldMap, FieldSpec, Mapping, Rules
from app.mapping.summary import summarise
from app.mapping.templates import render
from app.mapping.transforms import PLAIN, apply_transforms

_NOBODY = Attendee(position=0)


@dataclass
class _Fields:
    """Values of one record and how each may be written."""

    values: dict[str, FieldValue]
    rules: dict[str, WriteRule]
    together: frozenset[str] = frozenset()

    def set(self, field: str, value: FieldValue, rule: WriteRule = WriteRule.ALWAYS) -> None:
        self.values[field] = value
        self.rules[field] = rule


class Planner:
    """Plans bookings for one connection: its mapping, its CRM's shape, its account's directory."""

    def __init__(self, mapping: Mapping, shape: CrmShape, directory: Directory) -> None:
        self._mapping = mapping
        self._shape = shape
        self._directory = directory

    def plan(self, booking: Booking) -> DesiredBooking:
        """The records for the newest state of a booking.

        Raises InvalidRecord where the mapping and the booking do not fit, with the field's name.
        """
        rules = self._mapping.rules_for(booking.meeting_type.slug)
        owner = self._owner(booking, rules)
        people = [person for person in booking.attendees if person.identity]
        companies = self._companies(rules, booking, people, owner)
        contacts = self._contacts(rules, booking, people, owner, set(c.ref for c in companies))
        first = booking.attendees[0] if booking.attendees else _NOBODY
        links = tuple(record.ref for record in contacts)
        home = Ref(ObjectName.COMPANY, first.company_domain or "")
        if home in {company.ref for company in companies}:
            links += (home,)
        overflow: dict[str, str] = {}
        work: list[DesiredRecord] = []
        for name in (ObjectName.DEAL, ObjectName.MEETING):
            section = getattr(rules, name)
            if section is None:
                continue
            fields = self._evaluate(name, section.fields, booking, first, overflow)
            self._own(fields, name, owner)
            self._identify(fields, name, booking)
            if isinstance(section, DealRules):
                self._stage(fields, section, booking)
            ref = Ref(name, booking.key)
            match = Match(booking_id=booking.key, email=first.email, phone=first.phone)
            work.append(self._record(ref, fields, links, match))
            links += (ref,)
        return DesiredBooking(booking.key, booking.version, (*companies, *contacts, *work))

    def _companies(
        self, rules: Rules, booking: Booking, people: list[Attendee], owner: str | None
    ) -> list[DesiredRecord]:
        if not rules.company:
            return []
        by_domain = {p.company_domain: p for p in reversed(people) if p.company_domain}
        records = []
        for domain in dict.fromkeys(p.company_domain for p in people if p.company_domain):
            fields = self._evaluate(
                ObjectName.COMPANY, rules.company.fields, booking, by_domain[domain], {}
            )
            self._own(fields, ObjectName.COMPANY, owner)
            ref = Ref(ObjectName.COMPANY, domain)
            records.append(self._record(ref, fields, (), Match(domain=domain)))
        return records

    def _contacts(
        self,
        rules: Rules,
        booking: Booking,
        people: list[Attendee],
        owner: str | None,
        companies: set[Ref],
    ) -> list[DesiredRecord]:
        records = []
        for person in people if rules.contact else ():
            assert rules.contact is not None  # noqa: S101 - for the type checker
            fields = self._evaluate(ObjectName.CONTACT, rules.contact.fields, booking, person, {})
            self._own(fields, ObjectName.CONTACT, owner)
            company = Ref(ObjectName.COMPANY, person.company_domain or "")
            links = (company,) if company in companies else ()
            ref = Ref(ObjectName.CONTACT, person.identity or "")
            records.append(
                self._record(ref, fields, links, Match(email=person.email, phone=person.phone))
            )
        return records

    def _record(
        self, ref: Ref, fields: _Fields, links: tuple[Ref, ...], match: Match
    ) -> DesiredRecord:
        return DesiredRecord(ref, fields.values, fields.rules, links, match, fields.together)

    def _evaluate(
        self,
        name: ObjectName,
        specs: FieldMap,
        booking: Booking,
        person: Attendee,
        overflow: dict[str, str],
    ) -> _Fields:
        """Evaluate every field; summaries last, since they take what was too long elsewhere."""
        context = build_context(booking, person)
        fields = _Fields({}, {})
        for field in sorted(specs, key=lambda key: specs[key].summary is not None):
            spec = specs[field]
            try:
                value = _evaluate(spec, booking, context, overflow)
            except ValueError as error:
                problem = f"{name}.{field}: {error}"
                raise InvalidRecord(problem, {field: str(error)}) from None
            fields.set(field, self._fit(name, field, value, overflow), spec.write)
        named = {f for f, spec in specs.items() if NAME_PATHS & set(spec.paths)}
        fields.together = frozenset(named)
        return fields

    def _fit(
        self, name: ObjectName, field: str, value: FieldValue, overflow: dict[str, str]
    ) -> FieldValue:
        """Make text fit its field: cut with a mark, the whole kept for the body; no link is cut."""
        if not isinstance(value, str):
            return value
        place = f"{name}.{field}"
        encode = as_html if place in self._shape.html_fields else str
        limit = self._shape.text_limits.get(place)
        if limit is None or len(encode(value)) <= limit:
            return encode(value)
        overflow.setdefault(field, value)
        if is_link(value):
            return None
        keep = limit
        while len(encode(cut(value, keep))) > limit:
            keep -= max(1, (len(encode(cut(value, keep))) - limit) // 6)
        return encode(cut(value, keep))

    def _owner(self, booking: Booking, rules: Rules) -> str | None:
        emails = [host.email for host in booking.hosts]
        fallback = rules.owner.fallback
        wanted = [*filter(None, emails), *([fallback.strip().lower()] if fallback else [])]
        return next(
            (self._directory.owners[e] for e in wanted if e in self._directory.owners), None
        )

    def _own(self, fields: _Fields, name: ObjectName, owner: str | None) -> None:
        field = self._shape.owner_fields.get(name)
        if field and field not in fields.values:
            fields.set(field, owner, WriteRule.NEVER_BLANK)

    def _identify(self, fields: _Fields, name: ObjectName, booking: Booking) -> None:
        field = self._directory.booking_fields.get(name)
        if field:
            fields.set(field, booking.key)

    def _stage(self, fields: _Fields, deal: DealRules, booking: Booking) -> None:
        """Set pipeline and stage for the booking's state; `keep` means as a new booking's."""
        wanted = KEEP
        if booking.cancelled:
            wanted = deal.stage.cancelled
        elif booking.rescheduled:
            wanted = deal.stage.rescheduled
        pipeline = find_pipeline(self._directory.pipelines, deal.pipeline)
        wanted = deal.stage.created if wanted == KEEP else wanted
        stages = pipeline.stages
        stage = stages[0] if wanted == "first" else _named(stages, wanted, "stage", pipeline.label)
        if self._shape.pipeline_field:
            fields.set(self._shape.pipeline_field, pipeline.id)
        label = stage.label if self._shape.stage_by_label else stage.id
        fields.set(self._shape.stage_field, label)


def find_pipeline(pipelines: tuple[Pipeline, ...], wanted: str) -> Pipeline:
    """The pipeline of that label or id, or the first. Raises InvalidRecord naming what there is."""
    usable = tuple(pipeline for pipeline in pipelines if pipeline.stages)
    if not usable:
        message = "the CRM account has no pipeline with a stage"
        raise InvalidRecord(message, {"pipeline": message})
    return usable[0] if wanted == "first" else _named(usable, wanted, "pipeline", "the account")


Named = TypeVar("Named", Pipeline, Stage)


def _named(items: tuple[Named, ...], wanted: str, kind: str, where: str) -> Named:
    plain = wanted.strip().casefold()
    for item in items:
        if plain in (item.label.casefold(), item.id.casefold()):
            return item
    there = ", ".join(item.label for item in items)
    message = f"there is no {kind} {wanted!r} in {where}; there are: {there}"
    raise InvalidRecord(message, {kind: message})


def _evaluate(
    spec: FieldSpec, booking: Booking, context: MappingType[str, Any], overflow: dict[str, str]
) -> FieldValue:
    if not _holds(spec.when, context):
        return None
    if spec.summary:
        value: Any = summarise(booking, overflow)
    elif spec.template is not None:
        value = render(spec.template, context)
    elif spec.first_of:
        found = (resolve(path, context) for path in spec.first_of)
        value = next((item for item in found if item not in (None, "")), None)
    elif spec.path:
        value = resolve(spec.path, context)
    else:
        value = spec.value
    return _as_field(apply_transforms(value, spec.transforms))


def _as_field(value: Any) -> FieldValue:
    if isinstance(value, datetime):
        return str(PLAIN["iso"](value, None))
    if isinstance(value, str):
        return str(value) or None
    return value if isinstance(value, (int, float, bool, list)) else None


def _holds(when: MappingType[str, Any], context: MappingType[str, Any]) -> bool:
    """Whether every condition holds: a value, a list of values, or {not: value}."""
    return all(_matches(resolve(path, context), wanted) for path, wanted in when.items())


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, MappingType) and set(wanted) == {"not"}:
        return not _matches(value, wanted["not"])
    if isinstance(wanted, list):
        return any(_matches(value, item) for item in wanted)
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    return str(value if value is not None else "").casefold() == str(wanted or "").casefold()
