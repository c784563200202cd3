"""What is to be changed in a CRM, with what a person should know of it."""

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
