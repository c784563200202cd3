"""Asks a CRM for what must be known before a write: sync and preview share this code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from app.crm.lookup import CrmRecord, FoundBy, LookupResults
from app.crm.objects import OWN_COMPANY, PEOPLE, Fingerprints, ObjectName, Ref
from app.crm.port import Adapter
from app.crm.schema import Directory
from app.sync.diff import Claimed, diff_records
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.lookups import is_own_company, lookups_for
from app.sync.merge import MergedRecord
from app.sync.people import LookUp
from app.sync.shared_deals import Shared, with_others


@dataclass(frozen=True)
class LedgerQueries:
    """The questions to the ledger about records that were not known before the CRM answered."""

    claimed: Claimed = lambda ref, record_id: False
    """Whether the record is another booking's: a begun or refused create must not take it over."""
    shared: Claimed = lambda ref, record_id: False
    """Whether a person's record also stands for somebody else who takes part in a booking."""
    others: Callable[[Ref, str], Shared | None] = lambda ref, record_id: None
    """What other bookings say about a deal that may be theirs too."""
    look_up: LookUp = lambda ref: None
    """The ledger's entry for a company that a found person belongs to."""


def read_crm_state(
    adapter: Adapter,
    wanted: Mapping[Ref, MergedRecord],
    ledger: Mapping[Ref, LedgerEntry],
    directory: Directory,
    thorough: bool = False,
    parts: Iterable[Iterable[Ref]] = (),
    more: LedgerQueries | None = None,
) -> Diff:
    """Ask the CRM what is needed and work out the diff. Raises the CRM's errors; writes nothing.

    `parts`: the records to ask for together, if all of them are too many for one call. `more`: the
    questions to the ledger once it is known what the CRM holds.
    """
    more = more or LedgerQueries()
    shape = adapter.shape
    questions = {q.ref: q for q in lookups_for(wanted, ledger, shape, directory, thorough)}
    ids = {ref: known.record_id for ref, known in ledger.items() if known.live and known.record_id}
    limited = [question for question in questions.values() if any(key.of for key in question.keys)]
    own = {ref for question in limited for ref in question.anchors if is_own_company(ref)}
    # A found person's company is known only by its id.
    ids |= {ref: ref.key.removeprefix(OWN_COMPANY) for ref in own}
    findings = LookupResults(asked=frozenset(questions))
    # People who were left behind belong to no booking any more; others are found through them.
    left_behind = [ref for ref in questions if ref not in wanted]
    for part in parts or [list(wanted)]:
        refs = dict.fromkeys([*left_behind, *part])
        mine = [questions.pop(ref) for ref in refs if ref in questions]
        if mine:
            told = adapter.find(mine, ids)
            found, findings.notes = told.found, findings.notes | told.notes
            begun = {
                ref: found[ref]
                for ref in wanted
                if ref in found and ref in ledger and ledger[ref].record_id is None
            }
            found |= _each_its_own(begun, more.claimed)
            findings.found |= found
            ids |= {ref: there[0].record_id for ref, there in found.items() if there}
    single = _single(wanted, ids, more.shared)
    stages: dict[Ref, Fingerprints] = {}
    for ref, item in single.items():
        if ref.object is ObjectName.DEAL and item.record.not_ours and ref in ids:
            others = more.others(ref, ids[ref])
            if others:
                stages[ref] = others.written
                record = with_others(item.record, others, shape, directory)
                single[ref] = replace(item, record=record)
    return diff_records(
        single, ledger, shape, directory, findings, more.look_up, more.claimed, stages
    )


def _single(
    wanted: Mapping[Ref, MergedRecord], ids: Mapping[Ref, str], shared: Claimed
) -> dict[Ref, MergedRecord]:
    """Leave out a person who is only filled in and whose record now stands for somebody else.

    An address was corrected, or two records were merged: the sums are those of the other person.
    """
    whole = {
        (ref.object, ids[ref])
        for ref, item in wanted.items()
        if ref in ids and not item.record.fill_only
    }
    return {
        ref: item
        for ref, item in wanted.items()
        if not item.record.fill_only
        or ref.object not in PEOPLE
        or ref not in ids
        or ((ref.object, ids[ref]) not in whole and not shared(ref, ids[ref]))
    }


def _each_its_own(
    begun: Mapping[Ref, list[CrmRecord]], claimed: Claimed
) -> dict[Ref, list[CrmRecord]]:
    """Give each begun create one of the records that may have come of it, certain hits first."""
    own = {
        ref: [hit for hit in there if hit.by not in (FoundBy.BOOKING_NUMBER, FoundBy.TITLE)]
        for ref, there in begun.items()
    }
    taken: set[tuple[ObjectName, str]] = set()
    for by in (FoundBy.BOOKING_NUMBER, FoundBy.TITLE):
        for ref, there in begun.items():
            free = [
                hit
                for hit in there
                if hit.by == by
                and (ref.object, hit.record_id) not in taken
                and not claimed(ref, hit.record_id)
            ]
            if free and not own[ref]:
                own[ref] = free[:1]
                taken.add((ref.object, free[0].record_id))
    return own
