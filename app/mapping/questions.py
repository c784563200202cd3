"""Compares questions and meeting types in a mapping file with those of stored bookings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from app.crm.objects import ObjectName
from app.domain.text import cut, nearest, quoted
from app.mapping.conditions import Condition, paths_of
from app.mapping.mapping import Mapping
from app.mapping.paths import answer_name, plain_label
from app.mapping.schema import Chosen, RecordRules, Rules
from app.mapping.templates import questions_in
from app.mapping.validation_messages import Location
from app.mapping.value_source import FieldKey, ValueSource

MOST_NAMED = 20
"""Most questions or meeting types that a sentence lists."""


@dataclass(frozen=True)
class Doubt:
    """A name in a file that no stored booking has: maybe a typing error, maybe only new."""

    location: Location
    message: str


@dataclass(frozen=True)
class KnownQuestions:
    """The questions and meeting types of stored bookings."""

    bookings: int
    """The number of bookings that were read."""
    every: bool
    """Whether these are all stored bookings."""
    questions: tuple[str, ...] = ()
    """Labels in meetergo's spelling, each once."""
    types: tuple[str, ...] = ()
    """Slugs of meeting types."""

    @property
    def who(self) -> str:
        """The subject of a sentence about missing answers."""
        if self.every:
            return "no stored booking"
        return f"none of the {self.bookings:,} bookings that changed last"


def doubts(mapping: Mapping, known: KnownQuestions) -> list[Doubt]:
    """Return the names in a file that no stored booking has; none if no booking is stored."""
    if not known.bookings:
        return []
    there = {plain_label(label) for label in known.questions}
    found = [
        Doubt(place, f"{known.who} answers {quoted(label)}{_instead(label, known.questions)}")
        for place, label in questions_of(mapping)
        if plain_label(label) not in there
    ]
    slugs = {plain_label(slug) for slug in known.types}
    for slug in dict.fromkeys(slug for _, slug, _ in mapping.places() if slug):
        if plain_label(slug) not in slugs:
            words = f"{known.who} is of the meeting type {quoted(slug)}"
            found.append(Doubt(("meeting_types", slug), words + _instead(slug, known.types)))
    return found


def labels_used(mapping: Mapping) -> frozenset[str]:
    """Return the questions that a file names anywhere, in the form of `plain_label`."""
    return frozenset(plain_label(label) for _, label in questions_of(mapping))


def questions_of(mapping: Mapping) -> Iterator[tuple[Location, str]]:
    """Give every question in a file with its place, as it is written; an inherited one only once."""
    said: set[tuple[Location, str]] = set()
    for prefix, slug, host in mapping.places():
        for place, label in _in_rules(mapping.rules_for(slug, host)):
            if (place, label) not in said or mapping.says(prefix, place):
                said.add((place, label))
                yield (*prefix, *place), label
    if mapping.form:
        for key, spec in mapping.form.fields.items():
            for label in _in_source(spec):
                yield ("form_submission", "fields", key), label


def _in_rules(rules: Rules) -> Iterator[tuple[Location, str]]:
    for number, skip in enumerate(rules.skip):
        yield from ((("skip", number, "when"), label) for label in _in_condition(skip.when))
    if isinstance(rules.attendees, Chosen):
        when = rules.attendees.when
        yield from ((("attendees", "when"), label) for label in _in_condition(when))
    for name in ObjectName:
        sections = rules.sections(name)
        for number, section in enumerate(sections):
            place: Location = (name.value, number) if len(sections) > 1 else (name.value,)
            yield from _in_section(section, place)


def _in_section(section: RecordRules, place: Location) -> Iterator[tuple[Location, str]]:
    yield from (((*place, "when"), label) for label in _in_condition(section.when))
    sources: list[tuple[Location, ValueSource]] = []
    if section.record_id:
        sources.append(((*place, "record_id"), section.record_id))
    for number, key in enumerate(getattr(section, "match", ())):
        if isinstance(key, FieldKey):
            sources.append(((*place, "match", number), key.source))
    sources += [((*place, "fields", key), spec) for key, spec in section.fields.items()]
    for where, source in sources:
        yield from ((where, label) for label in _in_source(source))


def _in_source(source: ValueSource) -> Iterator[str]:
    labels = [name for path in source.paths if (name := answer_name(path))]
    labels += sorted(questions_in(source.template)) if source.template else []
    yield from dict.fromkeys([*labels, *_in_condition(source.when)])


def _in_condition(condition: Condition) -> Iterator[str]:
    yield from (name for path in paths_of(condition) if (name := answer_name(path)))


def _instead(wanted: str, there: Collection[str]) -> str:
    """Return the nearest name and the list of all names, as the end of a sentence."""
    if not there:
        return "; there is none"
    near = nearest(wanted, there)
    hint = f"; did you mean {quoted(near)}?" if near else ""
    named = ", ".join(quoted(cut(name, 60)) for name in sorted(there)[:MOST_NAMED])
    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
    return f"{hint}; there are: {named}{more}"
