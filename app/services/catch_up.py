"""Finds what no webhook told of: walks through meetergo's appointments, page by page, resumably."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import structlog
from sqlalchemy import select, update

from app.domain.errors import CrmError
from app.domain.events import read_time
from app.meetergo.client import PAGE_SIZE, MeetergoClient, Page
from app.services.intake import Intake
from app.store.engine import Store, utcnow
from app.store.models import Backfill

log = structlog.get_logger(__name__)


class Kind(StrEnum):
    """Who asked for a walk."""

    BACKFILL = "backfill"
    RECONCILE = "reconcile"


class Phase(StrEnum):
    """meetergo has no filter by change, so two walks together find what is new and what was moved."""

    CREATED = "created"
    """From the booking made last backwards, to those made before `since`."""
    STARTS = "starts"
    """Through the meetings that start between `since` and `until`."""


@dataclass(frozen=True)
class Progress:
    """How far a walk is."""

    phase: Phase
    seen: int
    """Appointments of this phase so far."""
    total: int
    """Appointments that there are in this phase, as meetergo says."""
    found: int
    """Bookings, or newer states of them, that were not known; over both phases."""


class CatchUp:
    """Brings bookings in through the API as if their webhooks had come.

    A booking that meetergo no longer has is left as it is: not found is not cancelled.
    """

    def __init__(
        self,
        store: Store,
        intake: Intake,
        client: Callable[[str], MeetergoClient],
        wake: Callable[[list[int]], object],
    ) -> None:
        self._store, self._intake, self._client, self._wake = store, intake, client, wake

    def begin(self, source: str, kind: Kind, since: datetime, until: datetime) -> int:
        """Begin a walk, or go on with the one of this kind that has not ended; give its number.

        `since` and `until` in UTC. A backfill that goes further back than the one under way is a
        walk of its own.
        """
        now = utcnow()
        with self._store.write() as session:
            query = select(Backfill).where(
                Backfill.source == source, Backfill.kind == kind, Backfill.ended_at.is_(None)
            )
            for row in session.scalars(query):
                if (row.since <= since and row.until >= until) or kind is Kind.RECONCILE:
                    return row.id
            row = Backfill(
                source=source, kind=kind, since=since, until=until, phase=Phase.CREATED, page=0,
                total=0, seen=0, found=0, created_at=now, updated_at=now,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id

    def run(
        self,
        number: int,
        progress: Callable[[Progress], None] = lambda _: None,
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Walk on to the end, or until told to stop; True where the end was reached.

        Raises meetergo's errors; the walk goes on from its last page when it is run again.
        """
        while not until():
            row = self._read(number)
            if row.ended_at is not None:
                return True
            try:
                page = self._page(row)
            except CrmError as error:
                self._note(row, error=error.message)
                raise
            found = self._take(row, page)
            progress(self._advance(row, page, found))
        return self._read(number).ended_at is not None

    def _read(self, number: int) -> Backfill:
        with self._store.read() as session:
            return session.get_one(Backfill, number)

    def _page(self, row: Backfill) -> Page:
        client = self._client(row.source)
        if row.phase == Phase.CREATED:
            return client.appointments(row.page, "createdAt", descending=True)
        return client.appointments(row.page, "start", start=row.since, end=row.until)

    def _take(self, row: Backfill, page: Page) -> int:
        found, wake = 0, set[int]()
        for appointment in page.appointments:
            if row.phase == Phase.CREATED and _made_before(appointment.get("createdAt"), row.since):
                continue
            news = self._intake.adopt(row.source, appointment)
            if news is not None:
                found += 1
                wake.update(news)
        if wake:
            self._wake(sorted(wake))
        return found

    def _advance(self, row: Backfill, page: Page, found: int) -> Progress:
        """Note how far it is; who else walks the same way at the same time does not count twice."""
        last = len(page.appointments) < PAGE_SIZE
        if row.phase == Phase.CREATED and page.appointments:
            last = last or _made_before(page.appointments[-1].get("createdAt"), row.since)
        seen, now = row.seen + len(page.appointments), utcnow()
        values: dict[str, object] = {"page": row.page + 1, "seen": seen, "total": page.total}
        if last:
            done = row.phase == Phase.STARTS
            values = {"phase": Phase.STARTS, "page": 0, "seen": 0, "total": 0}
            values |= {"ended_at": now} if done else {}
        self._note(row, found=row.found + found, error=None, **values)
        return Progress(Phase(row.phase), seen, max(seen, page.total), row.found + found)

    def _note(self, row: Backfill, **values: object) -> None:
        here = (Backfill.id == row.id, Backfill.phase == row.phase, Backfill.page == row.page)
        with self._store.write() as session:
            session.execute(update(Backfill).where(*here).values(updated_at=utcnow(), **values))


def _made_before(created: object, since: datetime) -> bool:
    moment = read_time(created)
    return moment is not None and moment < since
