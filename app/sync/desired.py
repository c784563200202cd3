"""The records that a booking calls for, whatever the CRM holds now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.crm.lookup import Match
from app.crm.objects import Fields, Ref
from app.domain.errors import CrmError


class WriteRule(StrEnum):
    """When a field may be overwritten."""

    ALWAYS = "always"
    """Whenever the booking's value changes, also by nothing."""
    NEVER_BLANK = "never_blank"
    """Like always, but an empty value wipes nothing."""
    ON_CREATE = "on_create"
    """Only into a record that is being made."""
    IF_EMPTY = "if_empty"
    """Only where nothing stands in the CRM."""
    APPEND = "append"
    """Added to what stands there, unless it stands there already."""
    UNTOUCHED = "untouched"
    """Only while what stands there is what this service wrote: a person's choice stays."""
    FORWARD = "forward"
    """A stage: only to a later one of the same pipeline, and never out of a closed one."""


READING = frozenset({WriteRule.IF_EMPTY, WriteRule.APPEND, WriteRule.UNTOUCHED, WriteRule.FORWARD})
"""The rules for which the CRM's present value has to be read first."""


@dataclass(frozen=True)
class DesiredRecord:
    """A record as the booking calls for it, whatever the CRM holds now."""

    ref: Ref
    fields: Fields
    rules: Mapping[str, WriteRule]
    links: tuple[Ref, ...] = ()
    match: Match = field(default_factory=Match)
    atomic_fields: frozenset[str] = frozenset()
    """Fields that are written as one, so that two people's names never mix."""
    person_summary_fields: frozenset[str] = frozenset()
    """Fields that tell of all bookings of a person, so that no booking is too old to write them."""
    delete: bool = False
    """The record is to be taken out of the CRM."""
    cancelled: bool = False
    """Its booking was cancelled."""
    not_ours: bool = False
    """A deal or case that may be others': it keeps its owner, its links and what is filled."""
    inbox: bool = False
    """A deal that is made as a lead of the CRM's inbox, until a person converts it into a deal."""
    fill_only: bool = False
    """It says what stands in a record that is there, and is no reason to make, find or judge one."""
    with_company: bool = False
    """Of a person: deal and meeting hang on the company that the person belongs to in the CRM."""
    links_to_drop: frozenset[Ref] | None = None
    """Only kept current: it keeps the links that it has but these. None: it has those of `links`."""
    person: str = ""
    """Contact and lead of one attendee carry the same: only one of the two is wanted."""


@dataclass(frozen=True)
class DesiredBooking:
    """Every record that one booking calls for, and which state of it that is."""

    booking_key: str
    version: datetime
    records: tuple[DesiredRecord, ...] = ()
    skipped: str = ""
    """Why nothing is wanted of this booking."""
    wait_until: datetime | None = None
    """Nothing is to be done before (UTC)."""
    recheck_at: datetime | None = None
    """When to look again although nothing changed: links and summaries ripen (UTC)."""
    notes: tuple[str, ...] = ()
    """What a person should know: a field that was left out, and why."""
    mapping_section: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    """Object -> the rules and which of their sections its record goes by, and our key for it."""
    group: str = ""
    """Bookings with the same may fall on the same deal: one of them a batch."""
    problems: Mapping[Ref, CrmError] = field(default_factory=dict, compare=False)
    """Why a record cannot be made at all, by the mapping and the account's lists; the others can."""
