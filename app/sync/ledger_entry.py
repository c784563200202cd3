"""What the ledger keeps of a record, and what of a booking is news to it: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.crm.objects import Fingerprints, Ref


@dataclass(frozen=True)
class LedgerEntry:
    """What the ledger knows of a record: its id (None: a create was begun), and what was written."""

    record_id: str | None
    fingerprints: Mapping[str, Fingerprints] = field(default_factory=dict)
    """Field -> of the value that was written last."""
    links: tuple[Ref, ...] = ()
    version: datetime | None = None
    url: str = ""
    lost: bool = False
    """The CRM said that it no longer has the record: look what became of it."""
    age: float | None = None
    """Seconds since it was written last, or since its create was begun; None where nobody asked."""
    versions: Mapping[str, datetime] = field(default_factory=dict)
    """Fields whose value is an older booking's: the newest one left them empty."""
    filled_by_others: frozenset[str] = frozenset()
    """Fields that others had filled when the record was found: never this service's own, even where
    a booking says the same."""
    links_in_doubt: bool = False
    """The answer to a write never came: nobody knows which links there are."""
    erase_begun: bool = False
    """The answer to taking it out never came: it may be gone, and not by a person."""

    def version_of(self, name: str) -> datetime | None:
        """Which state of a booking a field's value is from."""
        return self.versions.get(name, self.version)

    @property
    def unfilled(self) -> bool:
        """Whether nothing was ever written to it: it is there for others to be linked to."""
        unanswered = self.links_in_doubt or self.erase_begun
        return self.live and not self.fingerprints and not unanswered

    @property
    def live(self) -> bool:
        """Whether there is a record to write to."""
        return bool(self.record_id) and not self.lost
