"""Shows what a mapping would do to a CRM: it reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.domain.booking import Booking
from app.domain.errors import CrmError
from app.domain.records import (
    Change,
    CrmShape,
    DesiredBooking,
    Directory,
    FieldValue,
    Pipeline,
    Ref,
    Stage,
)
from app.mapping.diff import Settled, merge
from app.mapping.mapping import Mapping as FieldMapping
from app.mapping.plan import Planner, Surroundings
from app.mapping.present import blank, same
from app.mapping.schema import FIRST, KEEP
from app.security.encryption import Cipher
from app.services.inquiry import inquire
from app.store.bookings import has_booked_since, histories, read_state
from app.store.engine import Store
from app.store.ledger import Ledger
from app.store.models import BookingRow, DeliveryRow
from crm_adapters.base import Adapter


@dataclass(frozen=True)
class FieldView:
    """One field: what stands there, and what would."""

    name: str
    old: FieldValue
    new: FieldValue


@dataclass(frozen=True)
class RecordView:
    """One record: what would be done to it."""

    object: str
    action: str
    """create, change, delete, leave, or problem."""
    record_id: str | None
    url: str
    fields: tuple[FieldView, ...]
    links: tuple[str, ...]
    """What it would be linked to anew."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BookingPreview:
    """What one booking would come to."""

    key: str
    title: str
    who: str
    records: tuple[RecordView, ...] = ()
    skipped: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Previewer:
    """Plans stored or given bookings for one connection, or for none at all."""

    def __init__(self, store: Store, cipher: Cipher, now: Callable[[], datetime]) -> None:
        self._store = store
        self._cipher = cipher
        self._now = now

    def stored(self, key: str) -> Booking | None:
        """A booking by its key, or by its id in the default source."""
        with self._store.read() as session:
            query = select(BookingRow).where(BookingRow.key.in_((key, f"default:{key}")))
            row = session.scalars(query).first()
            return read_state(row, self._cipher) if row else None

    def since(self, moment: datetime, newest: int | None = None) -> list[Booking]:
        """The bookings that changed since a moment (UTC), oldest first; the `newest` so many of them."""
        query = (
            select(BookingRow)
            .where(BookingRow.updated_at >= moment)
            .order_by(BookingRow.updated_at.desc(), BookingRow.id.desc())
            .limit(newest)
        )
        with self._store.read() as session:
            return [read_state(row, self._cipher) for row in session.scalars(query).all()[::-1]]

    def offline(
        self, mapping: FieldMapping, shape: CrmShape, bookings: Iterable[Booking]
    ) -> list[tuple[Booking, DesiredBooking | CrmError]]:
        """What would be wanted of each booking, without asking anybody."""
        planner = Planner(mapping, shape, _imagined(mapping))
        return [(booking, self._planned(planner, mapping, booking, 0)) for booking in bookings]

    def live(
        self,
        connection_id: int,
        adapter: Adapter,
        mapping: FieldMapping,
        bookings: Sequence[Booking],
        progress: Callable[[int], None] = lambda _: None,
        directory: Directory | None = None,
    ) -> list[BookingPreview]:
        """What would be created, changed and left alone in an account. Raises the CRM's errors.

        `directory`: where the account has been read already.
        """
        directory = directory or adapter.directory()
        planner = Planner(mapping, adapter.shape, directory)
        previews: list[BookingPreview] = []
        for start in range(0, len(bookings), adapter.batch_size):
            part = bookings[start : start + adapter.batch_size]
            plans = [
                self._planned(planner, mapping, booking, self._turn(connection_id, booking))
                for booking in part
            ]
            wanted = merge(plan for plan in plans if isinstance(plan, DesiredBooking))
            with self._store.read() as session:
                known = Ledger(session, self._cipher, connection_id).read(wanted)
            settled = inquire(adapter, wanted, known, directory, thorough=True)
            ids = {ref: line.record_id for ref, line in known.items()}
            for booking, plan in zip(part, plans, strict=True):
                previews.append(_preview(booking, plan, settled, ids, adapter))
            progress(len(previews))
        return previews

    def _planned(
        self, planner: Planner, mapping: FieldMapping, booking: Booking, turn: int
    ) -> DesiredBooking | CrmError:
        people = [person.identity for person in booking.attendees if person.identity]
        now = self._now()
        told, booked = {}, False
        with self._store.read() as session:
            if mapping.tells_of_people:
                told = histories(session, self._cipher, people, now)
            if booking.form and people:
                booked = has_booked_since(session, self._cipher, people[0], booking.start)
        try:
            return planner.plan(booking, Surroundings(now, told, turn, booked))
        except CrmError as error:
            return error

    def _turn(self, connection_id: int, booking: Booking) -> int:
        with self._store.read() as session:
            query = (
                select(DeliveryRow.turn)
                .join(BookingRow, BookingRow.id == DeliveryRow.booking_id)
                .where(DeliveryRow.connection_id == connection_id, BookingRow.key == booking.key)
            )
            return session.scalar(query) or 0


