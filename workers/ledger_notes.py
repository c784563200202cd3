"""What a batch notes in the ledger: before a write its intents, after it the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from app.crm.changes import WriteOutcome
from app.crm.objects import Ref
from app.crm.port import Adapter, Report
from app.domain.errors import Gone, ThereAlready
from app.store.ledger import Intent, Ledger
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import fingerprints_of, known_after

Entries = Mapping[Ref, LedgerEntry]


def note_intents(ledger: Ledger, diff: Diff, known: Entries, now: datetime) -> set[Ref]:
    """Note the creates, updates and deletes to be sent; return the records new to the ledger."""
    plan, wanted = diff.plan, diff.wanted
    intents = {
        change.ref: Intent(
            change.links_after,
            fingerprints_of(change.fields),
            {name: wanted[change.ref].version_of(name) for name in change.fields},
        )
        for change in plan.changes
        if not change.delete
    }
    new = {change.ref for change in plan.changes if change.record_id is None}
    # An entry for a record that was only found, and is not taken over, stands for nothing of ours.
    unfilled = {ref for ref in new & set(known) if known[ref].unfilled}
    for ref in unfilled:
        ledger.forget(ref)
    ledger.intend(intents, now)
    ledger.intend_to_erase([change.ref for change in plan.changes if change.delete])
    return (new - set(known)) | unfilled


def note_results(
    ledger: Ledger,
    diff: Diff,
    known: Entries,
    report: Report,
    adapter: Adapter,
    intended: set[Ref],
    now: datetime,
) -> None:
    """Write the results of a batch to the ledger; `intended` is what `note_intents` returned."""
    for ref in diff.renewed & set(report.results):
        ledger.unlink(ref)
    for ref in diff.gone:
        ledger.lose(ref)
    for ref, result in report.results.items():
        if ref in diff.wanted and result.outcome is WriteOutcome.DELETED:
            ledger.forget(ref)
    entries = _entries_after(diff, known, report, adapter)
    ledger.save(entries | _unfilled(diff, report, adapter), now)
    # A create that was never sent is not in doubt: the next try need not look for it.
    ledger.withdraw(intended - report.begun - set(report.results))
    for ref, problem in report.problems.items():
        if isinstance(problem, Gone):
            ledger.lose(ref)


def _entries_after(
    diff: Diff, known: Entries, report: Report, adapter: Adapter
) -> dict[Ref, LedgerEntry]:
    """The ledger entries that change: those of written records, and those now out of date."""
    changes = {change.ref: change for change in diff.plan.changes}
    ids = diff.plan.known_ids() | {r: done.record_id for r, done in report.results.items()}
    entries = {}
    for ref, item in diff.wanted.items():
        result, change = report.results.get(ref), changes.get(ref)
        if result and result.outcome is WriteOutcome.DELETED:
            continue
        if result is None and (ref in changes or ref in diff.problems):
            continue
        before = None if ref in diff.renewed else known.get(ref)
        if change and change.converted:
            # The same record under another id: the ledger's entry stays valid.
            before = replace(known[ref], record_id=change.record_id, lost=False)
        if result and result.outcome is WriteOutcome.CREATED:
            before = None
        if result is None and before is None:
            continue
        record_id = result.record_id if result else before.record_id if before else None
        url = adapter.url_for(ref.object, record_id) if record_id else ""
        # A link to a record that could not be made is added later.
        links = tuple(r for r in item.record.links if r not in report.problems or r in ids)
        made = replace(item, record=replace(item.record, links=links))
        after = known_after(made, before, record_id, url, change if result else None)
        # What was sent stays in doubt in the ledger until an entry says that it went through.
        if result or before is None or after != replace(before, age=None):
            entries[ref] = after
    return entries


def _unfilled(diff: Diff, report: Report, adapter: Adapter) -> dict[Ref, LedgerEntry]:
    """Entries for found records of others: the ledger knows only that they exist."""
    there = dict(diff.companies)
    for ref, problem in report.problems.items():
        if isinstance(problem, ThereAlready):
            # The next try reads the record and fills it.
            there[ref] = problem.record_id
    return {
        ref: LedgerEntry(record_id, url=adapter.url_for(ref.object, record_id))
        for ref, record_id in there.items()
    }
