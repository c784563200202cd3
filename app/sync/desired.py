"""The records that a booking calls for, independent of what the CRM holds now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.crm.lookup import Match
from app.crm.objects import SHARED, Fields, Ref
from app.domain.errors import CrmError


class WriteRule(StrEnum):
    """When a field may be overwritten."""

    ALWAYS = "always"
    """Write if the booking's value changes, even if the new value is empty."""
    NEVER_BLANK = "never_blank"
    """Like always, but an empty value does not clear the field."""
    ON_CREATE = "on_create"
    """Write only when the record is created."""
    IF_EMPTY = "if_empty"
    """Write only if the field is empty in the CRM."""
    APPEND = "append"
    """Add the value to the field's content, unless the content has it already."""
    UNTOUCHED = "untouched"
    """Write only if the field still holds what this service wrote: a person's choice stays."""
    FORWARD = "forward"
    """For a stage: write only a later stage of the same pipeline, and never move a closed deal."""


READING = frozenset({WriteRule.IF_EMPTY, WriteRule.APPEND, WriteRule.UNTOUCHED, WriteRule.FORWARD})
"""The rules that need the CRM's present value to be read first."""


@dataclass(frozen=True)
class DesiredRecord:
    """A record as the booking calls for it, independent of what the CRM holds now."""

    ref: Ref
    fields: Fields
    rules: Mapping[str, WriteRule]
    links: tuple[Ref, ...] = ()
    match: Match = field(default_factory=Match)
    atomic_fields: frozenset[str] = frozenset()
    """Fields that are written together, so that two people's names never mix."""
    person_summary_fields: frozenset[str] = frozenset()
    """Fields that summarise all bookings of a person: no booking is too old to write them."""
    delete: bool = False
    """The record is to be deleted from the CRM."""
    cancelled: bool = False
    """The record's booking was cancelled."""
    not_ours: bool = False
    """A deal or case that others may own: its owner, its links and its filled fields stay."""
    inbox: bool = False
    """A deal that is created as a lead of the CRM's inbox, until a person converts it to a deal."""
    fill_only: bool = False
    """Only fills fields of an existing record; no record is created, searched or judged for it."""
    with_company: bool = False
    """For a person: deal and meeting are linked to the person's company in the CRM."""
    links_to_drop: frozenset[Ref] | None = None
    """Only for a record that is kept current: it keeps its links except these. None: it has exactly
    the links in `links`."""
    person: str = ""
    """Contact and lead of one attendee have the same value here: only one of the two is kept."""


@dataclass(frozen=True)
class DesiredBooking:
    """Every record that one booking calls for, with the version of the booking."""

    booking_key: str
    version: datetime
    records: tuple[DesiredRecord, ...] = ()
    skipped: str = ""
    """The reason why this booking needs no records."""
    wait_until: datetime | None = None
    """Do nothing before this time (UTC)."""
    recheck_at: datetime | None = None
    """When to check again although nothing changed: links and summaries depend on time (UTC)."""
    notes: tuple[str, ...] = ()
    """What a person should know: for example a field that was left out, and why."""
    mapping_section: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    """Object -> the rules and the section of them that its record follows, and our key for it."""
    group: str = ""
    """Bookings with the same group may share a deal: a batch takes only one of them."""
    problems: Mapping[Ref, CrmError] = field(default_factory=dict, compare=False)
    """Why the mapping or the account's lists rule out a record; the others can be written."""

    @property
    def own_refs(self) -> frozenset[Ref]:
        """The records of this booking alone that are to be there; not people and companies."""
        own = (record for record in self.records if record.ref.object not in SHARED)
        return frozenset(r.ref for r in own if not (r.delete or r.fill_only))
