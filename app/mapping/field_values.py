"""Makes the value of a record's field: reads it from the booking, converts it, and cuts it."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Any

from app.crm.objects import PEOPLE, FieldValue, ObjectName
from app.crm.schema import FieldKind
from app.domain.booking import Attendee
from app.domain.errors import InvalidRecord
from app.domain.people import is_address
from app.domain.text import as_html, clean_text, cut, is_link, measure, no_formula
from app.mapping.coerce import NotListed, coerce, plain
from app.mapping.conditions import holds
from app.mapping.paths import NAME_PATHS, plain_label, resolve
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.summary import list_answers, summarise
from app.mapping.templates import render
from app.mapping.transforms import apply_transforms
from app.mapping.value_source import FieldMap, FieldSpec, ValueSource
from app.sync.desired import WriteRule

WRITES_OVER_NAMES = (WriteRule.NEVER_BLANK, WriteRule.UNTOUCHED)
"""The rules under which a new value may replace a person's name."""


class LeftOut(Exception):
    """The value of a field cannot be made, and the mapping says that its record is then left out."""


class UnfitValue(InvalidRecord):
    """A value does not fit its field, and the mapping says that the booking then fails."""


class _TooLong(ValueError):
    """An address is longer than its field: half an address reaches nobody."""


@dataclass
class RecordFields:
    """The values of one record, and the rule by which each is written."""

    values: dict[str, FieldValue]
    rules: dict[str, WriteRule]
    atomic: frozenset[str] = frozenset()
    """Fields that are written together, so that two people's names never mix."""
    person_summary: frozenset[str] = frozenset()
    """Fields that summarise all bookings of a person."""

    def set(self, name: str, value: FieldValue, rule: WriteRule = WriteRule.ALWAYS) -> None:
        """Set a field's value and rule."""
        self.values[name] = value
        self.rules[name] = rule


def evaluate_fields(
    inputs: PlanInputs,
    report: PlanReport,
    name: ObjectName,
    specs: FieldMap,
    person: Attendee | None,
    overflow: dict[str, str],
) -> RecordFields:
    """Evaluate the fields of a record; fields that repeat other fields come last.

    Texts that are too long for their field are added to `overflow`, uncut. If a value cannot be
    made, the mapping decides: the booking fails (UnfitValue), the record is left out (LeftOut), or
    the field is left out with a note.
    """
    fields = RecordFields({}, {})
    for key in sorted(specs, key=lambda key: specs[key].late):
        spec = specs[key]
        try:
            raw = read_value(inputs, spec, inputs.path_values(person), overflow)
            value = _fitted(inputs, name, key, _coerced(inputs, name, key, raw), overflow)
        except ValueError as error:
            report.notes.append(_note_on(error, name, key, spec, person))
        else:
            fields.set(key, value, _write_rule(name, spec, person, value))
    named = {key for key, spec in specs.items() if NAME_PATHS & set(spec.paths)}
    fields.atomic = frozenset(named & fields.values.keys() if name in PEOPLE else ())
    fields.person_summary = frozenset(key for key, spec in specs.items() if spec.personal)
    return fields


def _note_on(
    error: ValueError, name: ObjectName, key: str, spec: FieldSpec, person: Attendee | None
) -> str:
    """Return the note on a field that is left out. Raises if the record or the booking fails instead."""
    problem = f"{name}.{key}: {error}"
    too_long = isinstance(error, _TooLong)
    if too_long and spec.on_error == "fail" and person and not person.full_name:
        # Without this field, there is no name for the person at all.
        raise InvalidRecord(problem, {key: str(error)}) from None
    if spec.on_error == "fail" and not too_long:
        listed = isinstance(error, NotListed)
        raise UnfitValue(problem, {key: str(error)}, listed=listed) from None
    if spec.on_error == "skip_record":
        raise LeftOut(f"The {name} was left out: {problem}") from None
    return f"{problem} (left out)"


def _write_rule(
    name: ObjectName, spec: FieldSpec, person: Attendee | None, value: FieldValue
) -> WriteRule:
    """Return the field's own rule; an address in place of a person's name overwrites no name."""
    rule = WriteRule(spec.write)
    stands_in = "attendee.display_name" in spec.paths
    nameless = person and not person.full_name and value == person.display_name
    if name in PEOPLE and stands_in and nameless and rule in WRITES_OVER_NAMES:
        return WriteRule.ON_CREATE
    return rule


def read_value(
    inputs: PlanInputs,
    source: ValueSource,
    path_values: MappingType[str, Any],
    overflow: MappingType[str, str],
) -> Any:
    """Return the value of a source in the mapping, transformed; None if its condition fails.

    `overflow`: the texts that were cut so far, which a summary contains in full.
    """
    if not holds(source.when, path_values):
        return None
    value: Any
    if source.summary:
        value = summarise(inputs.booking, overflow)
    elif source.answers:
        taken = _mapped_questions(inputs) if source.answers == "unmapped" else frozenset()
        answers = path_values["answers"].items()
        value = list_answers({q: a for q, a in answers if plain_label(q) not in taken})
    elif source.template is not None:
        value = render(source.template, path_values)
    elif source.first_of:
        found = (resolve(path, path_values) for path in source.first_of)
        value = next((item for item in found if item not in (None, "", [])), None)
    elif source.path:
        value = resolve(source.path, path_values)
    else:
        value = source.value
    return apply_transforms(value, source.transforms, inputs.booking.timezone)


def _mapped_questions(inputs: PlanInputs) -> frozenset[str]:
    """Return the questions whose answers are written to a field."""
    return frozenset(label for source in inputs.rules.sources() for label in source.labels())


def _coerced(inputs: PlanInputs, name: ObjectName, key: str, value: Any) -> FieldValue:
    """Convert the value to its field's type. Raises ValueError if that is impossible."""
    if isinstance(value, str):
        # Text from templates and payload paths has not been cleaned yet.
        value = clean_text(value)
    field = inputs.directory.field(name, key)
    made = coerce(value, field) if field else plain(value)
    is_free_text = isinstance(made, str) and (field is None or field.kind is FieldKind.TEXT)
    return no_formula(str(made)) if is_free_text else made


def _fitted(
    inputs: PlanInputs, name: ObjectName, key: str, value: FieldValue, overflow: dict[str, str]
) -> FieldValue:
    """Cut the text to its field's length, with a mark; the whole text goes to `overflow`.

    A link is never cut: its field stays empty. An address is never cut: raises _TooLong.
    """
    if not isinstance(value, str):
        return value
    place = f"{name}.{key}"
    encode = as_html if place in inputs.shape.html_fields else str
    field = inputs.directory.field(name, key)
    limit = (field.length if field else None) or inputs.shape.text_limits.get(place)
    unit = inputs.shape.text_unit
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
