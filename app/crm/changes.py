"""What is written to a CRM, and how that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.crm.lookup import Match
from app.crm.objects import Fields, ObjectName, Ref


@dataclass(frozen=True)
class Change:
    """One record to bring about, reduced to what has to be written."""

    ref: Ref
    record_id: str | None
    fields: Fields
    """What to write: all of it for a create, what differs for an update."""
    on_match: Fields
    """What to write instead where the record turns out to exist already."""
    full_fields: Fields = field(default_factory=dict)
    """All that it is to hold by what the bookings say, whatever of it is written already: for a CRM whose
    API cannot change a record. What a colleague chose instead is not in it: that is in `present`."""
    links_after: tuple[Ref, ...] = ()
    """All that it is to be linked to in the end, in order; the first contact is the main one."""
    links_to_add: tuple[Ref, ...] = ()
    """Links to make."""
    links_to_remove: tuple[Ref, ...] = ()
    """Links to take away."""
    primary_changed: bool = False
    """Another contact or company than before comes first among the targets."""
    match: Match = field(default_factory=Match)
    maybe_created: bool = False
    """A create was begun before and its answer is not known: look before creating."""
    delete: bool = False
    """Take it out of the CRM."""
    found_in_crm: bool = False
    """It was found in the CRM: nothing is known of its links, a person's own come first."""
    present: Fields = field(default_factory=dict)
    """What was read of it just now."""
    not_taken: str | None = None
    """Of what is to be made: the id of a record that is not it, though the CRM may name that one."""
    inbox: bool = False
    """Of a deal that is to be made: it is made as a lead of the CRM's inbox."""
    converted: bool = False
    """The CRM itself has made another record of it, with all that it held: it goes by that id now."""

    @property
    def empty(self) -> bool:
        """Whether the CRM has to be told nothing."""
        nothing = not (self.fields or self.relinked or self.delete)
        return bool(self.record_id) and nothing and not self.found_in_crm and not self.converted

    @property
    def relinked(self) -> bool:
        """Whether anything about its links is to be written."""
        return bool(self.links_to_add or self.links_to_remove or self.primary_changed)


@dataclass(frozen=True)
class Plan:
    """A batch of changes, several bookings at once; every link's target is in `changes` or `ids`."""

    changes: tuple[Change, ...]
    ids: Mapping[Ref, str] = field(default_factory=dict)
    """Record ids that are known already."""
    assign: bool = False
    """Whether the CRM's own rules may give new leads and cases to other owners."""

    def known_ids(self) -> dict[Ref, str]:
        """The ids of all records that are there already, those that are to be changed included."""
        return {**self.ids, **{c.ref: c.record_id for c in self.changes if c.record_id}}

    def of(self, name: ObjectName) -> list[Change]:
        """The changes to one kind of object, in order."""
        return [change for change in self.changes if change.ref.object is name]


class WriteOutcome(StrEnum):
    """What was done to a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True)
class WriteResult:
    """How a change ended well."""

    record_id: str
    outcome: WriteOutcome
