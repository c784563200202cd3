"""Where bookings of one account may meet: in a record that one makes and another has to find."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import chain

from app.crm.lookup import MatchKey
from app.crm.objects import PEOPLE, ObjectName
from app.crm.port import Adapter
from app.domain.people import normalise_phone
from app.sync.desired import DesiredBooking
from app.sync.values import as_list


@dataclass
class Marks:
    """The values that bookings' records are looked for by, and those they can be found by."""

    looks: dict[Hashable, str] = field(default_factory=dict)
    """Value by which a record is looked for -> our key for the record."""
    shows: dict[Hashable, str] = field(default_factory=dict)
    """Value by which a record can be found, once it is there -> our key for the record."""

    def add(self, other: Marks) -> None:
        """Add the marks of another booking."""
        self.looks |= other.looks
        self.shows |= other.shows

    def meets(self, other: Marks, same_record: bool = False) -> bool:
        """Whether one finds what the other makes; `same_record`: or both call for one record."""
        pairs = ((self.looks, other.shows), (self.shows, other.looks))
        return any(
            same_record or mine[mark] != theirs[mark]
            for mine, theirs in pairs
            for mark in mine.keys() & theirs.keys()
        )


def marks_of(desired: DesiredBooking, adapter: Adapter, departed: Iterable[str] = ()) -> Marks:
    """The marks of one booking; people who left it count too, since another may make them."""
    marks = Marks()
    marks.looks |= {(PEOPLE, identity.casefold()): identity for identity in departed}
    for record in desired.records:
        name, own = record.ref
        looks = [own]
        for key in record.match.keys:
            by_id = key.kind is MatchKey.RECORD_ID
            looks.append(adapter.record_id_in(name, key.value) if by_id else key.value)
        if name is ObjectName.COMPANY:
            # Some CRMs know no domains and look for a company by its name.
            needed = chain.from_iterable(adapter.shape.needs.get(name, ()))
            looks += [str(record.fields.get(need) or "") for need in needed]
        phones = []
        if name in PEOPLE:
            # A person who books with only a phone number is found by that number.
            entries = [entry for value in record.fields.values() for entry in as_list(value)]
            phones = [e for e in entries if e.startswith("+") and normalise_phone(e) == e]
        kind = PEOPLE if name in PEOPLE else name
        marks.looks |= {(kind, value.casefold()): own for value in looks if value}
        marks.shows |= {(kind, value.casefold()): own for value in [*looks, *phones] if value}
    return marks
