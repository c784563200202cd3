"""Finds bookings without a webhook: walks through meetergo's appointments, and can resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import select, update

from app.domain.booking import Booking
from app.domain.errors import CrmError, RateLimited, RetryLater, UnfitPayload
from app.domain.events import Event, read_booking, read_time
from app.meetergo.client import PAGE_SIZE, MeetergoClient, Page
from app.services.intake import Intake
from app.services.sources import Sources
from app.store.engine import Store, utcnow
from app.store.models import Backfill

SIZES = (PAGE_SIZE, 10, 1)
"""Appointments on a page: fewer around one that meetergo cannot show."""
MOST_TRIES = 3
"""After this many tries an appointment that cannot be shown is skipped and reported."""
MOST_NEW = 50
"""Pages of new bookings to read before an older walk goes on."""
MOST_BACKS = 50
"""Steps back in one run: a walk ends even if meetergo's totals keep changing."""
AN_INSTANT = timedelta(seconds=1)
log = structlog.get_logger(__name__)


class WalkKind(StrEnum):
    """The reason for a walk."""

    BACKFILL = "backfill"
    RECONCILE = "reconcile"


class Phase(StrEnum):
    """meetergo has no filter by change: the two walks together find new and moved bookings."""

    CREATED = "created"
    """From the newest booking backwards, down to those made before `since`."""
    STARTS = "starts"
    """Through the meetings that start between `since` and `until`, from start to start: a meeting
    that is moved meanwhile shifts the pages, and by page numbers another one would be missed."""


@dataclass(frozen=True)
class Progress:
    """How far a walk is."""

    phase: Phase
    seen: int
    """Appointments read in this phase so far."""
    total: int
    """All appointments in this phase, as meetergo says."""
    found: int
    """Bookings, or newer states of them, that were not known; in both phases."""
    skipped: int = 0
    """Appointments that meetergo could not show; in both phases."""


