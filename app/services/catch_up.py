"""Finds what no webhook told of: walks through meetergo's appointments, page by page, resumably."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from sqlalchemy import select, update

from app.domain.errors import CrmError
from app.domain.events import read_time
from app.meetergo.client import PAGE_SIZE, MeetergoClient, Page
from app.services.intake import Intake
from app.store.engine import Store, utcnow
from app.store.models import Backfill

MOST_BACKS = 50
"""Steps back of one run: a walk comes to its end, whatever meetergo says of how many there are."""
AN_INSTANT = timedelta(seconds=1)
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
    """Through the meetings that start between `since` and `until`, from start to start: a meeting
    that is moved meanwhile shifts the pages, and one that was not would be passed over."""


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
        backs = 0
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
            backs += _back(row, page) > 0
            if backs > MOST_BACKS:
                # A total that goes up and down tells of nothing.
                page = replace(page, total=max(page.total, row.total))
            progress(self._advance(row, page, found))
        return self._read(number).ended_at is not None

    def _read(self, number: int) -> Backfill:
        with self._store.read() as session:
            return session.get_one(Backfill, number)

    def _page(self, row: Backfill) -> Page:
        client = self._client(row.source)
        if row.phase == Phase.CREATED:
            return client.appointments(row.page, "createdAt", descending=True)
        # Whether meetings that start at that very moment come as well is not told.
        since = row.after - AN_INSTANT if row.after else row.since
        return client.appointments(row.page, "start", start=since, end=row.until)

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
        step = _after_created(row, page) if row.phase == Phase.CREATED else _after_starts(row, page)
        values: dict[str, object] = asdict(step)
        if step.page is None:
            done = row.phase == Phase.STARTS
            values = {"phase": Phase.STARTS, "page": 0, "seen": 0, "total": 0, "after": None}
            values |= {"ended_at": utcnow()} if done else {}
        self._note(row, found=row.found + found, error=None, **values)
        left = max(0, page.total - (row.page + 1) * PAGE_SIZE) if step.page is not None else 0
        return Progress(Phase(row.phase), step.seen, step.seen + left, row.found + found)

    def _note(self, row: Backfill, **values: object) -> None:
        here = (
            Backfill.id == row.id,
            Backfill.phase == row.phase,
            Backfill.page == row.page,
            Backfill.after.is_not_distinct_from(row.after),
        )
        with self._store.write() as session:
            session.execute(update(Backfill).where(*here).values(updated_at=utcnow(), **values))


@dataclass(frozen=True)
class _Step:
    """Where a walk goes on after a page."""

    page: int | None
    """None: this phase has come to its end."""
    seen: int
    total: int
    after: datetime | None = None


def _after_created(row: Backfill, page: Page) -> _Step:
    """By page number, since new bookings come first: they only bring what was read once more."""
    seen, back = row.seen + len(page.appointments), _back(row, page)
    if back:
        return _Step(row.page - back, seen, page.total)
    last = len(page.appointments) < PAGE_SIZE
    last = last or _made_before(page.appointments[-1].get("createdAt"), row.since)
    return _Step(None if last else row.page + 1, seen, page.total)


def _after_starts(row: Backfill, page: Page) -> _Step:
    """On from the last start, and page by page only where too many start at one moment."""
    starts = [read_time(item.get("start")) for item in page.appointments]
    furthest = max((start for start in starts if start), default=None)
    seen, back = row.seen + len(page.appointments), _back(row, page)
    if back:
        return _Step(row.page - back, seen, page.total, row.after)
    if len(starts) < PAGE_SIZE:
        return _Step(None, seen, page.total)
    if furthest and (row.after is None or furthest > row.after):
        return _Step(0, seen, page.total, furthest)
    return _Step(row.page + 1, seen, page.total, row.after)


def _back(row: Backfill, page: Page) -> int:
    """By how many pages to step back: where some were taken out of those that were read, what stood
    behind them has come onto a page that was read already. A total that is none tells of nothing."""
    read = row.page * PAGE_SIZE + len(page.appointments)
    fewer = max(0, row.total - page.total) if row.page and page.total >= read else 0
    return min(row.page, math.ceil(fewer / PAGE_SIZE))


def _made_before(created: object, since: datetime) -> bool:
    moment = read_time(created)
    return moment is not None and moment < since
