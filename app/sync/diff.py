"""Compares what a batch of bookings calls for with ledger and CRM: the fewest changes, pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from app.crm.changes import Change, Plan
from app.crm.lookup import CrmRecord, FoundBy, LookupResults, Match, OnLost, OnSeveral
from app.crm.objects import (
    PEOPLE,
    SHARED,
    Fields,
    FieldValue,
    Fingerprints,
    ObjectName,
    Ref,
    content_hash,
)
from app.crm.schema import CrmShape, Directory
from app.domain.errors import Ambiguous, RetryLater
from app.sync.desired import DesiredRecord, WriteRule
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import changed_fields, still_said
from app.sync.lookups import (
    LedgerEntries,
    is_own_company,
    is_unfilled,
    is_unique,
    links_of_lost_create,
    match_of,
)
from app.sync.merge import MergedRecord
from app.sync.people import LookUp, choose_people, use_own_companies
from app.sync.values import blank, same
from app.sync.write_rules import FieldRules, is_mixed

ON_ITS_WAY = 60.0
"""Seconds for which a create without an answer may still reach the CRM."""


Claimed = Callable[[Ref, str], bool]
"""Whether the record with this id already belongs to another ref."""


def diff_records(
    wanted: Mapping[Ref, MergedRecord],
    ledger: LedgerEntries,
    shape: CrmShape,
    directory: Directory,
    findings: LookupResults | None = None,
    look_up: LookUp = lambda ref: None,
    claimed: Claimed = lambda ref, record_id: False,
    stages: Mapping[Ref, Fingerprints] | None = None,
) -> Diff:
    """Return the changes that bring a CRM from what ledger and lookups show to what is wanted.

    `stages`: fingerprints of the stages that this service wrote to a deal for other bookings.
    """
    findings = findings or LookupResults()
    diff = Diff(choose_people(wanted, ledger, findings))
    for ref, words in findings.notes.items():
        for sentence in words:
            diff.note(ref, sentence)
    ledger = use_own_companies(diff, ledger, findings, look_up)
    rules = FieldRules(shape, directory, diff, stages or {})
    builder = ChangeBuilder(ledger, shape, directory, findings, diff, claimed, rules)
    ids = {ref: known.record_id for ref, known in ledger.items() if known.live and known.record_id}
    found = ((ref, findings.first(ref)) for ref in findings.found if ref not in wanted)
    ids |= {ref: record_id for ref, record_id in found if record_id}
    changes = []
    for ref in list(diff.wanted):
        change = builder.change(ref)
        if ref in diff.problems:
            continue
        if change is None:
            # A record that is only filled in stays a link target while the CRM has it.
            if not diff.wanted[ref].record.fill_only or ref not in ledger:
                diff.wanted.pop(ref)
                ids.pop(ref, None)
            elif ref in findings.asked and not findings.found.get(ref):
                diff.gone.add(ref)
            continue
        known = ledger.get(ref)
        if known and known.record_id and known.record_id != change.record_id:
            diff.renewed.add(ref)
            ids.pop(ref, None)
        if not change.empty:
            changes.append(change)
        elif change.record_id:
            ids.setdefault(ref, change.record_id)
    diff.plan = Plan(tuple(changes), ids)
    return diff


@dataclass
class ChangeBuilder:
    """Builds the change to one record after the other, in write order."""

    ledger: LedgerEntries
    shape: CrmShape
    directory: Directory
    findings: LookupResults
    diff: Diff
    claimed: Claimed
    rules: FieldRules

    def change(self, ref: Ref) -> Change | None:
        """Return the change to a record; None if the record is dropped or has a problem."""
        wanted = self.diff.wanted
        # Records that are not wanted any more, or cannot be written, are no link targets.
        links = tuple(link for link in wanted[ref].record.links if link in wanted)
        known = self.ledger.get(ref)
        links += self._kept_links(wanted[ref].record, known, links)
        there = self.findings.found.get(ref)
        if known and known.record_id and there and there[0].was == known.record_id:
            # It is the same record under another id: its fingerprints still count.
            known = replace(known, record_id=there[0].record_id, lost=False)
        record = self._as_it_stands(replace(wanted[ref].record, links=links), known, there)
        item = replace(wanted[ref], record=record)
        wanted[ref] = item
        unseen = self._unseen(known)
        if unseen > 0:
            words = f"The {ref.object} needs a record that the CRM's search may not show yet."
            self.diff.problems[ref] = RetryLater(words, unseen)
            return None
        if record.delete:
            return self._delete(record, known, there)
        anothers = known is not None and self._is_of_another(record, known, there)
        gone = known is not None and (known.lost or (ref in self.findings.asked and not there))
        moved = known and there and there[0].record_id != known.record_id
        stayed = known is not None and known.erase_begun and there and not moved
        new = known is None
        if known and is_unfilled(record, known):
            said = still_said(item, known)
            new = bool(changed_fields(said, known))
            record = said if new else record
        if known and not (new and there) and ((known.live and not gone and not moved) or stayed):
            return self._update(item, known, there[0] if there else None)
        if there and not anothers:
            begun = known is not None and known.record_id is None and not record.match.asked
            mine = known is not None and known.record_id is not None and not new
            if begun and known and ref.object not in SHARED:
                return self._recovered_create(record, known, there[0])
            return self._adopt(record, there, mine, None if mine else known)
        return self._create(record, known, gone and not anothers)

    def _as_it_stands(
        self, record: DesiredRecord, known: LedgerEntry | None, there: list[CrmRecord] | None
    ) -> DesiredRecord:
        """Leave out the fields that a deal cannot have while it is a lead of the CRM's inbox.

        They are written once the lead has become a deal.
        """
        if there:
            lead = self.shape.is_in_inbox(record.ref.object, there[0].record_id)
        elif known and known.live and record.ref not in self.findings.asked:
            lead = self.shape.is_in_inbox(record.ref.object, known.record_id)
        else:
            lead = record.inbox
        if not lead:
            return record
        none = {self.shape.stage_field, self.shape.pipeline_field, *self.shape.not_of_inbox}
        fields = {name: value for name, value in record.fields.items() if name not in none}
        return replace(record, fields=fields)

    def _is_of_another(
        self, record: DesiredRecord, known: LedgerEntry, there: list[CrmRecord] | None
    ) -> bool:
        """Whether the ledger's id is another person's record that the CRM only named as a conflict.

        Example: two people have one name and a rule allows each name once; neither takes the
        other's record. If the address is the CRM's own key, both addresses belong to one person.
        """
        ref, record_id = record.ref, known.record_id
        if not known.unfilled or not record_id or ref.object not in PEOPLE:
            return False
        if is_unique(ref.object, record.match, self.shape, self.directory):
            return False
        elsewhere = there and all(found.record_id != record_id for found in there)
        return not elsewhere and self.claimed(ref, record_id)

    def _kept_links(
        self, record: DesiredRecord, known: LedgerEntry | None, links: tuple[Ref, ...]
    ) -> tuple[Ref, ...]:
        """Return the links to keep on a record that is only kept current: none to people who left."""
        if record.links_to_drop is None or known is None:
            return ()
        live = (
            ref
            for ref in known.links
            if self.findings.found.get(ref) or (ref in self.ledger and self.ledger[ref].live)
        )
        return tuple(ref for ref in live if ref not in links and ref not in record.links_to_drop)

    def _create(
        self, record: DesiredRecord, known: LedgerEntry | None, gone: bool
    ) -> Change | None:
        ref, links = record.ref, record.links
        if record.fill_only:
            return None
        by_others = gone and known and known.record_id and not known.erase_begun
        if by_others and record.match.lost is OnLost.LEAVE:
            self.diff.note(
                ref, f"The {ref.object} was deleted in the CRM and is not created again."
            )
            return None
        unseen = self._lag(ref, record.match, known)
        if unseen > 0:
            words = (
                f"A {ref.object} was sent without an answer; the CRM's search may not show it yet."
            )
            self.diff.problems[ref] = RetryLater(words, unseen)
            return None
        if not record.match.create:
            self.diff.note(
                ref, f"The CRM has no such {ref.object}, and the mapping does not create one."
            )
            return None
        filled = {name: value for name, value in record.fields.items() if not blank(value)}
        return Change(
            ref,
            None,
            fields=filled,
            on_match=self.rules.adopted(record, None, filled),
            full_fields=filled,
            links_after=links,
            links_to_add=links,
            match=record.match,
            maybe_created=known is not None,
            # If the known record causes a conflict, it is not used: it could not be read before.
            not_taken=known.record_id if known else None,
            inbox=record.inbox,
        )

    def _unseen(self, known: LedgerEntry | None) -> float:
        """Return the seconds for which a search may miss link targets of an unanswered create."""
        links = links_of_lost_create(known, self.ledger) if known else []
        wanted, waits = self.diff.wanted, self.diff.problems
        missing = [ref for ref in links if not self.findings.found.get(ref)]
        missing = [ref for ref in missing if ref not in wanted or ref in waits]
        return max((self._lag(ref, match_of(ref), self.ledger[ref]) for ref in missing), default=0)

    def _lag(self, ref: Ref, match: Match, known: LedgerEntry | None) -> float:
        """Return the seconds for which a search may miss a record whose create got no answer."""
        if known is None or known.record_id is not None or known.age is None:
            return 0.0
        if is_unique(ref.object, match, self.shape, self.directory):
            return 0.0
        lag = self.shape.lag.get(ref.object, 0.0)
        # If the clock was set back, the age is negative: the wait is never longer than the lag.
        return min(lag, lag - known.age)

    def _delete(
        self, record: DesiredRecord, known: LedgerEntry | None, there: list[CrmRecord] | None
    ) -> Change | None:
        record_id = known.record_id if known and known.live else None
        if record_id is None and known and there and there[0].by is FoundBy.TITLE:
            words = (
                f"A {record.ref.object} with the same title may be a duplicate: if so, delete it."
            )
            self.diff.note(record.ref, words)
            return None
        record_id = record_id or (there[0].record_id if there and known else None)
        if record_id is None:
            self._await_create(record, known)
            return None
        return Change(record.ref, record_id, {}, {}, match=record.match, delete=True)

    def _await_create(self, record: DesiredRecord, known: LedgerEntry | None) -> None:
        """Retry a delete later while the create of its record may still reach the CRM."""
        if known is None or known.record_id is not None or known.age is None:
            return
        lag = max(self.shape.lag.get(record.ref.object, 0.0), ON_ITS_WAY)
        left = min(lag, lag - known.age)
        if left > 0:
            words = f"A {record.ref.object} to delete was sent a moment ago; it may still reach the CRM."
            self.diff.problems[record.ref] = RetryLater(words, left)

    def _update(self, item: MergedRecord, known: LedgerEntry, there: CrmRecord | None) -> Change:
        record = item.record
        changed = changed_fields(still_said(item, known), known)
        present = there.values if there else {}
        fields = {}
        for name, value in self.rules.emptied(record, changed).items():
            allowed = self.rules.allowed(record, name, value, present, known, there is not None)
            if allowed is not None:
                fields[name] = allowed.value
        if (there and there.read_only) or is_mixed(record, fields, changed, present):
            taken = set(fields) if there and there.read_only else record.atomic_fields
            fields = {name: value for name, value in fields.items() if name not in taken}
        ours = record.ref.object not in SHARED and not record.not_ours
        converted = there is not None and bool(there.was) and there.record_id == known.record_id
        return Change(
            record.ref,
            known.record_id,
            fields=fields,
            on_match={},
            full_fields=_full(record, fields, present, None if there else known),
            links_after=record.links,
            links_to_add=tuple(
                ref
                for ref in record.links
                # A lead has room for one person only, a deal for all of them.
                if converted
                or known.links_in_doubt
                or ref not in known.links
                or ref in self.diff.renewed
            ),
            links_to_remove=tuple(ref for ref in known.links if ours and ref not in record.links),
            primary_changed=ours and self._has_new_main(record, known),
            match=record.match,
            present=self._still_there(present),
            converted=converted,
        )

    def _has_new_main(self, record: DesiredRecord, known: LedgerEntry) -> bool:
        """Whether another person or company comes first now, or the same one has another id."""
        mains = _mains(record.links)
        if known.links_in_doubt:
            return True
        return mains != _mains(known.links) or any(ref in self.diff.renewed for ref in mains)

    def _still_there(self, values: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
        """Return the values that were read, without ids of replaced records: nobody chose those."""
        known = (self.ledger.get(ref) for ref in self.diff.renewed)
        gone = {line.record_id for line in known if line}
        return {name: value for name, value in values.items() if str(value) not in gone}

    def _recovered_create(
        self, record: DesiredRecord, known: LedgerEntry, found: CrmRecord
    ) -> Change:
        """Return the change to a record whose create got no answer: it holds an older state."""
        filled = {name: value for name, value in record.fields.items() if not blank(value)}
        cleared = {
            name: value
            for name, value in record.fields.items()
            if record.rules.get(name) is WriteRule.ALWAYS
            and blank(value)
            and not blank(found.values.get(name))
        }
        fields = self.rules.adopted(record, found, filled, own=True)
        fields |= self.rules.emptied(record, cleared)
        return Change(
            record.ref,
            found.record_id,
            fields=fields,
            on_match={},
            full_fields=_full(record, fields, found.values),
            links_after=record.links,
            links_to_add=record.links,
            links_to_remove=tuple(
                ref
                for ref in known.links
                if ref not in record.links
                and (record.links_to_drop is None or ref in record.links_to_drop)
            ),
            primary_changed=True,
            match=record.match,
            present=found.values,
        )

    def _adopt(
        self, record: DesiredRecord, there: list[CrmRecord], mine: bool, begun: LedgerEntry | None
    ) -> Change | None:
        several = record.match.several
        if len(there) > 1 and several is OnSeveral.FLAG:
            ids = ", ".join(item.record_id for item in there)
            words = f"{len(there)} {record.ref.object} records match by {there[0].by}: {ids}."
            self.diff.problems[record.ref] = Ambiguous(words)
            return None
        found = there[-1] if several is OnSeveral.NEWEST else there[0]
        filled = {name: value for name, value in record.fields.items() if not blank(value)}
        fields = self.rules.adopted(record, found, filled, begun, mine=mine)
        if found.read_only:
            fields = {}
            words = f"The {record.ref.object} is read-only: it is linked, but not changed."
            self.diff.note(record.ref, words)
        return Change(
            record.ref,
            found.record_id,
            fields=fields,
            on_match={},
            full_fields=_full(record, fields, found.values),
            links_after=record.links,
            # The CRM itself links a person to the company that the person belongs to.
            links_to_add=tuple(
                ref
                for ref in record.links
                if record.ref.object is not ObjectName.CONTACT or not is_own_company(ref)
            ),
            match=record.match,
            found_in_crm=True,
            present=self._still_there(found.values),
        )


def _mains(links: tuple[Ref, ...]) -> list[Ref | None]:
    """Return the links that come first: most CRMs have room for one person and one company."""
    return [next((ref for ref in links if ref.object is name), None) for name in SHARED]


def _full(
    record: DesiredRecord, fields: Fields, present: Fields, unread: LedgerEntry | None = None
) -> dict[str, FieldValue]:
    """Return all that a record should hold, without fields that a colleague filled differently or
    that no rule allows.

    `unread`: the ledger's entry of the record, if nobody has read the record itself.
    """
    full = {}
    for name, wanted in record.fields.items():
        value, stands = fields.get(name, wanted), present.get(name)
        written = unread is not None and unread.fingerprints.get(name) == (content_hash(wanted),)
        if not blank(value) and (name in fields or written or same(stands, value)):
            full[name] = value
    return full
