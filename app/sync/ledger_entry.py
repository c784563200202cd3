"""What the ledger knows of a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.crm.objects import Fingerprints, Ref


@dataclass(frozen=True)
class LedgerEntry:
    """What the ledger knows of a record: its id (None: create unanswered), and what was written."""

    record_id: str | None
    fingerprints: Mapping[str, Fingerprints] = field(default_factory=dict)
    """Field -> the fingerprints of the value that was written last."""
    links: tuple[Ref, ...] = ()
    version: datetime | None = None
    url: str = ""
    lost: bool = False
    """The CRM reported that it no longer has the record: a lookup must find out why."""
    age: float | None = None
    """Seconds since the last write, or since the create was sent; None if nobody asked for it."""
    versions: Mapping[str, datetime] = field(default_factory=dict)
    """The versions of fields whose value is from an older booking because the newest had none."""
    filled_by_others: frozenset[str] = frozenset()
    """Fields that others had filled when the record was found: they never count as this service's
    own, even if a booking has the same value."""
    links_in_doubt: bool = False
    """A write got no answer: the present links of the record are not known."""
    erase_begun: bool = False
    """A delete got no answer: the record may be gone without a person having deleted it."""

    def version_of(self, name: str) -> datetime | None:
        """Return the booking version that a field's value comes from."""
        return self.versions.get(name, self.version)

    @property
    def unfilled(self) -> bool:
        """Whether this service wrote no field yet: the record only serves as a link target."""
        unanswered = self.links_in_doubt or self.erase_begun
        return self.live and not self.fingerprints and not unanswered

    @property
    def live(self) -> bool:
        """Whether there is a record to write to."""
        return bool(self.record_id) and not self.lost
