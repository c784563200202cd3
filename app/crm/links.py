"""Works out the links of each record once for all CRMs; links that a colleague chose stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from app.crm.changes import Change
from app.crm.objects import PEOPLE, FieldValue, ObjectName, Ref


class Keep(Enum):
    """A marker for a place that keeps its content."""

    STANDS = "stands"
    """Write nothing: the present record stays."""


KEEP: Final = Keep.STANDS


Place = str | Keep | None
"""What to write into a field that holds one record: its id, KEEP, or None to empty it."""


class LinkEnd(NamedTuple):
    """The record at the other end of a link."""

    record_id: str
    ref: Ref


Ends = tuple[LinkEnd, ...]
"""Each record once, in order: a person with two addresses is still one record."""


class KindLinks(NamedTuple):
    """The ids of one kind of object that a record is linked to."""

    after: tuple[str, ...]
    """All of them, in their final order: the first one is the main one."""
    add: tuple[str, ...]
    """Links to make."""
    remove: tuple[str, ...]
    """Links to remove."""


@dataclass(frozen=True)
class LinkPlan:
    """The links of one record; an adapter only translates them into calls of its API."""

    after: Ends
    """All records that this one should be linked to in the end."""
    add: Ends
    """Records that are not linked to it yet."""
    remove: Ends
    """Records that are linked to it and should not be."""
    changed: bool
    """Whether any link of the record has to be written."""
    must_read: bool
    """Whether the present links have to be read before these are written."""
    primary_changed: bool
    """Another contact or company than before comes first: the CRM may need all links marked."""
    change: Change
    """The change to the record that has the links."""
    lost: frozenset[str]
    """Ids of all records to be unlinked, including those that stay linked under another key."""

    def of(self, kind: ObjectName) -> KindLinks:
        """Return the links to one kind of object."""
        return KindLinks(
            *(
                tuple(end.record_id for end in ends if end.ref.object is kind)
                for ends in (self.after, self.add, self.remove)
            )
        )

    @property
    def main_person(self) -> LinkEnd | None:
        """The first contact or lead."""
        return next((end for end in self.after if end.ref.object in PEOPLE), None)

    def place(self, kind: ObjectName, stands: FieldValue = None) -> Place:
        """Return what to write into a CRM's field that holds one record of a kind.

        `stands`: the value that was read there just now. In a record that was found, a colleague
        chose it and it stays. In a record of ours, a company stays unless it is one of those to be
        unlinked; a person changes only if there is a new main person. A meeting is ours alone and
        lists its people.
        """
        change, links = self.change, self.of(kind)
        # If a person's company link is known but not in the field, a colleague has removed it
        # there.
        person = change.ref.object is ObjectName.CONTACT
        first = next(iter(links.add if person else links.after), None)
        if not self.changed:
            return KEEP
        if not change.record_id or change.found_in_crm:
            return KEEP if stands or first is None else first
        if change.ref.object is ObjectName.MEETING:
            goes = any(ref.object is kind for ref in change.links_to_remove)
            return first if first or goes else KEEP
        company = kind is ObjectName.COMPANY
        if not (self.primary_changed or (company and links.add)):
            return KEEP
        if company and stands and str(stands) not in self.lost:
            return KEEP
        return first

    def holder(self, kind: ObjectName, stands: FieldValue = None) -> str:
        """Return the id that the field holds in the end; empty if there is none or it is unknown.

        `stands`: the value that was read there just now.
        """
        change = self.change
        theirs = change.found_in_crm or (change.converted and not self.primary_changed)
        if theirs and stands:
            return str(stands)
        if not change.record_id or self.must_read:
            return next(iter(self.of(kind).after), "")
        return ""


def plan_links(change: Change, ids: Mapping[Ref, str]) -> LinkPlan:
    """Work out the links of a record; `ids` are the records that exist."""
    after, lost = _ends(change.links_after, ids), _ends(change.links_to_remove, ids)
    known = bool(change.record_id)
    return LinkPlan(
        after=after,
        add=_ends(change.links_to_add, ids),
        # A record that stays linked under another key is not unlinked.
        remove=_without(lost, after),
        changed=change.relinked,
        must_read=known
        and bool(change.links_to_remove or change.primary_changed or change.found_in_crm),
        primary_changed=change.primary_changed,
        change=change,
        lost=frozenset(end.record_id for end in lost),
    )


def _ends(refs: Iterable[Ref], ids: Mapping[Ref, str]) -> Ends:
    found: dict[tuple[ObjectName, str], LinkEnd] = {}
    for ref in refs:
        if ref in ids:
            found.setdefault((ref.object, ids[ref]), LinkEnd(ids[ref], ref))
    return tuple(found.values())


def _without(ends: Ends, others: Ends) -> Ends:
    """Return the ends whose record is not among the others; a contact may go by a lead's key."""
    there = {(_group(end.ref.object), end.record_id) for end in others}
    return tuple(end for end in ends if (_group(end.ref.object), end.record_id) not in there)


def _group(kind: ObjectName) -> ObjectName:
    return ObjectName.CONTACT if kind in PEOPLE else kind
