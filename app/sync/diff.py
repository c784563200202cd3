"""Compares what a batch of bookings calls for with ledger and CRM: the fewest changes, pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from app.crm.changes import Change, Plan
from app.crm.lookup import CrmRecord, FoundBy, LookupResults, Match, OnLost, OnSeveral
from app.crm.objects import (
    OWN_COMPANY,
    PEOPLE,
    SHARED,
    WRITE_ORDER,
    FieldValue,
    Fingerprints,
    ObjectName,
    Ref,
)
from app.crm.schema import CrmShape, Directory, FieldKind
from app.domain.errors import Ambiguous, CrmError, RetryLater
from app.domain.text import measure
from app.sync.desired import READING, DesiredRecord, WriteRule
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import changed_fields, is_ours, still_said
from app.sync.lookups import (
    LedgerEntries,
    is_own_company,
    is_unfilled,
    is_unique,
    links_of_lost_create,
    match_of,
    rule_of,
)
from app.sync.merge import MergedRecord, placeholder
from app.sync.values import appended, as_list, blank, is_later_stage, same

ON_ITS_WAY = 60.0
"""Seconds for which a create whose answer never came may still reach the CRM."""
LookUp = Callable[[Ref], LedgerEntry | None]
"""Gives the ledger's line on a record that nobody asked for before."""
Claimed = Callable[[Ref, str], bool]
"""Whether a record stands for something else already."""


@dataclass
class Diff:
    """What is to be done about a batch, now that it is known what the CRM holds."""

    wanted: dict[Ref, MergedRecord]
    """What is wanted after all: of contact and lead only one, no company that must not be made."""
    renewed: set[Ref] = field(default_factory=set)
    """Records that another one takes the place of: every link to them is to be made again."""
    gone: set[Ref] = field(default_factory=set)
    """Records that were only to be filled in, and that the CRM no longer has."""
    plan: Plan = field(default_factory=lambda: Plan(()))
    problems: dict[Ref, CrmError] = field(default_factory=dict)
    notes: dict[Ref, list[str]] = field(default_factory=dict)
    """What was left as it is, and why."""

    companies: dict[Ref, str] = field(default_factory=dict)
    """Companies that found people belong to, by our key for them -> their ids."""

    def note(self, ref: Ref, words: str) -> None:
        """Remember a sentence about a record."""
        self.notes.setdefault(ref, []).append(words)


def settle(
    wanted: Mapping[Ref, MergedRecord],
    ledger: LedgerEntries,
    shape: CrmShape,
    directory: Directory,
    findings: LookupResults | None = None,
    look_up: LookUp = lambda ref: None,
    claimed: Claimed = lambda ref, record_id: False,
    stages: Mapping[Ref, Fingerprints] | None = None,
) -> Diff:
    """The changes that bring a CRM from what ledger and findings say to what is wanted.

    `stages`: fingerprints of the stages that this service wrote to a deal for other bookings.
    """
    findings = findings or LookupResults()
    settled = Diff(_choose_people(wanted, ledger, findings))
    for ref, words in findings.notes.items():
        for sentence in words:
            settled.note(ref, sentence)
    ledger = use_own_companies(settled, ledger, findings, look_up)
    judge = _Judge(ledger, shape, directory, findings, settled, claimed, stages or {})
    ids = {ref: known.record_id for ref, known in ledger.items() if known.live and known.record_id}
    found = ((ref, findings.first(ref)) for ref in findings.found if ref not in wanted)
    ids |= {ref: record_id for ref, record_id in found if record_id}
    changes = []
    for ref in list(settled.wanted):
        change = judge.change(ref)
        if ref in settled.problems:
            continue
        if change is None:
            # What is only filled in stays what others are linked to, or no longer.
            if not settled.wanted[ref].record.fill_only or ref not in ledger:
                settled.wanted.pop(ref)
                ids.pop(ref, None)
            elif ref in findings.asked and not findings.found.get(ref):
                settled.gone.add(ref)
            continue
        known = ledger.get(ref)
        if known and known.record_id and known.record_id != change.record_id:
            settled.renewed.add(ref)
            ids.pop(ref, None)
        if not change.empty:
            changes.append(change)
        elif change.record_id:
            ids.setdefault(ref, change.record_id)
    settled.plan = Plan(tuple(changes), ids)
    return settled