class CatchUp:
    """Stores bookings read through the API as if their webhooks had come.

    A booking that meetergo no longer has stays as it is: not found does not mean cancelled.
    """

    def __init__(
        self,
        store: Store,
        intake: Intake,
        sources: Sources,
        learn_type: Callable[[MeetergoClient, Booking], None],
        wake: Callable[[list[int]], object],
    ) -> None:
        """`learn_type` asks meetergo for a meeting type that an appointment does not describe."""
        self._store, self._intake, self._sources = store, intake, sources
        self._learn_type, self._wake = learn_type, wake

    def begin(self, source: str, kind: WalkKind, since: datetime, until: datetime | None) -> int:
        """Begin a walk, or resume the open one of this kind; return its number.

        `since` and `until` are in UTC; None: without an end. A backfill that goes further back than
        an open one is a walk of its own.
        """
        now = utcnow()
        with self._store.write() as session:
            query = select(Backfill).where(
                Backfill.source == source, Backfill.kind == kind, Backfill.ended_at.is_(None)
            )
            for row in session.scalars(query):
                ends = row.until is None or (until is not None and row.until >= until)
                if (row.since <= since and ends) or kind is WalkKind.RECONCILE:
                    return row.id
            row = Backfill(
                source=source, kind=kind, since=since, until=until, phase=Phase.CREATED, page=0,
                total=0, seen=0, found=0, created_at=now, updated_at=now,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id

    def latest(self, limit: int = 10) -> list[Backfill]:
        """The walks that were begun last."""
        with self._store.read() as session:
            query = select(Backfill).order_by(Backfill.id.desc()).limit(limit)
            return list(session.scalars(query))

    def run(
        self,
        number: int,
        progress: Callable[[Progress], None] = lambda _: None,
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Walk to the end, or until told to stop; True if the end was reached.

        Raises meetergo's errors. The next run resumes the walk at its last page.
        """
        backs = 0
        first = self._read(number)
        if first.kind == WalkKind.RECONCILE and _is_under_way(first):
            self._take_newest(first)
        while not until():
            row = self._read(number)
            if row.ended_at is not None:
                return True
            try:
                page = self._page(row)
            except CrmError as error:
                if not self._pass_around(row, error):
                    self._note(row, error=error.message)
                    raise
                continue
            found = self._take(row, page)
            backs += _back(row, page) > 0
            if backs > MOST_BACKS:
                # A total that goes up and down is of no use.
                page = replace(page, total=max(page.total, row.total))
            progress(self._advance(row, page, found))
        return self._read(number).ended_at is not None

    def _take_newest(self, row: Backfill) -> None:
        """Store the bookings made since an older walk began, however far it is. Raises CrmError."""
        client = self._sources.client(row.source, old_news=True)
        for number in range(MOST_NEW):
            try:
                page = client.appointments(number, "createdAt", descending=True)
            except CrmError as error:
                if self._is_of_page(row.source, error):
                    return  # the walk itself goes around appointments that cannot be shown
                raise
            self._take(row, page)
            if len(page.appointments) < PAGE_SIZE:
                return
            if _made_before(page.appointments[-1].get("createdAt"), row.created_at):
                return

    def _is_of_page(self, source: str, error: CrmError) -> bool:
        """Whether only one page cannot be read: meetergo answers everything else."""
        if isinstance(error, RateLimited) or not isinstance(error, RetryLater):
            self._sources.heard(source, error)
            return False
        return self._sources.probe(source)

    def _pass_around(self, row: Backfill, error: CrmError) -> bool:
        """Go around an appointment that meetergo cannot show; False if the error is another one."""
        if not self._is_of_page(row.source, error):
            return False
        smaller = [size for size in SIZES if size < row.page_size]
        if smaller:
            place = row.page * row.page_size
            self._note(row, page=place // smaller[0], page_size=smaller[0], failures=0)
        elif row.failures + 1 < MOST_TRIES:
            self._note(row, failures=row.failures + 1)
        else:
            log.error("appointment_not_shown", source=row.source, page=row.page)
            after = _sized(row.page + 1, 1)
            words = (
                f"meetergo could not show an appointment, which was passed over: {error.message}"
            )
            self._note(row, **after, failures=0, skipped=row.skipped + 1, error=words)
        return True

    def _read(self, number: int) -> Backfill:
        with self._store.read() as session:
            return session.get_one(Backfill, number)

    def _page(self, row: Backfill) -> Page:
        client, size = self._sources.client(row.source, old_news=True), row.page_size
        if row.phase == Phase.CREATED:
            page = client.appointments(row.page, "createdAt", descending=True, size=size)
        else:
            # It is not documented whether meetings that start at that very moment are included.
            since = row.after - AN_INSTANT if row.after else row.since
            page = client.appointments(row.page, "start", start=since, end=row.until, size=size)
        self._sources.heard(row.source)
        return page

    def _take(self, row: Backfill, page: Page) -> int:
        found, wake = 0, set[int]()
        client = self._sources.client(row.source, old_news=True)
        for appointment in page.appointments:
            if row.phase == Phase.CREATED and _made_before(appointment.get("createdAt"), row.since):
                continue
            self._learn(client, row.source, appointment)
            news = self._intake.adopt(row.source, appointment)
            if news is not None:
                found += 1
                wake.update(news)
        if wake:
            self._wake(sorted(wake))
        return found

    def _learn(self, client: MeetergoClient, source: str, appointment: Mapping[str, Any]) -> None:
        try:
            booking = read_booking(Event(source, "booking_created", appointment, utcnow()))
        except UnfitPayload:
            return  # `adopt` reports it when it stores the appointment
        self._learn_type(client, booking)

    def _advance(self, row: Backfill, page: Page, found: int) -> Progress:
        """Note how far the walk is; a second process on the same page counts nothing twice."""
        step = _after_created(row, page) if row.phase == Phase.CREATED else _after_starts(row, page)
        values: dict[str, object] = asdict(step)
        if step.page is None:
            done = row.phase == Phase.STARTS
            values = {"phase": Phase.STARTS, "page": 0, "seen": 0, "total": 0, "after": None}
            values |= {"page_size": PAGE_SIZE}
            values |= {"ended_at": utcnow()} if done else {}
        else:
            values |= _sized(step.page, row.page_size)
        error = row.error if row.skipped else None
        self._note(row, found=row.found + found, failures=0, error=error, **values)
        left = max(0, page.total - (row.page + 1) * row.page_size) if step.page is not None else 0
        return Progress(
            Phase(row.phase), step.seen, step.seen + left, row.found + found, row.skipped
        )

    def _note(self, row: Backfill, **values: object) -> None:
        here = (
            Backfill.id == row.id,
            Backfill.phase == row.phase,
            Backfill.page == row.page,
            Backfill.page_size == row.page_size,
            Backfill.after.is_not_distinct_from(row.after),
        )
        with self._store.write() as session:
            session.execute(update(Backfill).where(*here).values(updated_at=utcnow(), **values))


@dataclass(frozen=True)
class _Step:
    """The place at which a walk goes on after a page."""

    page: int | None
    """None: this phase has ended."""
    seen: int
    total: int
    after: datetime | None = None


def _after_created(row: Backfill, page: Page) -> _Step:
    """Go on by page number. New bookings come first, so some are at most read twice."""
    seen, back = row.seen + len(page.appointments), _back(row, page)
    if back:
        return _Step(row.page - back, seen, page.total)
    last = len(page.appointments) < row.page_size
    last = last or _made_before(page.appointments[-1].get("createdAt"), row.since)
    return _Step(None if last else row.page + 1, seen, page.total)


def _after_starts(row: Backfill, page: Page) -> _Step:
    """Go on from the last start, and by page only if too many meetings start at one moment."""
    starts = [read_time(item.get("start")) for item in page.appointments]
    furthest = max((start for start in starts if start), default=None)
    seen, back = row.seen + len(page.appointments), _back(row, page)
    if back:
        return _Step(row.page - back, seen, page.total, row.after)
    if len(starts) < row.page_size:
        return _Step(None, seen, page.total)
    # Around an appointment that cannot be shown, go page by page: it has one place in this list.
    if row.page_size == PAGE_SIZE and furthest and (row.after is None or furthest > row.after):
        return _Step(0, seen, page.total, furthest)
    return _Step(row.page + 1, seen, page.total, row.after)


def _back(row: Backfill, page: Page) -> int:
    """How many pages to step back. If appointments before this page were removed, those behind them
    have moved onto a page that was read already. A total that cannot be right says nothing."""
    read = row.page * row.page_size + len(page.appointments)
    fewer = max(0, row.total - page.total) if row.page and page.total >= read else 0
    return min(row.page, math.ceil(fewer / row.page_size))


def _sized(page: int, size: int) -> dict[str, int]:
    """The page to read next: a full one again, once the small ones have reached its beginning."""
    if page * size % PAGE_SIZE == 0:
        return {"page": page * size // PAGE_SIZE, "page_size": PAGE_SIZE}
    for larger in SIZES:
        if larger > size and page * size % larger == 0:
            return {"page": page * size // larger, "page_size": larger}
    return {"page": page, "page_size": size}


def _is_under_way(row: Backfill) -> bool:
    """Whether a walk was begun before: bookings made since then stand before its present page."""
    return row.phase != Phase.CREATED or row.page > 0 or row.page_size != PAGE_SIZE or row.seen > 0


def _made_before(created: object, since: datetime) -> bool:
    moment = read_time(created)
    return moment is not None and moment < since
