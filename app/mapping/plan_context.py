"""Data that the parts of a booking's plan share: their inputs, and their notes besides the records."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.crm.objects import ObjectName, Ref
from app.crm.schema import CrmShape, Directory
from app.domain.booking import Attendee, Booking
from app.domain.errors import InvalidRecord
from app.domain.history import History
from app.mapping.conditions import holds
from app.mapping.mapping import Mapping
from app.mapping.paths import build_context
from app.mapping.schema import RecordRules, Rules

NOBODY = Attendee(position=0)
"""Used in place of the main attendee of a booking without attendees."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PlanContext:
    """Everything that a plan depends on besides the booking itself."""

    now: datetime = _LONG_AGO
    """The time of the plan, for forms without a booking and meetings that have passed (UTC)."""
    histories: MappingType[str, History] = field(default_factory=dict)
    """Identity of an attendee -> the summary of all bookings of that person."""
    round_robin_position: int = 0
    """The number of the turn, if owners take turns."""
    booked_since: bool = False
    """Whether the person of a form has made a booking since."""
    existing: frozenset[Ref] = frozenset()
    """The records of this booking and of people who left it that exist or whose create was sent."""
    mapping_section: MappingType[str, Sequence[Any]] = field(default_factory=dict)
    """Object -> the rules and the section of them that created its record, and our key for it."""
    refused_owners: frozenset[str] = frozenset()
    """User ids that the CRM refuses as owners, although its list has them."""
    recheck_of: datetime | None = None
    """The time for which this second check was planned (UTC); None at the first check."""
    left_out: frozenset[tuple[ObjectName, str]] = frozenset()
    """Fields whose value the CRM refuses, although its lists have it."""


@dataclass(frozen=True)
class PlanInputs:
    """Everything that the plan of one booking is made from. It never changes: a part that plans
    under other rules, or for another state of the booking, makes a copy."""

    mapping: Mapping
    shape: CrmShape
    directory: Directory
    booking: Booking
    context: PlanContext
    rules: Rules
    """The rules for the booking's meeting type and host."""
    main_attendee: Attendee = NOBODY
    """The attendee that the deal and the meeting are about."""
    owner_id: str | None = None
    """The CRM user who owns new records; None if the rules give none of its users."""
    moved_away: bool = False
    """The booking stands for one of its earlier starts: its status and state are `moved`."""
    _path_values: dict[tuple[int, bool], dict[str, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Caches the results of path_values; every copy starts with an empty cache."""

    def path_values(self, person: Attendee | None = None) -> dict[str, Any]:
        """Return the values for paths and templates: for one attendee with the own answers, or for
        the booking as a whole."""
        who = person or self.main_attendee
        key = (who.position, person is None)
        if key not in self._path_values:
            history = self.context.histories.get(who.identity or "")
            values = build_context(self.booking, who, history, own=person is not None)
            if self.moved_away:
                values["booking"] |= {"status": "moved", "state": "moved", "outcome": None}
            self._path_values[key] = values
        return self._path_values[key]

    def applies(self, section: RecordRules, person: Attendee | None = None) -> bool:
        """Whether the section's condition is true for the attendee, or for the booking as a whole."""
        return holds(section.when, self.path_values(person))


@dataclass
class PlanReport:
    """Notes and problems of the parts of a plan, besides the records that they return."""

    notes: list[str] = field(default_factory=list)
    """Sentences for a person, in the order of the work."""
    problems: dict[Ref, InvalidRecord] = field(default_factory=dict)
    """Why the mapping or the account's lists rule out a record."""