def _choose_people(
    wanted: Mapping[Ref, MergedRecord], ledger: LedgerEntries, findings: LookupResults
) -> dict[Ref, MergedRecord]:
    """Where an attendee may be a contact or a lead, keep the one that fits; the links follow."""
    left = dict(wanted)
    swapped: dict[Ref, Ref] = {}
    for ref, item in wanted.items():
        if ref.object is not ObjectName.LEAD:
            continue
        contact = Ref(ObjectName.CONTACT, ref.key)
        twin = wanted.get(contact)
        became = [f for f in findings.found.get(ref, ()) if f.became == contact]
        if twin is None:
            if not became:
                continue
            # The file says nothing of contacts: what hung on the lead hangs on the one it became.
            left[contact] = replace(item, record=placeholder(contact))
        elif twin.record.fill_only != item.record.fill_only and not became:
            continue  # What only fills one of them in says nothing of which it is.
        elif not _is_contact(ref, contact, wanted, ledger, findings):
            del left[contact]
            swapped[contact] = ref
            continue
        del left[ref]
        swapped[ref] = contact
        for hit in became:
            findings.add(contact, hit)
    ordered = sorted(left.items(), key=lambda pair: WRITE_ORDER.index(pair[0].object))
    return {ref: _relinked(item, swapped) for ref, item in ordered}


def _is_contact(
    lead: Ref,
    contact: Ref,
    wanted: Mapping[Ref, MergedRecord],
    ledger: LedgerEntries,
    findings: LookupResults,
) -> bool:
    known = ledger.get(contact)
    if (known and known.live) or findings.found.get(contact):
        return True
    there = findings.found.get(lead, ())
    if any(item.became == contact for item in there):
        return True
    if there or lead in ledger:
        return False
    record = wanted[contact].record
    companies = [ref for ref in record.links if ref.object is ObjectName.COMPANY]
    return record.match.create and any(
        findings.found.get(ref) or (ref in ledger and ledger[ref].live) for ref in companies
    )


def _relinked(item: MergedRecord, swapped: Mapping[Ref, Ref]) -> MergedRecord:
    links = tuple(dict.fromkeys(swapped.get(ref, ref) for ref in item.record.links))
    return replace(item, record=replace(item.record, links=links))


def use_own_companies(
    settled: Diff, ledger: LedgerEntries, findings: LookupResults, look_up: LookUp
) -> LedgerEntries:
    """Let what hangs on a person hang on the company that the person belongs to in the CRM.

    That is before any company that is looked for, or made, by the domain of the e-mail address; unless
    that company is known to be gone. Gives the ledger with these companies in it.
    """
    own: dict[Ref, Ref] = {}
    for ref, item in settled.wanted.items():
        if ref.object is ObjectName.CONTACT and item.record.with_company:
            company = _own_company(ref, item.record, ledger, findings)
            line = look_up(company) if company else None
            if company and not (line and line.lost):
                own[ref] = company
    if not own:
        return ledger
    known = dict(ledger)
    for company in own.values():
        if company not in known:
            known[company] = LedgerEntry(company.key.removeprefix(OWN_COMPANY))
        settled.companies[company] = known[company].record_id or ""
    wanted = {ref: _at_own_company(item, own) for ref, item in settled.wanted.items()}
    version = max(item.version for item in wanted.values())
    wanted |= {
        company: MergedRecord(placeholder(company), version) for company in settled.companies
    }
    linked = {link for item in wanted.values() for link in item.record.links}
    # A company of which nobody is left is neither made nor filled for this.
    taken = {link for item in settled.wanted.values() for link in item.record.links} - linked
    ordered = sorted(wanted.items(), key=lambda pair: WRITE_ORDER.index(pair[0].object))
    settled.wanted = {ref: item for ref, item in ordered if ref not in taken}
    return known