def _imagined(mapping: FieldMapping) -> Directory:
    """What stands for an account that is not asked: it has every pipeline and stage that is named.

    Its owners are nobody's guess.
    """
    named: dict[str, dict[str, Stage]] = {FIRST: {}}
    for rules in mapping.every():
        for deal in rules.deal:
            stages = named.setdefault(deal.pipeline, {})
            wanted = deal.stage.model_dump().values()
            stages |= {name: Stage(name, name) for name in wanted if name not in (FIRST, KEEP)}
    first = Stage(FIRST, FIRST)
    return Directory(
        pipelines=tuple(
            Pipeline(name, name, (first, *stages.values())) for name, stages in named.items()
        )
    )


def describe(booking: Booking) -> tuple[str, str, str]:
    """Key, title and people of a booking, as lists show them."""
    who = ", ".join(person.display_name for person in booking.attendees)
    title = booking.meeting_type.name or ("Form" if booking.form else "Meeting")
    return booking.key, title, who


def _preview(
    booking: Booking,
    plan: DesiredBooking | CrmError,
    settled: Settled,
    ids: Mapping[Ref, str | None],
    adapter: Adapter,
) -> BookingPreview:
    if isinstance(plan, CrmError):
        return BookingPreview(*describe(booking), problem=plan.message)
    changes = {change.ref: change for change in settled.plan.changes}
    records = [
        _record(record.ref, changes.get(record.ref), settled, ids, adapter)
        for record in plan.records
        if record.ref in settled.wanted or record.ref in settled.notes
    ]
    skipped = plan.skipped
    if plan.wait_until:
        skipped = f"waits until {plan.wait_until:%Y-%m-%d %H:%M} UTC for a booking to follow"
    return BookingPreview(*describe(booking), tuple(records), skipped, notes=plan.notes)


def _record(
    ref: Ref,
    change: Change | None,
    settled: Settled,
    ids: Mapping[Ref, str | None],
    adapter: Adapter,
) -> RecordView:
    notes = tuple(settled.notes.get(ref, ()))
    problem = settled.problems.get(ref)
    known = ids.get(ref)
    if problem or change is None:
        action = "problem" if problem else "leave"
        words = (*notes, *([problem.message] if problem else ()))
        url = adapter.url_for(ref.object, known) if known else ""
        return RecordView(ref.object.value, action, known, url, (), (), words)
    fields = tuple(
        FieldView(name, change.present.get(name), value)
        for name, value in change.fields.items()
        if not (blank(value) and change.record_id is None)
        and not (change.record_id and name in change.present and same(change.present[name], value))
    )
    new_links = tuple(dict.fromkeys(link.object.value for link in change.links))
    action = "create" if change.record_id is None else "change" if fields or new_links else "leave"
    record_id = change.record_id
    return RecordView(
        ref.object.value,
        "delete" if change.delete else action,
        record_id,
        adapter.url_for(ref.object, record_id) if record_id else "",
        fields,
        new_links,
        notes,
    )
