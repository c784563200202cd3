"""Asks a CRM what has to be known before anything is written: sync and preview share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from app.domain.records import SHARED, Directory, Findings, Known, Ref
from app.mapping.ask import ask
from app.mapping.diff import Settled, settle
from app.mapping.wanted import Wanted
from crm_adapters.base import Adapter


def inquire(
    adapter: Adapter,
    wanted: Mapping[Ref, Wanted],
    ledger: Mapping[Ref, Known],
    directory: Directory,
    thorough: bool = False,
    parts: Iterable[Iterable[Ref]] = (),
    claimed: Callable[[Ref, str], bool] = lambda ref, record_id: False,
) -> Settled:
    """Read what is needed and settle what is to be done. Raises the CRM's errors; writes nothing.

    `parts` says what is asked together, where all of it is too much for one call; `claimed` whether
    a record stands for something else already, so that no create that was begun takes it for its own.
    """
    shape = adapter.shape
    questions = {q.ref: q for q in ask(wanted, ledger, shape, directory, thorough)}
    ids = {ref: known.record_id for ref, known in ledger.items() if known.live and known.record_id}
    findings = Findings(asked=frozenset(questions))
    # Who was left behind belongs to no booking any more: others are found through him.
    left_behind = [ref for ref in questions if ref not in wanted]
    for part in parts or [list(wanted)]:
        refs = dict.fromkeys([*left_behind, *part])
        mine = [questions.pop(ref) for ref in refs if ref in questions]
        if mine:
            found = adapter.find(mine, ids).found
            for ref, there in found.items():
                if ref in ledger and ledger[ref].record_id is None and ref.object not in SHARED:
                    found[ref] = [hit for hit in there if not claimed(ref, hit.record_id)]
            findings.found |= found
            ids |= {ref: there[0].record_id for ref, there in found.items() if there}
    return settle(wanted, ledger, shape, directory, findings)