def _own_company(
    ref: Ref, record: DesiredRecord, ledger: LedgerEntries, findings: LookupResults
) -> Ref | None:
    """The company that a person belongs to, where that is another one than that of the domain."""
    found = next(iter(findings.found.get(ref, ())), None)
    if found is None:
        known = ledger.get(ref)
        kept = [r for r in known.links if is_own_company(r)] if known and known.live else []
        return kept[0] if kept else None
    if not found.company:
        return None
    for link in record.links:
        if link.object is ObjectName.COMPANY:
            line = ledger.get(link)
            there = line.record_id if line and line.live else findings.first(link)
            if there == found.company:
                return None
    return Ref(ObjectName.COMPANY, f"{OWN_COMPANY}{found.company}")


def _at_own_company(item: MergedRecord, own: Mapping[Ref, Ref]) -> MergedRecord:
    """A record with the company of the person that it is of, or that comes first on it."""
    record = item.record
    people = [ref for ref in (record.ref, *record.links) if ref.object is ObjectName.CONTACT]
    company = own.get(people[0]) if people and record.ref.object is not ObjectName.COMPANY else None
    if company is None:
        return item
    others = [ref for ref in record.links if ref.object is not ObjectName.COMPANY]
    rest = [ref for ref in record.links if ref.object is ObjectName.COMPANY][1:]
    before = [ref for ref in others if ref.object in PEOPLE]
    after = [ref for ref in others if ref.object not in PEOPLE]
    links = tuple(dict.fromkeys((*before, company, *rest, *after)))
    return replace(item, record=replace(record, links=links))


