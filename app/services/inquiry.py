"""Asks a CRM what has to be known before anything is written: sync and preview share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.domain.records import Directory, Findings, Known, Ref
from app.mapping.diff import Settled, Wanted, ask, settle
from crm_adapters.base import Adapter


def inquire(
    adapter: Adapter,
    wanted: Mapping[Ref, Wanted],
    ledger: Mapping[Ref, Known],
    directory: Directory,
    thorough: bool = False,
) -> Settled:
    """Read what is needed and settle what is to be done. Raises the CRM's errors; writes nothing."""
    shape = adapter.shape
    questions = ask(wanted, ledger, shape, directory, thorough)
    findings = Findings()
    if questions:
        ids = {ref: known.record_id for ref, known in ledger.items() if known.live}
        findings = adapter.find(questions, {ref: i for ref, i in ids.items() if i})
        findings = replace(findings, asked=frozenset(question.ref for question in questions))
    return settle(wanted, ledger, shape, directory, findings)
