"""What the adapters share: finding one, links of a change, problems of a write, the schema."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TypeVar

from app.crm.changes import Change
from app.crm.objects import ObjectName, Ref
from app.crm.port import Adapter, Report
from app.crm.schema import CrmField
from app.domain.errors import (
    AccountMoved,
    AccountRefused,
    Blocked,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    ThereAlready,
)

T = TypeVar("T")


BOOKING_FIELD = "meetergo_booking_id"
"""Name of the custom field that carries the booking's id in every CRM."""


SEARCH_LAG = 15.0
"""Seconds until a search shows what was made; HubSpot and Pipedrive only say that it takes some."""


def unblocked(changes: Sequence[Change], report: Report, ids: Mapping[Ref, str]) -> list[Change]:
    """The changes that can be written now; those that have to wait are noted as blocked.

    What was refused for good keeps nothing else out: a record is written without its link to one
    that is not there. `ids` are the records that are known, also where an update was refused.
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
    """A change that links to none of these."""
    if not refs:
        return change
    return replace(
        change,
        links_after=tuple(ref for ref in change.links_after if ref not in refs),
        links=tuple(ref for ref in change.links if ref not in refs),
    )


def ids_of(refs: Iterable[Ref], ids: Mapping[Ref, str], *names: ObjectName) -> dict[str, Ref]:
    """The ids of those of these records that are there, in order, of some objects or of all.

    One record may stand for several: a person who is given twice, with two addresses, is one.
    """
    found: dict[str, Ref] = {}
    for ref in refs:
        if ref in ids and (not names or ref.object in names):
            found.setdefault(ids[ref], ref)
    return found


def unlinked(change: Change, ids: Mapping[Ref, str]) -> dict[str, Ref]:
    """The ids of what a change takes links away to; not of what stays under another key."""
    stay = ids_of(change.links_after, ids)
    return {i: ref for i, ref in ids_of(change.links_to_remove, ids).items() if i not in stay}


def there_already(change: Change, error: Conflict) -> Conflict | ThereAlready:
    """The problem of a create that a person's or a company's record is in the way of.

    That record is read first, unless it is known already that it cannot be taken.
    """
    found = error.record_id
    # Salesforce writes an id in 15 or in 18 characters.
    if found is None or found[:15] == (change.not_taken or "")[:15]:
        return error
    return ThereAlready(error.message, found)


def problem_of(change: Change, error: CrmError) -> CrmError:
    """What a CRM's error means for the change that it was the answer to.

    What is being made cannot be gone, nor can what was read just now: then something else of the
    write is refused. `note_lost_targets` looks what that is.
    """
    if not isinstance(error, Gone):
        return error
    if not change.record_id or change.found_in_crm:
        return InvalidRecord(error.message)
    return Gone(error.message, change.record_id)


def load_adapter(path: str) -> type[Adapter]:
    """Find an adapter's class by `module:Class`, as providers.yaml names it."""
    module, _, name = path.partition(":")
    adapter: type[Adapter] = getattr(import_module(module), name)
    return adapter


def confirmed(ask: Callable[[], T], probe: Callable[[], object]) -> T:
    """What a question gives that is done without where it is refused.

    A refusal may be one of everything that passes in a moment. So `probe` makes a call that every
    account answers, and the question is asked once more. Raises what the second time says, or `probe`.
    """
    try:
        return ask()
    except (AccountRefused, InvalidRecord):
        probe()
        return ask()


def read_schema(
    read: Callable[[ObjectName], dict[str, CrmField]],
    objects: Sequence[ObjectName],
    needed: frozenset[ObjectName] | None,
    called: Mapping[ObjectName, str] | None = None,
) -> tuple[dict[ObjectName, dict[str, CrmField]], list[str]]:
    """The fields of the objects that a mapping uses, and a sentence for each that cannot be read.

    `called`: what the CRM calls its objects, where who may not read an object's fields may not write
    its records either. Raises AccountRefused then, where the object is needed.
    """
    schema: dict[ObjectName, dict[str, CrmField]] = {}
    notes: list[str] = []
    for name in objects:
        if needed is not None and name not in needed:
            continue
        try:
            schema[name] = read(name)
        except AccountMoved:
            raise  # It says nothing of this object.
        except (Gone, AccountRefused, InvalidRecord) as error:
            if needed is not None and called:
                words = (
                    f"The account does not show {called[name]} records, which the mapping writes"
                )
                raise AccountRefused(f"{words}: {error.message}") from None
            notes.append(f"The fields of {name} records cannot be read: {error.message}")
    return schema, notes
