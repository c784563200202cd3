"""Parts that the adapters share for writing: what waits, single changes, the meaning of errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace

from app.crm.changes import Change, Plan, WriteResult
from app.crm.links import LinkPlan, plan_links
from app.crm.lookup import Lookup, LookupResults
from app.crm.objects import ObjectName, Ref
from app.crm.port import Report
from app.domain.errors import (
    AccountRefused,
    Blocked,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RetryLater,
    ThereAlready,
    Unauthorized,
)
from crm_adapters.http import together

REFUSALS = (InvalidRecord, Conflict, AccountRefused, Gone)
"""Errors that prove that the CRM has created nothing."""


def write_each(
    pool: Executor,
    plan: Plan,
    report: Report,
    objects: Sequence[ObjectName],
    write: Callable[[Change, LinkPlan], WriteResult],
) -> None:
    """Write a plan one change at a time, and note the result of each.

    `write` writes one change and raises CrmError if it is refused. Changes to one kind of object
    run at the same time; the next kind starts afterwards, since its records link to them. Raises
    errors that concern the account as a whole.
    """
    ids = plan.known_ids()

    def write_one(change: Change) -> None:
        try:
            result = write(change, plan_links(change, ids))
        except (RetryLater, AccountRefused, Unauthorized):
            raise
        except CrmError as error:
            report.problems[change.ref] = problem_of(change, error)
            return
        report.results[change.ref] = result
        ids[change.ref] = result.record_id

    for name in objects:
        together(pool, write_one, unblocked(plan.of(name), report, ids))


@contextmanager
def creating(report: Report, change: Change) -> Iterator[None]:
    """Note a create as sent, around the call that makes it; a refused create does not count as sent."""
    try:
        with report.sending([change.ref]):
            yield
    except REFUSALS:
        report.refused([change.ref])
        raise


def unblocked(changes: Sequence[Change], report: Report, ids: Mapping[Ref, str]) -> list[Change]:
    """Return the changes that can be written now; note the ones that have to wait as blocked.

    A record that was refused for good blocks no other: the other is written without the link if the
    refused one does not exist. `ids` are the known records, also those whose update was refused.
    """
    ready = []
    for change in changes:
        blocker = report.blocked_by(change.links_after)
        if blocker:
            words = f"The {blocker.object} was not written: {report.problems[blocker]}"
            report.problems[change.ref] = Blocked(words)
        else:
            lacking = {
                ref for ref in change.links_after if ref in report.problems and ref not in ids
            }
            ready.append(without(change, lacking))
    return ready


def without(change: Change, refs: Collection[Ref]) -> Change:
    """Return the change without its links to these records."""
    if not refs:
        return change
    return replace(
        change,
        links_after=tuple(ref for ref in change.links_after if ref not in refs),
        links_to_add=tuple(ref for ref in change.links_to_add if ref not in refs),
    )


def there_already(change: Change, error: Conflict) -> Conflict | ThereAlready:
    """Return the problem of a create that conflicts with an existing person or company.

    That record is read first, unless it is known already that it cannot be used.
    """
    found = error.record_id
    # Salesforce writes an id with 15 or 18 characters.
    if found is None or found[:15] == (change.not_taken or "")[:15]:
        return error
    return ThereAlready(error.message, found)


def problem_of(change: Change, error: CrmError) -> CrmError:
    """Return the meaning of a CRM's error for the change that caused it.

    A new record cannot be gone, and neither can one that was read just now: then the error is about
    another part of the write. `note_lost_targets` finds out which one.
    """
    if not isinstance(error, Gone):
        return error
    if not change.record_id or change.found_in_crm:
        return InvalidRecord(error.message).because(error.refusal)
    return Gone(error.message, change.record_id).because(error.refusal)


def note_lost_targets(
    find: Callable[[Sequence[Lookup], Mapping[Ref, str]], LookupResults], plan: Plan, report: Report
) -> None:
    """After a failed write, check whether the records that it links to still exist.

    A person may have merged or deleted one. Then that record is noted as gone, to be followed or
    created again, and the record that links to it waits, whatever error the CRM gave. The same is
    done for a record that was found before it was written.
    """
    failed = [
        change
        for change in plan.changes
        if isinstance(report.problems.get(change.ref), (InvalidRecord, Gone))
    ]
    suspects = {
        ref: plan.ids[ref]
        for change in failed
        for ref in change.links_after
        if ref in plan.ids and ref not in report.results and ref not in report.problems
    }
    suspects |= {c.ref: c.record_id for c in failed if c.found_in_crm and c.record_id}
    if not suspects:
        return
    there = find([Lookup(ref, record_id) for ref, record_id in suspects.items()], {}).found
    for ref, record_id in suspects.items():
        if not any(found.record_id == record_id for found in there.get(ref, ())):
            words = f"The {ref.object} {record_id} was deleted, or merged into another one."
            report.problems[ref] = Gone(words, record_id)
    for change in failed:
        if report.blocked_by(change.links_after):
            del report.problems[change.ref]
            unblocked([change], report, plan.known_ids())
