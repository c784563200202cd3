"""Makes the lookup keys of a record from the mapping's `match`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.crm.lookup import LookupKey, MatchKey, Whose
from app.domain.booking import Attendee
from app.domain.errors import InvalidRecord
from app.domain.people import country_of
from app.domain.text import no_formula, one_line
from app.mapping.coerce import plain
from app.mapping.field_values import read_value
from app.mapping.plan_context import PlanInputs
from app.mapping.schema import RecordRules
from app.mapping.templates import names_in
from app.mapping.value_source import FieldKey, ValueSource


def match_keys(
    inputs: PlanInputs,
    section: RecordRules,
    wanted: Iterable[str | FieldKey],
    person: Attendee | None = None,
) -> tuple[LookupKey, ...]:
    """Return the keys of a record in the mapping's order; a key with an empty value is left out.

    `person`: the attendee that the record belongs to; None for a record of the booking as a whole.
    """
    kinds = list(wanted)
    if section.record_id and "record_id" not in kinds:
        kinds.insert(0, "record_id")
    keys = (_key(inputs, section, kind, person) for kind in kinds)
    return tuple(key for key in keys if key and key.value)


def _key(
    inputs: PlanInputs, section: RecordRules, kind: str | FieldKey, person: Attendee | None
) -> LookupKey | None:
    """Return one key with its value; None if it does not identify this person's record."""
    who = person or inputs.main_attendee
    if isinstance(kind, FieldKey):
        if not _names_record_of(inputs, kind.source, person):
            return None
        value = _text(inputs, kind.source, person, f"match {kind.field}")
        return LookupKey(MatchKey.FIELD, value, kind.field)
    if kind == "record_id":
        source = section.record_id
        if source is None or not _names_record_of(inputs, source, person):
            return None
        value = _text(inputs, source, person, "record_id")
        whose = Whose(who.email or "", who.company_domain or "")
        return LookupKey(MatchKey.RECORD_ID, value, of=whose if source.of == "attendee" else None)
    values = {MatchKey.PHONE: who.phone, MatchKey.DOMAIN: who.company_domain}
    zone = who.timezone_as_given or who.timezone
    country = country_of(zone, who.language) if kind == "phone" else None
    value = values.get(MatchKey(kind), who.email) or ""
    return LookupKey(MatchKey(kind), value, country or "")


def _names_record_of(inputs: PlanInputs, source: ValueSource, person: Attendee | None) -> bool:
    """Whether a source identifies this person's record: a link names one record, not each guest's."""
    roots = {re.split(r"[.\[]", path)[0] for path in source.paths}
    roots |= names_in(source.template) if source.template else set()
    is_main = person is None or person.position == inputs.main_attendee.position
    return is_main or bool({"attendee", "answers"} & roots)


def _text(inputs: PlanInputs, source: ValueSource, person: Attendee | None, place: str) -> str:
    """Return the text to look a record up by. Raises InvalidRecord: without the text, a duplicate
    would be created."""
    try:
        value = plain(read_value(inputs, source, inputs.path_values(person), {}))
    except ValueError as error:
        raise InvalidRecord(f"{place}: {error}", {place: str(error)}) from None
    return no_formula(one_line(value) or "")