@dataclass
class _Judge:
    """Decides on one record after the other, in write order."""

    ledger: LedgerEntries
    shape: CrmShape
    directory: Directory
    findings: LookupResults
    settled: Diff
    claimed: Claimed
    stages: Mapping[Ref, Fingerprints]

    def change(self, ref: Ref) -> Change | None:
        """What is to be done about a record; None where it is not wanted after all."""
        wanted = self.settled.wanted
        # What is not wanted after all, or cannot be, is linked to nothing.
        links = tuple(link for link in wanted[ref].record.links if link in wanted)
        known = self.ledger.get(ref)
        links += self._kept_links(wanted[ref].record, known, links)
        there = self.findings.found.get(ref)
        if known and known.record_id and there and there[0].was == known.record_id:
            # It is the same under another id: what was written to it stands in it.
            known = replace(known, record_id=there[0].record_id, lost=False)
        record = self._as_it_stands(replace(wanted[ref].record, links=links), known, there)
        item = replace(wanted[ref], record=record)
        wanted[ref] = item
        unseen = self._unseen(known)
        if unseen > 0:
            words = f"The {ref.object} hangs on what was begun before; it may not be found yet."
            self.settled.problems[ref] = RetryLater(words, unseen)
            return None
        if record.delete:
            return self._absent(record, known, there)
        anothers = known is not None and self._is_anothers(record, known, there)
        gone = known is not None and (known.lost or (ref in self.findings.asked and not there))
        moved = known and there and there[0].record_id != known.record_id
        stayed = known is not None and known.erase_begun and there and not moved
        new = known is None
        if known and is_unfilled(record, known):
            said = still_said(item, known)
            new = bool(changed_fields(said, known))
            record = said if new else record
        if known and not (new and there) and ((known.live and not gone and not moved) or stayed):
            return self._known(item, known, there[0] if there else None)
        if there and not anothers:
            begun = known is not None and known.record_id is None and not record.match.asked
            mine = known is not None and known.record_id is not None and not new
            if begun and known and ref.object not in SHARED:
                return self._begun(record, known, there[0])
            return self._found(record, there, mine, None if mine else known)
        return self._missing(record, known, gone and not anothers)

    def _as_it_stands(
        self, record: DesiredRecord, known: LedgerEntry | None, there: list[CrmRecord] | None
    ) -> DesiredRecord:
        """A deal without what it has no place for while it is a lead of the CRM's inbox.

        It is written once the lead has become a deal.
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

    def _is_anothers(
        self, record: DesiredRecord, known: LedgerEntry, there: list[CrmRecord] | None
    ) -> bool:
        """Whether the CRM only named somebody else's record in the way of this person's.

        Two people of one name, say, where a rule takes one of a name: neither takes the other's. Where
        the CRM goes by the address, one person has both addresses.
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
        """The links that a record has which is only kept current, but to those who left."""
        if record.links_to_drop is None or known is None:
            return ()
        live = (
            ref
            for ref in known.links
            if self.findings.found.get(ref) or (ref in self.ledger and self.ledger[ref].live)
        )
        return tuple(ref for ref in live if ref not in links and ref not in record.links_to_drop)

    def _missing(
        self, record: DesiredRecord, known: LedgerEntry | None, gone: bool
    ) -> Change | None:
        ref, links = record.ref, record.links
        if record.fill_only:
            return None
        by_others = gone and known and known.record_id and not known.erase_begun
        if by_others and record.match.lost is OnLost.LEAVE:
            self.settled.note(ref, f"The {ref.object} was deleted in the CRM and is left so.")
            return None
        unseen = self._lag(ref, record.match, known)
        if unseen > 0:
            words = f"A {ref.object} was begun before; the CRM's search may not show it yet."
            self.settled.problems[ref] = RetryLater(words, unseen)
            return None
        if not record.match.create:
            self.settled.note(ref, f"The CRM has no such {ref.object}, and none is to be made.")
            return None
        filled = {name: value for name, value in record.fields.items() if not blank(value)}
        return Change(
            ref,
            None,
            fields=filled,
            on_match=self._adopted(record, None, filled),
            links_after=links,
            links=links,
            match=record.match,
            maybe_created=known is not None,
            # What could not be read is not read again because it is in the way.
            not_taken=known.record_id if known else None,
            inbox=record.inbox,
        )

    def _unseen(self, known: LedgerEntry | None) -> float:
        """Seconds for which what a begun record was to hang on may be there although none was found."""
        links = links_of_lost_create(known, self.ledger) if known else []
        wanted, waits = self.settled.wanted, self.settled.problems
        missing = [ref for ref in links if not self.findings.found.get(ref)]
        missing = [ref for ref in missing if ref not in wanted or ref in waits]
        return max((self._lag(ref, match_of(ref), self.ledger[ref]) for ref in missing), default=0)

    def _lag(self, ref: Ref, match: Match, known: LedgerEntry | None) -> float:
        """Seconds for which a record that was begun may be there although the search found none."""
        if known is None or known.record_id is not None or known.age is None:
            return 0.0
        if is_unique(ref.object, match, self.shape, self.directory):
            return 0.0
        lag = self.shape.lag.get(ref.object, 0.0)
        # A clock that was set back makes nothing younger than new.
        return min(lag, lag - known.age)

    def _absent(
        self, record: DesiredRecord, known: LedgerEntry | None, there: list[CrmRecord] | None
    ) -> Change | None:
        record_id = known.record_id if known and known.live else None
        if record_id is None and known and there and there[0].by is FoundBy.TITLE:
            words = (
                f"A {record.ref.object} of the same title may be a second one: look, and delete it."
            )
            self.settled.note(record.ref, words)
            return None
        record_id = record_id or (there[0].record_id if there and known else None)
        if record_id is None:
            self._await_begun(record, known)
            return None
        return Change(record.ref, record_id, {}, {}, match=record.match, delete=True)

    def _await_begun(self, record: DesiredRecord, known: LedgerEntry | None) -> None:
        """Look once more for what is to be taken out while its create may still be on its way."""
        if known is None or known.record_id is not None or known.age is None:
            return
        lag = max(self.shape.lag.get(record.ref.object, 0.0), ON_ITS_WAY)
        left = min(lag, lag - known.age)
        if left > 0:
            words = f"A {record.ref.object} that is to be taken out was begun a moment ago."
            self.settled.problems[record.ref] = RetryLater(words, left)

    def _known(self, item: MergedRecord, known: LedgerEntry, there: CrmRecord | None) -> Change:
        record = item.record
        changed = changed_fields(still_said(item, known), known)
        present = there.values if there else {}
        fields = {}
        for name, value in self._emptied(record, changed).items():
            allowed = self._allowed(record, name, value, present, known, there is not None)
            if allowed is not None:
                fields[name] = allowed.value
        if (there and there.read_only) or _is_mixed(record, fields, changed, present):
            taken = set(fields) if there and there.read_only else record.atomic_fields
            fields = {name: value for name, value in fields.items() if name not in taken}
        ours = record.ref.object not in SHARED and not record.not_ours
        converted = there is not None and bool(there.was) and there.record_id == known.record_id
        return Change(
            record.ref,
            known.record_id,
            fields=fields,
            on_match={},
            links_after=record.links,
            links=tuple(
                ref
                for ref in record.links
                # A lead has a place for one person alone, a deal for all of them.
                if converted
                or known.links_in_doubt
                or ref not in known.links
                or ref in self.settled.renewed
            ),
            links_to_remove=tuple(ref for ref in known.links if ours and ref not in record.links),
            primary_changed=ours and self._has_new_main(record, known),
            match=record.match,
            present=self._still_there(present),
            converted=converted,
        )

    def _emptied(
        self, record: DesiredRecord, changed: Mapping[str, FieldValue]
    ) -> dict[str, FieldValue]:
        """Without what cannot be emptied: a check box is unchecked, everything else stays."""
        kept = dict(changed)
        for name, value in changed.items():
            known = self.directory.field(record.ref.object, name)
            if not blank(value) or known is None or known.empties:
                continue
            if known.kind is FieldKind.FLAG:
                kept[name] = False
                continue
            del kept[name]
            words = f"{record.ref.object}.{name} cannot be emptied in the CRM and stays."
            self.settled.note(record.ref, words)
        return kept

    def _has_new_main(self, record: DesiredRecord, known: LedgerEntry) -> bool:
        """Whether somebody else comes first than before, or the same under another id."""
        mains = _mains(record.links)
        if known.links_in_doubt:
            return True
        return mains != _mains(known.links) or any(ref in self.settled.renewed for ref in mains)

    def _still_there(self, values: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
        """What was read, without references to records that are gone: those are nobody's choice."""
        known = (self.ledger.get(ref) for ref in self.settled.renewed)
        gone = {line.record_id for line in known if line}
        return {name: value for name, value in values.items() if str(value) not in gone}

    def _begun(self, record: DesiredRecord, known: LedgerEntry, found: CrmRecord) -> Change:
        """A record that this service made and never heard of: it holds an older state of its own."""
        filled = {name: value for name, value in record.fields.items() if not blank(value)}
        cleared = {
            name: value
            for name, value in record.fields.items()
            if record.rules.get(name) is WriteRule.ALWAYS
            and blank(value)
            and not blank(found.values.get(name))
        }
        return Change(
            record.ref,
            found.record_id,
            fields=self._adopted(record, found, filled, own=True) | self._emptied(record, cleared),
            on_match={},
            links_after=record.links,
            links=record.links,
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

    def _found(
        self, record: DesiredRecord, there: list[CrmRecord], mine: bool, begun: LedgerEntry | None
    ) -> Change | None:
        several = record.match.several
        if len(there) > 1 and several is OnSeveral.FLAG:
            ids = ", ".join(item.record_id for item in there)
            words = f"{len(there)} {record.ref.object} records match by {there[0].by}: {ids}."
            self.settled.problems[record.ref] = Ambiguous(words)
            return None
        found = there[-1] if several is OnSeveral.NEWEST else there[0]
        filled = {name: value for name, value in record.fields.items() if not blank(value)}
        fields = self._adopted(record, found, filled, begun, mine=mine)
        if found.read_only:
            fields = {}
            words = f"The {record.ref.object} may be linked to but not written: it stays as it is."
            self.settled.note(record.ref, words)
        return Change(
            record.ref,
            found.record_id,
            fields=fields,
            on_match={},
            links_after=record.links,
            # Where a person belongs is the CRM's own link.
            links=tuple(
                ref
                for ref in record.links
                if record.ref.object is not ObjectName.CONTACT or not is_own_company(ref)
            ),
            match=record.match,
            found_in_crm=True,
            present=self._still_there(found.values),
        )

    def _adopted(
        self,
        record: DesiredRecord,
        found: CrmRecord | None,
        filled: Mapping[str, FieldValue],
        begun: LedgerEntry | None = None,
        own: bool = False,
        mine: bool = False,
    ) -> dict[str, FieldValue]:
        """What may be written to a record that was there already.

        `begun`: a create or an update of it got no answer, so that it may be this service's own.
        `own`: this service made it and never heard the answer, so that what stands there is its own.
        `mine`: it was known before, and merged into this one.

        A found person keeps the name that stands there, unless an e-mail says that it is the same
        person and the booking has a whole name: half of one and half of another is nobody's.
        """

        def ours(name: str) -> bool:
            now = found.values.get(name) if found else None
            return begun is not None and is_ours(now, begun.fingerprints.get(name))

        same_person = mine or _is_same_person(record, found)
        stands = {f for f in record.atomic_fields if found and not blank(found.values.get(f))}
        # A name that stands there as it was written is this service's own.
        same_person = same_person or (bool(stands) and all(map(ours, stands)))
        whole = same_person and not any(blank(record.fields[f]) for f in record.atomic_fields)
        kept = {}
        for name, value in filled.items():
            rule = record.rules.get(name)
            half = name in record.atomic_fields and not whole
            if rule is WriteRule.ON_CREATE or half or self._stays(record, name, found, ours(name)):
                if rule is not WriteRule.ON_CREATE and not (same_person or own):
                    self._note_kept(record, name, value, found)
                continue
            if found is None:
                if rule not in READING:
                    kept[name] = value
                continue
            if own and rule is WriteRule.UNTOUCHED:
                if not same(found.values.get(name), value):
                    kept[name] = value
                continue
            # Of the contact that a lead has become nothing has been read.
            was_read = found.became is None
            allowed = self._allowed(record, name, value, found.values, begun, was_read)
            if allowed is not None and not same(found.values.get(name), allowed.value):
                kept[name] = allowed.value
        if found is not None and _is_mixed(record, kept, filled, found.values):
            kept = {name: value for name, value in kept.items() if name not in record.atomic_fields}
        return kept

    def _stays(self, record: DesiredRecord, name: str, found: CrmRecord | None, ours: bool) -> bool:
        """Whether others' owner, or the address by which others know a record, is left as it is."""
        if record.rules.get(name) is not WriteRule.NEVER_BLANK or ours:
            return False
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        keeps_owner = record.ref.object in SHARED or record.not_ours
        return (is_owner and keeps_owner) or _is_kept_address(record, name, found)

    def _note_kept(
        self, record: DesiredRecord, name: str, value: FieldValue, found: CrmRecord | None
    ) -> None:
        """Say of a person who was found by something else than the e-mail that name or address stays."""
        now = found.values.get(name) if found else None
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        if record.ref.object not in PEOPLE or is_owner or blank(now) or same(now, value):
            return
        # An address that stands in for a name is none.
        if name in record.atomic_fields and str(now).casefold() == _address(record).casefold():
            return
        if str(value).casefold() not in [entry.casefold() for entry in as_list(now)]:
            words = f"{record.ref.object}.{name} was filled already and stays."
            self.settled.note(record.ref, words)

    def _allowed(
        self,
        record: DesiredRecord,
        name: str,
        value: FieldValue,
        present: Mapping[str, FieldValue],
        known: LedgerEntry | None,
        was_read: bool,
    ) -> _Value | None:
        """The value to write under a field's rule, or None where what stands there stays."""
        rule = rule_of(record, name, known, self.shape)
        if rule not in READING:
            return _Value(value)
        if not was_read:
            return None
        now = present.get(name)
        if name in record.atomic_fields and str(now).casefold() == _address(record).casefold():
            now = None  # An address that stands in for a name is none.
        if self._is_default_owner(record, name, now, known):
            now = None
        ours = known is not None and name not in known.filled_by_others
        ours = ours and known is not None and is_ours(now, known.fingerprints.get(name))
        if rule is WriteRule.FORWARD and is_ours(now, self.stages.get(record.ref)):
            ours = True  # It was set for another booking of the same deal.
        if blank(now) or (ours and rule is not WriteRule.APPEND):
            stays = rule is WriteRule.IF_EMPTY and not blank(now)
            return None if stays or (ours and same(now, value)) else _Value(value)
        if rule is WriteRule.APPEND:
            return self._added(record, name, now, value)
        if rule is WriteRule.FORWARD and is_later_stage(now, value, self.directory):
            return _Value(value)
        if not same(now, value):
            found = rule is WriteRule.IF_EMPTY or known is None or name in known.filled_by_others
            words = "was filled already" if found else "was changed by others"
            self.settled.note(record.ref, f"{record.ref.object}.{name} {words} and stays.")
        return None

    def _added(
        self, record: DesiredRecord, name: str, now: FieldValue, value: FieldValue
    ) -> _Value | None:
        """What stands there with a value added; None where it has that already, or no room."""
        html = f"{record.ref.object}.{name}" in self.shape.html_fields
        more = appended(now, value, "<br>" if html else "\n")
        if self._is_too_long(record, name, more):
            self.settled.note(record.ref, f"{record.ref.object}.{name} is full and stays.")
            return None
        return None if same(now, more) else _Value(more)

    def _is_too_long(self, record: DesiredRecord, name: str, value: FieldValue) -> bool:
        """Whether a text has grown over what its field takes."""
        known = self.directory.field(record.ref.object, name)
        place = f"{record.ref.object}.{name}"
        limit = (known.length if known else None) or self.shape.text_limits.get(place)
        long = isinstance(value, str) and limit is not None
        return long and measure(str(value), self.shape.text_unit) > (limit or 0)

    def _is_default_owner(
        self, record: DesiredRecord, name: str, now: FieldValue, known: LedgerEntry | None
    ) -> bool:
        """Whether nobody chose an owner: the CRM put our own user there when the record was made."""
        if known is None or record.not_ours or record.ref.object in SHARED:
            return False
        is_owner = name == self.shape.owner_fields.get(record.ref.object)
        never_written = name not in known.fingerprints and name not in known.filled_by_others
        own = self.directory.own_user
        return is_owner and never_written and own is not None and same(now, own)


@dataclass(frozen=True)
class _Value:
    """A value to write, which may be nothing."""

    value: FieldValue


def _is_mixed(
    record: DesiredRecord,
    fields: Mapping[str, FieldValue],
    said: Mapping[str, FieldValue],
    present: Mapping[str, FieldValue],
) -> bool:
    """Whether some of what is written as one would be written, and other parts of it stay others'."""
    stays = [
        name
        for name in record.atomic_fields
        if name not in fields
        and not blank(present.get(name))
        and not blank(said.get(name))
        and not same(present.get(name), said[name])
    ]
    return bool(stays) and bool(record.atomic_fields & set(fields))


def _is_same_person(record: DesiredRecord, found: CrmRecord | None) -> bool:
    """Whether an e-mail says so: the CRM's own key, what it was found by, or what stands there."""
    address = _address(record)
    if not address:
        return False
    if found is None or found.became or found.by.is_email:
        return True
    names = [name for name, value in record.fields.items() if value == address]
    there = [entry.lower() for name in names for entry in as_list(found.values.get(name) or "")]
    return address in there


def _is_kept_address(record: DesiredRecord, name: str, found: CrmRecord | None) -> bool:
    """A found person keeps the address that stands there, and a found company its domain: it is
    known by another one as well."""
    company = record.ref.object is ObjectName.COMPANY and not is_own_company(record.ref)
    address = record.ref.key if company else _address(record)
    if not address or record.fields[name] != address:
        return False
    return found is None or found.became is not None or not blank(found.values.get(name))


def _address(record: DesiredRecord) -> str:
    """The e-mail address that a person goes by here; empty for a phone number."""
    kind, _, address = record.ref.key.partition(":")
    return address if record.ref.object in PEOPLE and kind == "email" else ""


def _mains(links: tuple[Ref, ...]) -> list[Ref | None]:
    """The person and the company that come first: most CRMs have a place for one of each."""
    return [next((ref for ref in links if ref.object is name), None) for name in SHARED]
