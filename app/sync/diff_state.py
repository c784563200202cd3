"""The changes that a CRM needs, with notes that a person should know about."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.crm.changes import Plan
from app.crm.objects import (
    Ref,
)
from app.domain.errors import CrmError
from app.sync.merge import MergedRecord


@dataclass
class Diff:
    """What to do about a batch, after the lookups in the CRM."""

    wanted: dict[Ref, MergedRecord]
    """The records that remain: contact or lead, not both; no company that must not be created."""
    renewed: set[Ref] = field(default_factory=set)
    """Records that another record replaces: every link to them is made again."""
    gone: set[Ref] = field(default_factory=set)
    """Records that were only to be filled in, and that the CRM no longer has."""
    plan: Plan = field(default_factory=lambda: Plan(()))
    problems: dict[Ref, CrmError] = field(default_factory=dict)
    notes: dict[Ref, list[str]] = field(default_factory=dict)
    """Notes on fields and records that were left unchanged, and why."""

    companies: dict[Ref, str] = field(default_factory=dict)
    """Companies of people that were found, by our key for the company -> the company's id."""

    def note(self, ref: Ref, words: str) -> None:
        """Remember a sentence about a record."""
        self.notes.setdefault(ref, []).append(words)
