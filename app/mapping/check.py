"""Checks a mapping against a CRM account: reports every problem at once and writes nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Any

from app.crm.lookup import MatchKey
from app.crm.objects import ObjectName
from app.crm.schema import APPENDABLE, CrmField, CrmShape, Directory, FieldKind, NewField
from app.domain.errors import InvalidRecord
from app.domain.text import did_you_mean
from app.mapping.coerce import coerce
from app.mapping.deals import find_pipeline, find_stage
from app.mapping.elsewhere import set_elsewhere
from app.mapping.mapping import Mapping
from app.mapping.provision import Seen, constants_of, kinds_of, new_field
from app.mapping.schema import KEEP, DealRules, FormRules, OwnerRules, RecordRules, Rules
from app.mapping.value_source import FieldKey, FieldSpec
from app.sync.desired import WriteRule

Location = tuple[int | str, ...]
_WORDS = frozenset({FieldKind.TEXT, FieldKind.ADDRESS, FieldKind.OTHER})
"""Fields that accept any text."""
_NUMBERS = _WORDS | {FieldKind.NUMBER, FieldKind.WHOLE, FieldKind.MONEY, FieldKind.CHOICE}
_TIMES = _WORDS | {FieldKind.DATE, FieldKind.MOMENT}
_FITS: dict[FieldKind, frozenset[FieldKind]] = {
    FieldKind.TEXT: _WORDS | {
        FieldKind.CHOICE, FieldKind.CHOICES, FieldKind.REFERENCE, FieldKind.TIME, FieldKind.MONEY,
        FieldKind.USER, FieldKind.DATES,
        FieldKind.TIMES,
    },
    FieldKind.NUMBER: _NUMBERS,
    FieldKind.WHOLE: _NUMBERS,
    FieldKind.FLAG: _WORDS | {FieldKind.FLAG, FieldKind.CHOICE},
    FieldKind.DATE: _TIMES,
    FieldKind.MOMENT: _TIMES,
    FieldKind.TIME: _WORDS | {FieldKind.TIME},
    FieldKind.CHOICES: _WORDS | {FieldKind.CHOICES},
}  # fmt: skip
"""Kind of a value -> the kinds of field that accept it."""


@dataclass(frozen=True)
class Complaint:
    """Something in the file that the CRM would refuse, and its place in the file."""

    location: Location
    message: str
    missing: NewField | None = None
    """The custom field to create to solve the problem."""

    @property
    def key(self) -> str:
        """The place in the form that people read."""
        return ".".join(str(part) for part in self.location)


def check_against(
    mapping: Mapping, shape: CrmShape, directory: Directory, seen: Seen | None = None
) -> list[Complaint]:
    """Return every complaint about a mapping, each once, in the order of the file's sections.

    `seen`: answers in stored bookings, which show the type of a missing field.
    """
    found: list[Complaint] = []
    said: set[tuple[Location, str]] = set()
    judge = Checker(shape, directory, mapping.crm, seen)
    for prefix, slug, host in mapping.places():
        for complaint in judge.rules(mapping.rules_for(slug, host)):
            # A complaint about an inherited rule is reported only at the place of that rule.
            own = mapping.says(prefix, complaint.location)
            if (complaint.location, complaint.message) in said and not own:
                continue
            said.add((complaint.location, complaint.message))
            place = (*prefix, *complaint.location)
            found.append(Complaint(place, complaint.message, complaint.missing))
    if mapping.form:
        found += judge.form(mapping.form, mapping.rules_for(None))
    return list(dict.fromkeys(found))


class Checker:
    """Checks one set of rules."""

    def __init__(
        self, shape: CrmShape, directory: Directory, crm: str, seen: Seen | None = None
    ) -> None:
        self._shape, self._directory, self._crm, self._seen = shape, directory, crm, seen or {}

    def rules(self, rules: Rules) -> Iterator[Complaint]:
        """Give complaints about all rules for one meeting type and host."""
        yield from self._owner(rules.owner)
        for name in ObjectName:
            sections = rules.sections(name)
            for number, section in enumerate(sections):
                several = name is ObjectName.DEAL and len(sections) > 1
                place: Location = (name.value, number) if several else (name.value,)
                yield from self._section(name, section, place)
        leads = ObjectName.LEAD in self._shape.objects
        if rules.contact and rules.contact.kind != "contact" and not leads:
            yield Complaint(("contact", "as"), f"{self._crm} has no leads beside contacts")

    def _section(
        self, name: ObjectName, section: RecordRules, place: Location
    ) -> Iterator[Complaint]:
        if name not in self._shape.objects:
            yield Complaint(place, f"{self._crm} has no {name} here")
            return
        if isinstance(section, DealRules) and section.per == "none":
            return
        if isinstance(section, DealRules) and section.kind == "lead" and not self._shape.inbox_ids:
            yield Complaint((*place, "as"), f"{self._crm} cannot use leads in place of deals here")
        yield from self.fields(name, section.fields, place)
        yield from self._match(name, getattr(section, "match", ()), place)
        if section.create:
            yield from self._required(name, section, place)
        if isinstance(section, DealRules):
            yield from self._stages(section, place)

    def fields(
        self, name: ObjectName, fields: MappingType[str, FieldSpec], place: Location
    ) -> Iterator[Complaint]:
        """Give complaints about single fields: missing, read-only, or of the wrong type."""
        schema = self._directory.schema.get(name)
        if schema is None:
            return
        for key, spec in fields.items():
            here = (*place, "fields", key)
            known = schema.get(key)
            elsewhere = set_elsewhere(name, key, spec, self._shape)
            if elsewhere:
                yield Complaint(here, elsewhere)
            elif known is None:
                pattern = self._shape.new_fields.get(name)
                new = new_field(name, key, spec, self._seen)
                usable = pattern is not None and re.fullmatch(pattern, key)
                yield Complaint(here, _unknown(key, name, schema), new if usable else None)
            elif known.also:
                keys = ", ".join(known.also)
                yield Complaint(
                    here, f"{len(known.also)} fields are called {key}; name one by its key: {keys}"
                )
            elif not known.writable:
                yield Complaint(here, f"{key} ({known.label}) is read-only in {self._crm}")
            else:
                problem = _misfit(spec, known)
                if problem:
                    yield Complaint(here, problem)
                if spec.write == WriteRule.APPEND and known.kind not in APPENDABLE:
                    words = f"append cannot be used for {key}: it is {known.kind}"
                    yield Complaint((*here, "write"), f"{words}. It works only for texts and lists")

    def _match(self, name: ObjectName, match: Any, place: Location) -> Iterator[Complaint]:
        usable = {
            MatchKey.RECORD_ID,
            *self._shape.match_keys.get(name, ()),
            self._shape.native_keys.get(name),
        }
        for number, key in enumerate(match):
            here = (*place, "match", number)
            words = f"a {name} of {self._crm} cannot be looked up by "
            if isinstance(key, FieldKey):
                schema = self._directory.schema.get(name, {})
                known = schema.get(key.field)
                if schema and not known:
                    yield Complaint(here, _unknown(key.field, name, schema))
                elif known and known.also:
                    keys = ", ".join(known.also)
                    yield Complaint(here, f"several fields are called {key.field}: {keys}")
                elif known and not known.searchable:
                    yield Complaint(here, f"{words}{key.field} ({known.label})")
            elif MatchKey(key) not in usable:
                there = ", ".join(kind for kind in MatchKey if kind in usable)
                yield Complaint(here, f"{words}{key}, only by {there} and by fields")

    def form(self, form: FormRules, rules: Rules) -> Iterator[Complaint]:
        """Give complaints about the record that a form without a booking becomes."""
        name, place = ObjectName(form.kind), ("form_submission",)
        if name not in self._shape.objects:
            yield Complaint((*place, "as"), f"{self._crm} has no {name} here")
            return
        yield from self.fields(name, form.fields, place)
        base = next(iter(rules.sections(name)), RecordRules())
        if base.create:
            every = base.model_copy(update={"fields": {**base.fields, **form.fields}})
            yield from self._required(name, every, place)

    def _required(
        self, name: ObjectName, section: RecordRules, place: Location
    ) -> Iterator[Complaint]:
        ours = {self._shape.owner_fields.get(name), self._directory.booking_fields.get(name)}
        if name is ObjectName.DEAL:
            ours |= {self._shape.stage_field, self._shape.pipeline_field}
        there = {*section.fields, *ours}
        for field in self._directory.schema.get(name, {}).values():
            if field.required and field.name not in there:
                words = f"{self._crm} requires {field.name} ({field.label}) for every {name}"
                yield Complaint((*place, "fields", field.name), words)
        for needed in self._shape.needs.get(name, ()):
            if not there & set(needed):
                words = f"{self._crm} requires {' or '.join(needed)} for every {name}"
                yield Complaint((*place, "fields", needed[0]), words)

    def _stages(self, deal: DealRules, place: Location) -> Iterator[Complaint]:
        try:
            pipeline = find_pipeline(self._directory.pipelines, deal.pipeline)
        except InvalidRecord as error:
            near = did_you_mean(deal.pipeline, [item.label for item in self._directory.pipelines])
            yield Complaint((*place, "pipeline"), error.message + near)
            return
        for state, wanted in deal.stage.model_dump().items():
            if wanted == KEEP:
                continue
            try:
                find_stage(pipeline, wanted)
            except InvalidRecord as error:
                labels = [stage.label for stage in pipeline.stages]
                words = error.message + did_you_mean(wanted, labels)
                yield Complaint((*place, "stage", state), words)

    def _owner(self, owner: OwnerRules) -> Iterator[Complaint]:
        if not self._directory.owners:
            return
        places = {"fallback": owner.fallback, "user": owner.user}
        named: list[tuple[Location, str]] = [
            (("owner", key), email) for key, email in places.items() if email
        ]
        named += [(("owner", "users", n), email) for n, email in enumerate(owner.users)]
        named += [(("owner", "table", host), email) for host, email in owner.table.items()]
        for place, email in named:
            if self._directory.owner(email) is None:
                words = f"{email} is not a user of this {self._crm} account"
                yield Complaint(place, words + did_you_mean(email, list(self._directory.owners)))


def _unknown(key: str, name: ObjectName, schema: MappingType[str, CrmField]) -> str:
    by_label = {field.label: field.name for field in schema.values()}
    names = {n.casefold(): n for n in (*by_label, *schema)}
    near = difflib.get_close_matches(key.casefold(), names, 1, cutoff=0.5)
    found = names[near[0]] if near else ""
    hint = f"; did you mean {by_label.get(found, found)}?" if near else ""
    return f"the CRM's {name} has no field {key!r}{hint}"


def _says_yes_and_no(field: CrmField) -> bool:
    try:
        return bool(coerce(True, field) and coerce(False, field))
    except ValueError:
        return False


def _misfit(spec: FieldSpec, field: CrmField) -> str | None:
    """Return why a value does not fit its field's type; None if it fits, or may fit."""
    try:
        for value in constants_of(spec):
            coerce(value, field)
    except ValueError as error:
        return f"{error} ({field.name} is {field.kind})"
    for kind in kinds_of(spec):
        if kind is not None and field.kind not in _FITS.get(kind, frozenset(FieldKind)):
            return f"{field.name} is {field.kind}, but the value is {kind}"
        if (
            kind in (FieldKind.NUMBER, FieldKind.WHOLE)
            and field.kind is FieldKind.MONEY
            and not field.currency
        ):
            return f"{field.name} is {field.kind}: add the currency, as in 500 EUR"
        if (
            kind is FieldKind.FLAG
            and field.kind is FieldKind.CHOICE
            and not _says_yes_and_no(field)
        ):
            return f"{field.name} is {field.kind} without the options yes and no"
    return None
