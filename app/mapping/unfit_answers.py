"""Finds the answers in stored bookings that do not fit the field that a mapping writes them to."""

from __future__ import annotations

from collections.abc import Iterator

from app.crm.objects import ObjectName
from app.crm.schema import CrmField, Directory, FieldKind
from app.domain.text import quoted
from app.mapping.coerce import coerce
from app.mapping.mapping import Mapping
from app.mapping.paths import answer_label
from app.mapping.patience import look_at_the_clock
from app.mapping.provision import Seen
from app.mapping.questions import Doubt
from app.mapping.schema import Rules
from app.mapping.transforms import apply_transforms
from app.mapping.validation_messages import Location
from app.mapping.value_source import FieldSpec

MOST_NAMED = 5
"""Most answers that a sentence shows."""
LISTS = (FieldKind.CHOICE, FieldKind.CHOICES)
THEN = {
    "fail": "such a booking fails",
    "skip": "the field is then left out",
    "skip_record": "the record is then left out",
}


def unfit_answers(mapping: Mapping, directory: Directory, seen: Seen) -> list[Doubt]:
    """Return a sentence for each field that takes an answer, and did not fit some of those so far."""
    found: list[Doubt] = []
    for place, name, key, spec in _fields(mapping):
        field = directory.field(name, key)
        label = answer_label(spec.path) if spec.path and not spec.when else None
        if field is None or label is None or not field.writable or field.also:
            continue
        answers = seen.get(label, ())
        wrong = [answer for answer in answers if not _fits(answer, spec, field)]
        if wrong:
            found.append(Doubt(place, _words(wrong, len(answers), field, spec)))
    return found


def _fits(answer: str | list[str], spec: FieldSpec, field: CrmField) -> bool:
    look_at_the_clock()
    try:
        coerce(apply_transforms(answer, spec.transforms, "UTC"), field)
    except ValueError:
        return False
    return True


def _words(wrong: list[str | list[str]], number: int, field: CrmField, spec: FieldSpec) -> str:
    texts = [", ".join(answer) if isinstance(answer, list) else answer for answer in wrong]
    different = list(dict.fromkeys(texts))
    shown = ", ".join(quoted(text) for text in different[:MOST_NAMED])
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    words = (
        f"{len(wrong)} of {number} answers so far do not fit {field.name}, which is {field.kind}"
    )
    mend = "; add options in the CRM, or map them" if field.kind in LISTS else ""
    return f"{words}: {shown}{more}; {THEN[spec.on_error]}{mend}"


def _fields(mapping: Mapping) -> Iterator[tuple[Location, ObjectName, str, FieldSpec]]:
    """Give every field of a file with its place; an inherited one only once."""
    said: set[Location] = set()
    for prefix, slug, host in mapping.places():
        for place, name, key, spec in _in_rules(mapping.rules_for(slug, host)):
            if place not in said or mapping.says(prefix, place):
                said.add(place)
                yield (*prefix, *place), name, key, spec


def _in_rules(rules: Rules) -> Iterator[tuple[Location, ObjectName, str, FieldSpec]]:
    for name in ObjectName:
        sections = rules.sections(name)
        for number, section in enumerate(sections):
            several = name is ObjectName.DEAL and len(sections) > 1
            above: Location = (name.value, number) if several else (name.value,)
            yield from (
                ((*above, "fields", k), name, k, spec) for k, spec in section.fields.items()
            )
