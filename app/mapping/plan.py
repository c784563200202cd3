"""Turns a booking into the records that a CRM should hold for it: pure, the same every time."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from app.crm.lookup import LookupKey, Match, MatchKey, Whose
from app.crm.objects import PEOPLE, FieldValue, ObjectName, Ref
from app.crm.schema import CrmShape, Directory, FieldKind, Pipeline, Stage
from app.domain.booking import Attendee, Booking, BookingStatus
from app.domain.errors import InvalidRecord
from app.domain.history import History
from app.domain.people import address_key, company_domain, country_of, is_address
from app.domain.text import as_html, clean_text, cut, is_link, measure, no_formula, one_line
from app.mapping.coerce import coerce, plain
from app.mapping.companies import of_no_company
from app.mapping.conditions import holds
from app.mapping.mapping import Mapping
from app.mapping.paths import NAME_PATHS, build_context, plain_label, resolve
from app.mapping.schema import (
    FIRST,
    KEEP,
    CompanyRules,
    ContactRules,
    DealRules,
    LeadRules,
    MeetingRules,
    OwnerRules,
    RecordRules,
    Rules,
)
from app.mapping.summary import list_answers, summarise
from app.mapping.templates import names_in, render
from app.mapping.transforms import apply_transforms
from app.mapping.unreadable import unreadable_notes
from app.mapping.value_source import FieldKey, FieldMap, ValueSource
from app.sync.desired import DesiredBooking, DesiredRecord, WriteRule
from app.sync.lookups import match_of
from app.sync.merge import placeholder

OF_BOOKING = (ObjectName.DEAL, ObjectName.CASE, ObjectName.MEETING)
"""The objects that stand for a booking itself, by its own key."""
NAMING = (WriteRule.NEVER_BLANK, WriteRule.UNTOUCHED)
_NOBODY = Attendee(position=0)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PlanContext:
    """What a plan depends on beside the booking itself."""

    now: datetime = _LONG_AGO
    """For what ripens with time: forms without a booking, meetings that have passed (UTC)."""
    histories: MappingType[str, History] = field(default_factory=dict)
    """Identity of an attendee -> what all bookings of that person come to."""
    round_robin_position: int = 0
    """Whose turn it is, where owners take turns."""
    booked_since: bool = False
    """Whether the person of a form has booked after all."""
    existing: frozenset[Ref] = frozenset()
    """Of what the booking may call for, and of those who left it: what was made or begun before."""
    mapping_section: MappingType[str, Sequence[Any]] = field(default_factory=dict)
    """Object -> the rules and which of their sections its record was made by, and our key for it."""
    refused_owners: frozenset[str] = frozenset()
    """User ids that the CRM refuses as owners, although its list has them."""
    recheck_of: datetime | None = None
    """The moment for which this second look was put down (UTC); None at the first one."""
    left_out: frozenset[tuple[ObjectName, str]] = frozenset()
    """Fields whose value the CRM refuses, although its lists have it."""


class _LeftOut(Exception):
    """A record is left out because of a field that says so."""


class _Unfit(InvalidRecord):
    """A value does not fit its field, and the mapping says that the booking fails then."""


class _TooLong(ValueError):
    """An address is longer than its field: half of one reaches nobody."""


@dataclass
class _Fields:
    """Values of one record and how each may be written."""

    values: dict[str, FieldValue]
    rules: dict[str, WriteRule]
    together: frozenset[str] = frozenset()
    person_summary_fields: frozenset[str] = frozenset()

    def set(self, name: str, value: FieldValue, rule: WriteRule = WriteRule.ALWAYS) -> None:
        self.values[name] = value
        self.rules[name] = rule


class Planner:
    """Plans bookings for one connection: its mapping, its CRM's shape, its account's directory."""

    def __init__(self, mapping: Mapping, shape: CrmShape, directory: Directory) -> None:
        self._mapping = mapping
        self._shape = shape
        self._directory = directory

    def plan(self, booking: Booking, around: PlanContext | None = None) -> DesiredBooking:
        """The records for the newest state of a booking.

        What cannot be planned of one record alone stands in its `problems`. Raises InvalidRecord
        with the field's name where a value does not fit and the mapping says that this fails the
        booking.
        """
        around = around or PlanContext()
        if booking.replaced_by:
            words = f"moved: booking {booking.replaced_by} takes its place"
            return DesiredBooking(booking.key, booking.version, skipped=words)
        booking = of_no_company(booking, self._mapping.no_company)
        host = next((host.email for host in booking.hosts if host.email), None)
        rules = self._mapping.rules_for(booking.meeting_type.slug, host)
        draft = _Draft(self._mapping, self._shape, self._directory, rules, booking, around)
        plan = draft.form() if booking.form else draft.whole()
        told = () if plan.skipped else unreadable_notes(booking)
        return replace(plan, notes=(*told, *plan.notes))


class _Draft:
    """The plan of one booking as it is being made."""

    def __init__(
        self,
        mapping: Mapping,
        shape: CrmShape,
        directory: Directory,
        rules: Rules,
        booking: Booking,
        around: PlanContext,
    ) -> None:
        self._mapping, self._rules, self._around = mapping, rules, around
        self._shape, self._directory = shape, directory
        self._booking = booking
        self._notes: list[str] = []
        self._problems: dict[Ref, InvalidRecord] = {}
        self._first = booking.attendees[0] if booking.attendees else _NOBODY
        self._contexts: dict[tuple[int, bool], dict[str, Any]] = {}
        self._owner_id = self._owner(rules.owner)
        host = next((host.email for host in booking.hosts if host.email), None)
        self._place = mapping.place(booking.meeting_type.slug, host)
        self._made_by: dict[str, tuple[str, str, str]] = {}

    def whole(self) -> DesiredBooking:
        """Everything that the booking calls for."""
        self._first = self._main()
        skip = next((s for s in self._rules.skip if holds(s.when, self._context())), None)
        left = self._left()
        if skip and not self._around.existing & set(refs_of(self._booking)[: len(OF_BOOKING)]):
            return self._done(tuple(left), skipped=skip.because)
        if skip:
            self._skipped = True
            words = (
                f"The mapping skips this booking ({skip.because}); what is here is kept current."
            )
            self._notes.append(words)
        people = [] if skip else self._people()
        companies = self._companies(people)
        refs = {company.ref for company in companies}
        persons = self._persons(people, refs)
        links = _links_to(persons)
        home = Ref(ObjectName.COMPANY, self._first.company_domain or "")
        if home in refs:
            links += (home,)
        overflow: dict[str, str] = {}
        work: list[DesiredRecord] = []
        for name in OF_BOOKING:
            made = self._own_records(name, links, overflow)
            work += made
            links += tuple(record.ref for record in made)
        work += self._doubled()
        groups = (record.match.value(MatchKey.OPEN_DEAL) for record in work)
        group = next((group for group in groups if group), "")
        return self._done((*companies, *persons, *left, *work), group=group)

    def _doubled(self) -> list[DesiredRecord]:
        """Records that were made of this booking alone, before it was known that it is a move."""
        refs = [ref for ref in _before_its_story(self._booking) if ref in self._around.existing]
        if refs:
            words = "It continues an earlier booking: what was made of it alone is taken out again."
            self._notes.append(words)
        return [self._taken_out(ref) for ref in refs]

    def _taken_out(self, ref: Ref) -> DesiredRecord:
        """A record that is to go: found by what it was made with, where its create got no answer."""
        marker = self._directory.booking_fields.get(ref.object)
        match = replace(match_of(ref), create=False)
        fields = {marker: ref.key} if marker else {}
        record = replace(
            placeholder(ref), fields=fields, match=match, fill_only=False, links_to_drop=None
        )
        return replace(record, delete=True)

    _skipped = False

    def _own_records(
        self, name: ObjectName, links: tuple[Ref, ...], overflow: dict[str, str]
    ) -> list[DesiredRecord]:
        """The booking's deal, case or meeting, and the meetings that it was before.

        The file says what is made; what is there already is kept current, though the booking has
        become one that the file leaves out: by the section that it was made by.
        """
        sections = self._rules.sections(name)
        section = next((section for section in sections if self._applies(section)), None)
        if section and not self._skipped and _makes_any(section):
            records = self._by_section(name, section, links, overflow)
            key = records[-1].ref.key if records else ""
            self._made_by[name] = (self._place, _mark_of(section), key)
            return records
        there = [ref for ref in refs_of(self._booking) if ref.object is name]
        there = [ref for ref in there if ref in self._around.existing]
        # Where nothing can be written, the others are still linked to it.
        bare = [placeholder(ref) for ref in there[:1] if name is not ObjectName.MEETING]
        return (self._kept(name, links, overflow) or bare) if there else []

    def _kept(
        self, name: ObjectName, links: tuple[Ref, ...], overflow: dict[str, str]
    ) -> list[DesiredRecord]:
        """What is there already, as its own rules have it; nothing is made or looked for by them."""
        mapping_section = self._around.mapping_section.get(name)
        if mapping_section:
            self._made_by[name] = (mapping_section[0], mapping_section[1], mapping_section[2])
            rules = self._mapping.rules_at(mapping_section[0])
            section = _marked(rules.sections(name), mapping_section[1]) if rules else None
        else:
            rules, section = _only_one(self._mapping.every(), name)
        if rules is None or section is None:
            words = f"The mapping no longer tells how the {name} was made: it is left as it is."
            self._notes.append(words)
            return []
        asks = section.record_id is not None or bool(getattr(section, "match", ()))
        asks = asks or getattr(section, "per", "") == "open_deal_of_contact"
        told: dict[str, Any] = {"create": False, "match": (), "record_id": None, "per": "booking"}
        told["on_reschedule"] = "move"
        told = {key: value for key, value in told.items() if key in type(section).model_fields}
        draft = _Draft(
            self._mapping, self._shape, self._directory, rules, self._booking, self._around
        )
        draft._first = draft._main()
        key = mapping_section[2] if mapping_section else ""
        try:
            records = draft._by_section(name, section.model_copy(update=told), links, overflow, key)
            why = next(iter(draft._problems.values()), None)
        except _Unfit as error:
            why = error
        if why:
            self._notes.append(f"The {name} is left as it is: {why.message}")
            return []
        self._notes += draft._notes
        lent = [self._lent(record) if asks else record for record in records]
        return [replace(record, links_to_drop=self._gone()) for record in lent]

    def _by_section(
        self,
        name: ObjectName,
        section: Any,
        links: tuple[Ref, ...],
        overflow: dict[str, str],
        key: str = "",
    ) -> list[DesiredRecord]:
        """`key`: which of the meetings that are there is the one to come."""
        if name is ObjectName.MEETING:
            return self._meetings(section, links, overflow, key)
        make = self._deal if name is ObjectName.DEAL else self._case
        ref = Ref(name, self._booking.record_key)
        record = self._try(ref, lambda: make(section, links, overflow))
        return [record] if record else []

    def _case(
        self, section: RecordRules, links: tuple[Ref, ...], overflow: dict[str, str]
    ) -> DesiredRecord:
        return self._borrowed(self._of_booking(ObjectName.CASE, section, links, overflow))

    def _gone(self) -> frozenset[Ref]:
        """Those who left the booking, and the companies of which nobody is left."""
        domains = {
            company_domain(identity.partition(":")[2])
            for identity in self._booking.former_attendees
        }
        domains -= {person.company_domain for person in self._booking.attendees}
        people = {
            Ref(name, identity) for name in PEOPLE for identity in self._booking.former_attendees
        }
        return frozenset(people | {Ref(ObjectName.COMPANY, domain or "") for domain in domains})

    def form(self) -> DesiredBooking:
        """A contact or lead of its own, once it is clear that no booking follows the form."""
        rules = self._mapping.form
        if rules is None:
            return self._done((), skipped="the mapping has no form_submission")
        if self._around.booked_since:
            return self._done((), skipped="a booking followed the form")
        ripe = self._booking.start + timedelta(hours=rules.after_hours)
        if self._around.now < ripe:
            return replace(self._done(()), wait_until=ripe)
        name = ObjectName(rules.kind)
        base = next(iter(self._rules.sections(name)), RecordRules())
        section = base.model_copy(update={"fields": {**base.fields, **rules.fields}})
        companies = self._companies(list(self._booking.attendees))
        record = self._try(
            Ref(name, self._first.identity or ""),
            lambda: self._person(name, section, self._first, {c.ref for c in companies}),
        )
        return self._done((*companies, *([record] if record else ())))

    def _done(
        self, records: tuple[DesiredRecord, ...], skipped: str = "", group: str = ""
    ) -> DesiredBooking:
        booking = self._booking
        records = tuple(self._bare(record) for record in records)
        return DesiredBooking(
            booking.key,
            (booking.counts_from or booking.version) + _tie(booking.key),
            records,
            skipped=skipped,
            recheck_at=self._again_at() if records else None,
            notes=tuple(self._notes),
            mapping_section=self._made_by,
            group=group,
            problems=self._problems,
        )

    def _bare(self, record: DesiredRecord) -> DesiredRecord:
        """A record without the values that the CRM refuses although its own lists have them."""
        refused = {
            field
            for name, field in self._around.left_out
            if name is record.ref.object and field in record.fields
        }
        if not refused:
            return record
        for field_name in sorted(refused):
            self._notes.append(
                f"{record.ref.object}.{field_name} is left out: the CRM refuses"
                f" {record.fields[field_name]!r}, which its own list has."
            )
        fields = {name: v for name, v in record.fields.items() if name not in refused}
        return replace(record, fields=fields, atomic_fields=record.atomic_fields - refused)

    def _again_at(self) -> datetime | None:
        """When something will have ripened: a company made by others, a meeting that passed.

        Links are looked at once more after each sync, however old the booking's state is.
        """
        minutes, now = self._mapping.recheck_minutes, self._around.now
        passed = self._booking.start + timedelta(seconds=1)
        moments = []
        if minutes is not None and self._around.recheck_of in (None, passed):
            moments.append(now + timedelta(minutes=minutes))
        if self._mapping.tells_of_people and not self._booking.cancelled:
            moments.append(passed)
        return min((moment for moment in moments if moment > now), default=None)

    def _main(self) -> Attendee:
        """Whom the deal is about: the first attendee who counts, where none does the first of all."""
        chosen, people = self._rules.attendees, self._booking.attendees
        if isinstance(chosen, str):
            return self._first
        return next((p for p in people if holds(chosen.when, self._context(p))), self._first)

    def _people(self) -> list[Attendee]:
        chosen = self._rules.attendees
        people = [person for person in self._booking.attendees if person.identity]
        if chosen == "booker":
            return people[:1]
        if chosen != "all":
            return [p for p in people if holds(chosen.when, self._context(p))]
        return people

    def _companies(self, people: list[Attendee]) -> list[DesiredRecord]:
        section = self._rules.company
        if not section:
            return []
        by_domain = {p.company_domain: p for p in reversed(people) if p.company_domain}
        records = []
        for domain in dict.fromkeys(p.company_domain for p in people if p.company_domain):
            person = by_domain[domain]
            if not self._applies(section, person):
                continue
            ref = Ref(ObjectName.COMPANY, domain)
            record = self._try(ref, lambda r=ref, p=person: self._company(section, r, p))
            if record:
                records.append(record)
        return records

    def _company(self, section: CompanyRules, ref: Ref, person: Attendee) -> DesiredRecord:
        fields = self._evaluate(ref.object, section.fields, person, {})
        self._own(fields, ref.object)
        keys = self._keys(section, section.match or ("domain",), person)
        return self._record(ref, fields, (), section, keys, bool(section.match))

    def _persons(self, people: list[Attendee], companies: set[Ref]) -> list[DesiredRecord]:
        records = []
        for person in people:
            for name in self._kinds():
                section = self._rules.lead if name is ObjectName.LEAD else self._rules.contact
                if section is None or not self._applies(section, person):
                    continue
                record = self._try(
                    Ref(name, person.identity or ""),
                    lambda n=name, s=section, p=person: self._person(n, s, p, companies),
                )
                if record:
                    records.append(record)
        return records

    def _left(self) -> list[DesiredRecord]:
        """Those who took part before: what sums up a person's bookings counts this one no more."""
        records: list[DesiredRecord] = []
        for number, identity in enumerate(self._booking.former_attendees):
            refs = [Ref(name, identity) for name in PEOPLE]
            if not self._around.existing & set(refs):
                continue
            kind, _, address = identity.partition(":")
            by_email = kind == MatchKey.EMAIL
            person = replace(_NOBODY, position=-1 - number, email=address if by_email else None,
                             phone=None if by_email else address)  # fmt: skip
            for ref in refs:
                specs = self._sums(ref.object)
                record = self._try(ref, lambda r=ref, s=specs, p=person: self._summed(r, s, p))
                records += [record] if record and specs else []
        return records

    def _sums(self, name: ObjectName) -> FieldMap:
        """The fields of a person that the file makes of nothing else than the person's bookings."""
        specs: FieldMap = {}
        for rules in (self._rules, *self._mapping.every()):
            for section in rules.sections(name):
                pure = {key: spec for key, spec in section.fields.items() if spec.purely_personal}
                specs = {**pure, **specs}
        return specs

    def _summed(self, ref: Ref, specs: FieldMap, person: Attendee) -> DesiredRecord:
        fields = self._evaluate(ref.object, specs, person, {})
        match = replace(match_of(ref), create=False)
        return DesiredRecord(
            ref,
            fields.values,
            fields.rules,
            match=match,
            person_summary_fields=fields.person_summary_fields,
            fill_only=True,
            person=ref.key,
        )

    def _kinds(self) -> tuple[ObjectName, ...]:
        kind = self._rules.contact.kind if self._rules.contact else "none"
        if kind in ("contact", "none"):
            return (ObjectName.CONTACT,) if self._rules.contact else ()
        return (ObjectName.LEAD,) if kind == "lead" else PEOPLE

    def _person(
        self,
        name: ObjectName,
        section: ContactRules | LeadRules | RecordRules,
        person: Attendee,
        companies: set[Ref],
    ) -> DesiredRecord:
        fields = self._evaluate(name, section.fields, person, {})
        self._own(fields, name)
        company = Ref(ObjectName.COMPANY, person.company_domain or "")
        links = (company,) if company in companies and name is ObjectName.CONTACT else ()
        wanted: Any = getattr(section, "match", ())
        usual = ("email",) if person.email else ("phone",)
        keys = self._keys(section, wanted or usual, person)
        record = self._record(
            Ref(name, person.identity or ""), fields, links, section, keys, bool(wanted)
        )
        record = replace(record, with_company=self._rules.company is not None)
        kind = self._rules.contact.kind if self._rules.contact else "contact"
        if name is ObjectName.CONTACT and kind != "contact" and not self._booking.form:
            # A new contact only under an account that is there; else a lead is made.
            under = kind == "contact_under_account_else_lead" and record.match.create
            record = replace(record, match=replace(record.match, create=under, asked=True))
        return record

    def _deal(
        self, section: DealRules, links: tuple[Ref, ...], overflow: dict[str, str]
    ) -> DesiredRecord:
        record = self._of_booking(ObjectName.DEAL, section, links, overflow)
        values, rules = dict(record.fields), dict(record.rules)
        pipeline = find_pipeline(self._directory.pipelines, section.pipeline)
        stage = self._stage(section, pipeline)
        free = WriteRule.NEVER_BLANK if section.backwards else None
        if self._shape.pipeline_field:
            values[self._shape.pipeline_field] = pipeline.id
            rules[self._shape.pipeline_field] = free or WriteRule.ON_CREATE
        label = stage.label if self._shape.stage_by_label else stage.id
        values[self._shape.stage_field] = label
        rules[self._shape.stage_field] = free or WriteRule.FORWARD
        if section.kind == "lead" and not self._shape.inbox_ids:
            words = f"{self._mapping.crm} has no leads that stand for deals here"
            raise InvalidRecord(words, {"as": words})
        record = replace(
            record,
            fields=values,
            rules=rules,
            cancelled=self._booking.cancelled,
            inbox=section.kind == "lead",
        )
        if section.per == "open_deal_of_contact" and self._first.identity:
            scope = pipeline.id if self._shape.pipeline_field else ""
            key = LookupKey(MatchKey.OPEN_DEAL, self._first.identity, scope)
            keys = (*record.match.keys[:-1], key, record.match.keys[-1])
            record = replace(record, match=replace(record.match, keys=keys, asked=True))
        return self._borrowed(record)

    def _borrowed(self, record: DesiredRecord) -> DesiredRecord:
        """A deal or case that is looked for may be one of others: it is not marked as ours."""
        return self._lent(record) if record.match.asked else record

    def _lent(self, record: DesiredRecord) -> DesiredRecord:
        marker = self._directory.booking_fields.get(record.ref.object)
        rules = {**record.rules, **({marker: WriteRule.ON_CREATE} if marker else {})}
        return replace(record, not_ours=True, rules=rules)

    def _of_booking(
        self,
        name: ObjectName,
        section: RecordRules,
        links: tuple[Ref, ...],
        overflow: dict[str, str],
        key: str = "",
    ) -> DesiredRecord:
        """A record that stands for the booking itself: deal, case, meeting."""
        ref = Ref(name, key or self._booking.record_key)
        fields = self._evaluate(name, section.fields, None, overflow)
        self._own(fields, name)
        marker = self._directory.booking_fields.get(name)
        if marker:
            fields.set(marker, ref.key)
        wanted: Any = getattr(section, "match", ())
        keys = self._keys(section, wanted)
        return self._record(
            ref, fields, links, section, (*keys, LookupKey(MatchKey.BOOKING, ref.key)), bool(keys)
        )

    def _meetings(
        self,
        section: MeetingRules,
        links: tuple[Ref, ...],
        overflow: dict[str, str],
        current: str,
    ) -> list[DesiredRecord]:
        """The meeting, and where the history is kept one for every start that it had before."""
        booking, records = self._booking, []
        earlier = booking.previous_starts if section.on_reschedule == "keep_history" else ()
        length = booking.end - booking.start

        keys = meeting_keys(booking)

        def make(start: datetime, overflow: dict[str, str]) -> DesiredRecord | None:
            moves = section.on_reschedule == "move"
            key = (current or booking.record_key) if moves else keys[start]
            return self._try(
                Ref(ObjectName.MEETING, key),
                lambda: self._of_booking(ObjectName.MEETING, section, links, overflow, key),
            )

        for start in earlier:
            self._booking = replace(
                booking, start=start, end=start + length, status=BookingStatus.SCHEDULED
            )
            self._contexts.clear()
            self._moved = True
            record = make(start, {})
            records += [record] if record else []
        self._booking, self._moved = booking, False
        self._contexts.clear()
        record = make(booking.start, overflow)
        if record and booking.cancelled and section.on_cancel == "delete":
            record = replace(record, delete=True)
        return [*records, *([record] if record else ())]

    _moved = False

    def _record(
        self,
        ref: Ref,
        fields: _Fields,
        links: tuple[Ref, ...],
        section: RecordRules,
        keys: tuple[LookupKey, ...],
        asked: bool,
    ) -> DesiredRecord:
        if ref.object not in self._shape.objects:
            words = f"{self._mapping.crm} has no {ref.object} here"
            raise InvalidRecord(words, {ref.object.value: words})
        asked = asked or section.record_id is not None
        match = Match(keys, section.several, section.create, asked, section.when_deleted)
        person = ref.key if ref.object in PEOPLE else ""
        return DesiredRecord(
            ref, fields.values, fields.rules, links, match, fields.together, fields.person_summary_fields,
            person=person,
        )  # fmt: skip

    def _keys(
        self, section: RecordRules, wanted: Any, person: Attendee | None = None
    ) -> tuple[LookupKey, ...]:
        """What a record is looked for by, in the mapping's order; what is empty is left out."""
        keys, who = [], person or self._first
        if section.record_id and "record_id" not in wanted:
            wanted = ("record_id", *wanted)
        for kind in wanted:
            if isinstance(kind, FieldKey):
                if self._tells_of(kind.source, person):
                    value = self._text(kind.source, person, f"match {kind.field}")
                    keys.append(LookupKey(MatchKey.FIELD, value, kind.field))
            elif kind == "record_id":
                if section.record_id and self._tells_of(section.record_id, person):
                    value = self._text(section.record_id, person, "record_id")
                    whose = Whose(who.email or "", who.company_domain or "")
                    of = whose if section.record_id.of == "attendee" else None
                    keys.append(LookupKey(MatchKey.RECORD_ID, value, of=of))
            else:
                there = {
                    MatchKey.PHONE: who.phone,
                    MatchKey.DOMAIN: who.company_domain,
                }
                value = there.get(MatchKey(kind), who.email) or ""
                zone = who.timezone_as_given or who.timezone
                country = country_of(zone, who.language) if kind == "phone" else None
                keys.append(LookupKey(MatchKey(kind), value, country or ""))
        return tuple(key for key in keys if key.value)

    def _tells_of(self, source: ValueSource, person: Attendee | None) -> bool:
        """Whether a key is this person's: what a link names is one record, not each guest's."""
        roots = {re.split(r"[.\[]", path)[0] for path in source.paths}
        roots |= names_in(source.template) if source.template else set()
        first = person is None or person.position == self._first.position
        return first or bool({"attendee", "answers"} & roots)

    def _text(self, source: ValueSource, person: Attendee | None, place: str) -> str:
        """What a record is looked for by. Raises InvalidRecord: without it a double would be made."""
        try:
            value = plain(self._value(source, self._context(person), {}))
        except ValueError as error:
            raise InvalidRecord(f"{place}: {error}", {place: str(error)}) from None
        return no_formula(one_line(value) or "")

    def _applies(self, section: RecordRules, person: Attendee | None = None) -> bool:
        return holds(section.when, self._context(person))

    def _try(self, ref: Ref, make: Any) -> DesiredRecord | None:
        """Make a record; what cannot be planned of it costs nothing but this record.

        One that is there already is then left as it is, and the others are still linked to it.
        """
        try:
            record: DesiredRecord = make()
        except _LeftOut as error:
            self._notes.append(str(error))
        except _Unfit:
            raise
        except InvalidRecord as error:
            self._problems[ref] = error
            return placeholder(ref) if ref in self._around.existing else None
        else:
            return record
        return None

    def _context(self, person: Attendee | None = None) -> dict[str, Any]:
        """What paths see of one attendee and the own answers, or of the booking as a whole."""
        who = person or self._first
        key = (who.position, person is None)
        if key not in self._contexts:
            history = self._around.histories.get(who.identity or "")
            context = build_context(self._booking, who, history, own=person is not None)
            if self._moved:
                context["booking"] |= {"status": "moved", "state": "moved", "outcome": None}
            self._contexts[key] = context
        return self._contexts[key]

    def _evaluate(
        self, name: ObjectName, specs: FieldMap, person: Attendee | None, overflow: dict[str, str]
    ) -> _Fields:
        """Evaluate every field; what tells of other fields comes last."""
        context = self._context(person)
        fields = _Fields({}, {})
        for key in sorted(specs, key=lambda key: specs[key].late):
            spec = specs[key]
            try:
                value = self._coerced(name, key, self._value(spec, context, overflow))
                value = self._fit(name, key, value, overflow)
            except ValueError as error:
                problem = f"{name}.{key}: {error}"
                too_long = isinstance(error, _TooLong)
                if too_long and spec.on_error == "fail" and person and not person.full_name:
                    # Nothing is left to call the person by.
                    raise InvalidRecord(problem, {key: str(error)}) from None
                if spec.on_error == "fail" and not too_long:
                    raise _Unfit(problem, {key: str(error)}) from None
                if spec.on_error == "skip_record":
                    raise _LeftOut(f"The {name} was left out: {problem}") from None
                self._notes.append(f"{problem} (left out)")
                continue
            rule = WriteRule(spec.write)
            stands_in = "attendee.display_name" in spec.paths
            nameless = person and not person.full_name and value == person.display_name
            if name in PEOPLE and stands_in and nameless and rule in NAMING:
                # An address that stands in for the name wipes no name.
                rule = WriteRule.ON_CREATE
            fields.set(key, value, rule)
        fields.together = frozenset(
            key
            for key, spec in specs.items()
            if name in PEOPLE and NAME_PATHS & set(spec.paths) and key in fields.values
        )
        fields.person_summary_fields = frozenset(
            key for key, spec in specs.items() if spec.personal
        )
        return fields

    def _value(
        self,
        spec: ValueSource,
        context: MappingType[str, Any],
        overflow: dict[str, str],
    ) -> Any:
        if not holds(spec.when, context):
            return None
        value: Any
        if spec.summary:
            value = summarise(self._booking, overflow)
        elif spec.answers:
            taken = self._mapped() if spec.answers == "unmapped" else frozenset()
            value = list_answers(
                {q: a for q, a in context["answers"].items() if plain_label(q) not in taken}
            )
        elif spec.template is not None:
            value = render(spec.template, context)
        elif spec.first_of:
            found = (resolve(path, context) for path in spec.first_of)
            value = next((item for item in found if item not in (None, "", [])), None)
        elif spec.path:
            value = resolve(spec.path, context)
        else:
            value = spec.value
        return apply_transforms(value, spec.transforms, self._booking.timezone)

    def _mapped(self) -> frozenset[str]:
        """The questions whose answers some field takes."""
        return frozenset(label for spec in self._rules.sources() for label in spec.labels())

    def _coerced(self, name: ObjectName, key: str, value: Any) -> FieldValue:
        if isinstance(value, str):
            # Templates and payload paths bring text that nobody has looked at yet.
            value = clean_text(value)
        known = self._directory.field(name, key)
        made = coerce(value, known) if known else plain(value)
        free = isinstance(made, str) and (known is None or known.kind is FieldKind.TEXT)
        return no_formula(str(made)) if free else made

    def _fit(
        self, name: ObjectName, key: str, value: FieldValue, overflow: dict[str, str]
    ) -> FieldValue:
        """Make text fit its field: cut with a mark, the whole kept for the body.

        No link is cut, and no address: raises _TooLong.
        """
        if not isinstance(value, str):
            return value
        place = f"{name}.{key}"
        encode = as_html if place in self._shape.html_fields else str
        known = self._directory.field(name, key)
        limit = (known.length if known else None) or self._shape.text_limits.get(place)
        unit = self._shape.text_unit
        if limit is None or measure(encode(value), unit) <= limit:
            return encode(value)
        overflow.setdefault(key, value)
        if is_address(value):
            raise _TooLong(f"the address is longer than the {limit} characters of the field")
        if is_link(value):
            return None
        keep = limit
        while (over := measure(encode(cut(value, keep, unit)), unit) - limit) > 0:
            keep -= max(1, over // 6)
        return encode(cut(value, keep, unit))

    def _owner(self, owner: OwnerRules) -> str | None:
        """The user id of whom the rule names, else of the fallback; None where neither is a user."""
        hosts = [host.email for host in self._booking.hosts if host.email]
        wanted: list[str | None]
        if owner.rule == "table":
            table = {address_key(host): user for host, user in owner.table.items()}
            wanted = [table[host] for host in hosts if host in table]
        elif owner.rule == "fixed":
            wanted = [owner.user]
        elif owner.rule == "round_robin":
            turn = self._around.round_robin_position
            wanted = [owner.users[(turn + n) % len(owner.users)] for n in range(len(owner.users))]
        else:
            wanted = [*hosts]
        emails = [address_key(email) for email in (*wanted, owner.fallback) if email]
        if self._directory.unread:
            return ", else ".join(dict.fromkeys(emails)) or None
        directory, refused = self._directory, self._around.refused_owners
        for email in emails:
            user = directory.owner(email)
            if user is None and not directory.owners and "@" not in email:
                # Where the CRM does not tell its users the file may name them by their numbers.
                user = email
            if user and user not in refused:
                return user
            if user:
                self._notes.append(
                    f"The CRM refuses {email} as an owner, though its list has them."
                )
        return None

    def _own(self, fields: _Fields, name: ObjectName) -> None:
        key, owner = self._shape.owner_fields.get(name), self._rules.owner
        if key and key not in fields.values:
            rule = WriteRule(owner.write) if owner.write else WriteRule.NEVER_BLANK
            fields.set(key, self._owner_id, WriteRule.ON_CREATE if owner.rule == "keep" else rule)

    def _stage(self, deal: DealRules, pipeline: Pipeline) -> Stage:
        """The stage for the booking's state; `keep` means as a new booking's."""
        wanted = KEEP
        if self._booking.cancelled:
            wanted = deal.stage.cancelled
        elif self._booking.rescheduled:
            wanted = deal.stage.rescheduled
        wanted = deal.stage.created if wanted == KEEP else wanted
        return find_stage(pipeline, wanted)


def refs_of(booking: Booking) -> list[Ref]:
    """Of which records a plan has to know whether they are there: the booking's own come first."""
    own = [Ref(name, booking.record_key) for name in OF_BOOKING]
    meetings = [Ref(ObjectName.MEETING, key) for key in meeting_keys(booking).values()]
    here = [person.identity for person in booking.attendees if person.identity]
    people = [
        Ref(name, identity) for name in PEOPLE for identity in (*booking.former_attendees, *here)
    ]
    domains = [person.company_domain for person in booking.attendees if person.company_domain]
    companies = [Ref(ObjectName.COMPANY, domain) for domain in domains]
    story = _before_its_story(booking)
    return list(dict.fromkeys([*own, *meetings, *people, *companies, *story]))


def _before_its_story(booking: Booking) -> list[Ref]:
    """What may have been made of a booking before it was known that it continues another one."""
    return [Ref(name, key) for key in booking.story_keys for name in OF_BOOKING]


def meeting_keys(booking: Booking) -> dict[datetime, str]:
    """Start -> our key for the meeting then. The earliest goes by the booking's own key: a meeting
    that was made before the file asked for a history is not made again."""
    starts = sorted({*booking.previous_starts, booking.start})
    base = booking.record_key
    later = {start: f"{base}@{start:%Y%m%dT%H%M%SZ}" for start in starts[1:]}
    return {starts[0]: base, **later}


def _mark_of(section: RecordRules) -> str:
    """What tells a section from others, also where its fields are changed or others come before it."""
    told = section.model_dump_json(include={"when", "per", "pipeline"})
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _marked(sections: Sequence[RecordRules], mark: str) -> RecordRules | None:
    if len(sections) == 1:
        return sections[0] if _makes_any(sections[0]) else None
    return next((section for section in sections if _mark_of(section) == mark), None)


def _only_one(every: Iterable[Rules], name: ObjectName) -> tuple[Rules | None, RecordRules | None]:
    """The one section of an object that a file has, and the first rules with it."""
    found: list[tuple[Rules, RecordRules]] = []
    for rules in every:
        for section in rules.sections(name):
            if _makes_any(section) and all(section != other for _, other in found):
                found.append((rules, section))
    return found[0] if len(found) == 1 else (None, None)


def _makes_any(section: RecordRules) -> bool:
    return not isinstance(section, DealRules) or section.per != "none"


def _tie(key: str) -> timedelta:
    """Less than a second, another for each booking: of two that changed at the same moment one is
    always the newer, so that what they share does not change with the order of their work."""
    return timedelta(microseconds=zlib.crc32(key.encode()) % 1_000_000)


def _links_to(persons: list[DesiredRecord]) -> tuple[Ref, ...]:
    """How others link to people: who may be a contact or a lead is linked to as a contact."""
    refs = {record.ref for record in persons}
    contacts = (Ref(ObjectName.CONTACT, record.ref.key) for record in persons)
    pairs = zip(contacts, persons, strict=True)
    return tuple(dict.fromkeys(c if c in refs else record.ref for c, record in pairs))


def find_pipeline(pipelines: tuple[Pipeline, ...], wanted: str) -> Pipeline:
    """The pipeline of that label or id, or the first. Raises InvalidRecord naming what there is."""
    usable = tuple(pipeline for pipeline in pipelines if pipeline.stages)
    if not usable:
        message = "the CRM account has no pipeline with a stage"
        raise InvalidRecord(message, {"pipeline": message}, listed=True)
    return usable[0] if wanted == FIRST else _named(usable, wanted, "pipeline", "the account")


def find_stage(pipeline: Pipeline, wanted: str) -> Stage:
    """The stage of that label or id, or the first. Raises InvalidRecord naming what there is."""
    stages = pipeline.stages
    return stages[0] if wanted == FIRST else _named(stages, wanted, "stage", pipeline.label)


Named = TypeVar("Named", Pipeline, Stage)


def _named(items: tuple[Named, ...], wanted: str, kind: str, where: str) -> Named:
    plain_name = wanted.strip().casefold()
    found = [item for item in items if item.id.casefold() == plain_name]
    found = found or [item for item in items if item.label.casefold() == plain_name]
    if len(found) > 1:
        ids = ", ".join(item.id for item in found)
        message = (
            f"{len(found)} {kind}s are called {wanted!r} in {where}; name one by its id: {ids}"
        )
        raise InvalidRecord(message, {kind: message}, listed=True)
    if found:
        return found[0]
    there = ", ".join(item.label for item in items)
    message = f"there is no {kind} {wanted!r} in {where}; there are: {there}"
    raise InvalidRecord(message, {kind: message}, listed=True)
