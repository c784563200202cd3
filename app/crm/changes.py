"""The changes that are written to a CRM, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.crm.lookup import Match
from app.crm.objects import Fields, ObjectName, Ref


@dataclass(frozen=True)
class Change:
    """A change to one record, reduced to what has to be written."""

    ref: Ref
    record_id: str | None
    fields: Fields
    """The fields to write: all fields for a create, only different ones for an update."""
    on_match: Fields
    """The fields to write instead if a create finds that the record exists already."""
    full_fields: Fields = field(default_factory=dict)
    """All values that the record should hold according to the bookings, also those that were
    written before: for a CRM whose API cannot change records. What a colleague chose instead is
    only in `present`."""
    links_after: tuple[Ref, ...] = ()
    """All records to be linked to in the end, in order; the first contact is the main one."""
    links_to_add: tuple[Ref, ...] = ()
    """Links to make."""
    links_to_remove: tuple[Ref, ...] = ()
    """Links to remove."""
    primary_changed: bool = False
    """Another contact or company than before comes first among the link targets."""
    match: Match = field(default_factory=Match)
    maybe_created: bool = False
    """A create was sent before and got no answer: look the record up before creating it."""
    delete: bool = False
    """Delete the record from the CRM."""
    found_in_crm: bool = False
    """The record was found in the CRM: its links are unknown, and links that a person set stay."""
    present: Fields = field(default_factory=dict)
    """The values that were read from the record just now."""
    not_taken: str | None = None
    """For a create: the id of a record that is a different one, though the CRM may name it."""
    inbox: bool = False
    """For a deal to create: create it as a lead of the CRM's inbox."""
    converted: bool = False
    """The CRM itself converted the record, with all its content; `record_id` is the new id."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write to the CRM."""
        nothing = not (self.fields or self.relinked or self.delete)
        return bool(self.record_id) and nothing and not self.found_in_crm and not self.converted

    @property
    def relinked(self) -> bool:
        """Whether any link of the record has to be written."""
        return bool(self.links_to_add or self.links_to_remove or self.primary_changed)


@dataclass(frozen=True)
class Plan:
    """A batch of changes for several bookings; every link target is in `changes` or `ids`."""

    changes: tuple[Change, ...]
    ids: Mapping[Ref, str] = field(default_factory=dict)
    """Record ids that are known already."""
    assign: bool = False
    """Whether the CRM's own rules may assign new leads and cases to other owners."""

    def known_ids(self) -> dict[Ref, str]:
        """Return the ids of all records that exist already, including those to be changed."""
        return {**self.ids, **{c.ref: c.record_id for c in self.changes if c.record_id}}

    def of(self, name: ObjectName) -> list[Change]:
        """Return the changes to one kind of object, in order."""
        return [change for change in self.changes if change.ref.object is name]


class WriteOutcome(StrEnum):
    """What was done to a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True)
class WriteResult:
    """The result of a change that succeeded."""

    record_id: str
    outcome: WriteOutcome
