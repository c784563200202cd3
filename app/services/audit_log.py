"""Reads the audit log: a page at a time, or whole as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from app.domain.text import no_formula
from app.store import audit
from app.store.access_models import AuditLog
from app.store.audit import AuditFilter
from app.store.engine import Store

CHUNK = 1000
COLUMNS = ("at_utc", "actor", "action", "subject")


class AuditReader:
    """The audit log of one service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def page(self, wanted: AuditFilter, older_than: int | None, most: int) -> list[AuditLog]:
        """The acts that were noted last; `older_than`: before the act of this number."""
        with self._store.read() as session:
            return list(audit.newest(session, wanted, older_than, most))

    def actions(self) -> list[str]:
        """Every kind of act that is in the log."""
        with self._store.read() as session:
            return audit.actions(session)

    def csv(self, wanted: AuditFilter) -> Iterator[str]:
        """The lines of a CSV file with all acts that are wanted, newest first."""
        yield _line(COLUMNS)
        older_than: int | None = None
        while rows := self.page(wanted, older_than, CHUNK):
            yield "".join(
                _line((f"{row.at:%Y-%m-%dT%H:%M:%SZ}", row.actor, row.action, row.subject))
                for row in rows
            )
            older_than = rows[-1].id


def _line(cells: tuple[str, ...]) -> str:
    written = io.StringIO()
    csv.writer(written).writerow([no_formula(cell) for cell in cells])
    return written.getvalue()
