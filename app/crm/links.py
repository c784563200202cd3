"""Who is linked to whom in the end, and what a colleague chose stays: worked out once for all CRMs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from app.crm.changes import Change
from app.crm.objects import PEOPLE, FieldValue, ObjectName, Ref


class Keep(Enum):
    """What is to be written into a place instead of an id."""

    STANDS = "stands"
    """Nothing: what stands there stays."""


KEEP: Final = Keep.STANDS


Place = str | Keep | None
"""What is written where a CRM has a place for one record: its id, KEEP, or None to empty it."""


class LinkEnd(NamedTuple):
    """The record at the other end of a link."""

    record_id: str
    ref: Ref


Ends = tuple[LinkEnd, ...]
"""Each record once, in order: one person who is given with two addresses is one record."""


class KindLinks(NamedTuple):
    """The ids of one kind of object that a record is linked to."""

    after: tuple[str, ...]
    """All of them in the end, in order: the first one is the main one."""
    add: tuple[str, ...]
    """Links to make."""
    remove: tuple[str, ...]
    """Links to take away."""


@dataclass(frozen=True)
class LinkPlan:
    """The links of one record; an adapter only says them in the words of its API."""

    after: Ends
    """All that the record is linked to in the end."""
    add: Ends
    """What is not linked to it yet."""
    remove: Ends
    """What is linked to it and is not to be."""
    changed: bool
    """Whether anything about its links is to be written."""
    must_read: bool
    """Whether the links that stand there have to be read before these are written."""
    primary_changed: bool
    """Another contact or company than before comes first: all of them may have to be marked anew."""
    change: Change
    """The change to the record that has the links."""
    lost: frozenset[str]
    """Ids of all that it was linked to and is not to be, also of what stays under another key."""

    def of(self, kind: ObjectName) -> KindLinks:
        """The links to one kind of object."""
        return KindLinks(
            *(
                tuple(end.record_id for end in ends if end.ref.object is kind)
                for ends in (self.after, self.add, self.remove)
            )
        )

    @property
    def main_person(self) -> LinkEnd | None:
        """The contact or lead that comes first."""
        return next((end for end in self.after if end.ref.object in PEOPLE), None)

    def place(self, kind: ObjectName, stands: FieldValue = None) -> Place:
        """What to write where the CRM has a place for one record of a kind.

        `stands`: what was read there just now. In a record that was found it is a colleague's choice
        and stays. In a record of ours the company does where it is none of those that are to go; the
        person only gives way to another main one. A meeting is ours alone, and says who takes part.
        """
        change, links = self.change, self.of(kind)
        # A person's company that is linked already was taken away from its place by a colleague.
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
        """Who has the place for one in the end: an id, or empty where nobody or somebody unknown does.

        `stands`: what was read there just now.
        """
        change = self.change
        theirs = change.found_in_crm or (change.converted and not self.primary_changed)
        if theirs and stands:
            return str(stands)
        if not change.record_id or self.must_read:
            return next(iter(self.of(kind).after), "")
        return ""


def plan_links(change: Change, ids: Mapping[Ref, str]) -> LinkPlan:
    """Work out the links of a record; `ids` are the records that are there."""
    after, lost = _ends(change.links_after, ids), _ends(change.links_to_remove, ids)
    known = bool(change.record_id)
    return LinkPlan(
        after=after,
        add=_ends(change.links_to_add, ids),
        # What stays under another key is not taken away.
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
    """Those ends that are no record of the others; a contact may go by a lead's key."""
    there = {(_group(end.ref.object), end.record_id) for end in others}
    return tuple(end for end in ends if (_group(end.ref.object), end.record_id) not in there)


def _group(kind: ObjectName) -> ObjectName:
    return ObjectName.CONTACT if kind in PEOPLE else kind
