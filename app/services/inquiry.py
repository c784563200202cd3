"""Asks a CRM what has to be known before anything is written: sync and preview share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.domain.records import Directory, Findings, Known, Ref
from app.mapping.diff import Settled, Wanted, ask, settle
from crm_adapters.base import Adapter


def inquire(
    adapter: Adapter,
    wanted: Mapping[Ref, Wanted],
    ledger: Mapping[Ref, Known],
    directory: Directory,
    thorough: bool = False,
    parts: Iterable[Iterable[Ref]] = (),
) -> Settled:
    """Read what is needed and settle what is to be done. Raises the CRM's errors; writes nothing.

    `parts` says what is asked together, where all of it is too much for one call.
    """
    shape = adapter.shape
    questions = {q.ref: q for q in ask(wanted, ledger, shape, directory, thorough)}
    ids = {ref: known.record_id for ref, known in ledger.items() if known.live and known.record_id}
    findings = Findings(asked=frozenset(questions))
    for part in parts or [list(wanted)]:
        mine = [questions.pop(ref) for ref in dict.fromkeys(part) if ref in questions]
        if mine:
            found = adapter.find(mine, ids).found
            findings.found |= found
            ids |= {ref: there[0].record_id for ref, there in found.items() if there}
    return settle(wanted, ledger, shape, directory, findings)
