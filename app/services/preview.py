"""Shows what a mapping would do to a CRM: it reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import func, select

from app.crm.changes import Change
from app.crm.objects import WRITE_ORDER, FieldValue, ObjectName, Ref
from app.crm.port import Adapter
from app.crm.schema import CrmShape, Directory, Pipeline, Stage
from app.domain.booking import Booking
from app.domain.errors import Ambiguous, CrmError, RetryLater
from app.mapping.mapping import Mapping as FieldMapping
from app.mapping.plan import Planner
from app.mapping.plan_context import PlanContext
from app.mapping.plan_refs import refs_of
from app.mapping.schema import FIRST, KEEP
from app.mapping.words import in_words
from app.security.encryption import Cipher
from app.services.crm_state import LedgerQueries, read_crm_state
from app.services.sharing import Sharing
from app.store.bookings import has_booked_since, histories, in_stories, take_part
from app.store.engine import Store
from app.store.ledger import Ledger
from app.store.models import BookingRow, DeliveryRow
from app.sync.desired import DesiredBooking
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.merge import merge, with_lead_contacts
from app.sync.values import blank, same


@dataclass(frozen=True)
class FieldView:
    """One field: what stands there, and what would, as it is sent and in the words people see."""

    name: str
    old: FieldValue
    new: FieldValue
    now: FieldValue = None
    then: FieldValue = None


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

    @property
    def fails(self) -> bool:
        """Whether it, or a record of it, could not be written."""
        return bool(self.problem) or any(record.action == "problem" for record in self.records)

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
            return in_stories(session, self._cipher, [row])[row.id] if row else None

    def since(self, moment: datetime, newest: int | None = None) -> list[Booking]:
        """The bookings that changed since a moment (UTC), oldest first; the `newest` so many of them."""
        query = (
            select(BookingRow)
            .where(BookingRow.updated_at >= moment)
            .order_by(BookingRow.updated_at.desc(), BookingRow.id.desc())
            .limit(newest)
        )
        with self._store.read() as session:
            rows = session.scalars(query).all()[::-1]
            told = in_stories(session, self._cipher, rows)
            return [told[row.id] for row in rows]

    def offline(
        self, mapping: FieldMapping, shape: CrmShape, bookings: Iterable[Booking]
    ) -> list[tuple[Booking, DesiredBooking | CrmError]]:
        """What would be wanted of each booking, without asking anybody."""
        planner = Planner(mapping, shape, _imagined(mapping))
        there: frozenset[Ref] = frozenset()
        return [(b, self._planned(planner, mapping, b, 0, there, {})) for b in bookings]

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
        turns = self._turns(connection_id, bookings)
        there = self._there(connection_id, bookings)
        mapping_section = self._made_by(connection_id)
        plans = [
            self._planned(planner, mapping, b, turns[b.key], there, mapping_section.get(b.key, {}))
            for b in bookings
        ]

        def parts() -> Iterator[list[Ref]]:
            for start in range(0, len(plans), adapter.batch_size):
                part = plans[start : start + adapter.batch_size]
                yield [r.ref for p in part if isinstance(p, DesiredBooking) for r in p.records]
                progress(start + len(part))

        wanted = merge(plan for plan in plans if isinstance(plan, DesiredBooking))
        with self._store.read() as session:
            known = Ledger(session, self._cipher, connection_id).read(with_lead_contacts(wanted))

        def claimed(ref: Ref, record_id: str) -> bool:
            with self._store.read() as session:
                return Ledger(session, self._cipher, connection_id).claimed(ref, record_id)

        def look_up(ref: Ref) -> LedgerEntry | None:
            with self._store.read() as session:
                return Ledger(session, self._cipher, connection_id).read([ref]).get(ref)

        def shared(ref: Ref, record_id: str) -> bool:
            with self._store.read() as session:
                others = Ledger(session, self._cipher, connection_id).holders(ref, record_id)
                return take_part(session, [other.key for other in others])

        # All of them at once: what one booking makes, the next one finds.
        settled = read_crm_state(
            adapter,
            wanted,
            known,
            directory,
            thorough=True,
            parts=parts(),
            more=LedgerQueries(
                claimed,
                shared,
                Sharing(
                    self._store,
                    self._cipher,
                    connection_id,
                    mapping,
                    planner,
                    adapter.shape.stage_field,
                    self._now,
                ),
                look_up,
            ),
        )
        ids = {ref: line.record_id for ref, line in known.items()}
        told = _Teller(adapter, settled, ids, directory)
        return [told.booking(*pair) for pair in zip(bookings, plans, strict=True)]

    def _planned(
        self,
        planner: Planner,
        mapping: FieldMapping,
        booking: Booking,
        turn: int,
        there: frozenset[Ref],
        mapping_section: Mapping[str, Any],
    ) -> DesiredBooking | CrmError:
        people = [person.identity for person in booking.attendees if person.identity]
        now = self._now()
        told, booked = {}, False
        with self._store.read() as session:
            if mapping.tells_of_people:
                told = histories(session, self._cipher, [*people, *booking.former_attendees], now)
            if booking.form and people:
                booked = has_booked_since(session, self._cipher, people[0], booking.start)
        try:
            return planner.plan(
                booking, PlanContext(now, told, turn, booked, there, mapping_section)
            )
        except CrmError as error:
            return error

    def _there(self, connection_id: int, bookings: Iterable[Booking]) -> frozenset[Ref]:
        """Of the bookings' own records and of those who left: what was made or begun before."""
        refs = [ref for booking in bookings for ref in refs_of(booking)]
        with self._store.read() as session:
            return frozenset(Ledger(session, self._cipher, connection_id).there(refs))

    def _made_by(self, connection_id: int) -> dict[str, dict[str, Any]]:
        """Booking -> the sections that its records were made by."""
        query = select(BookingRow.key, DeliveryRow.mapping_section).join(
            DeliveryRow, BookingRow.id == DeliveryRow.booking_id
        )
        with self._store.read() as session:
            rows = session.execute(query.where(DeliveryRow.connection_id == connection_id))
            return {key: mapping_section for key, mapping_section in rows if mapping_section}

    def _turns(self, connection_id: int, bookings: Iterable[Booking]) -> dict[str, int]:
        """Whose turn it is at each booking: what it has already, or what comes next."""
        mine = DeliveryRow.connection_id == connection_id
        with self._store.read() as session:
            query = select(BookingRow.key, DeliveryRow.round_robin_position).join(
                DeliveryRow, BookingRow.id == DeliveryRow.booking_id
            )
            taken = {key: turn for key, turn in session.execute(query.where(mine))}
            last = session.scalar(select(func.max(DeliveryRow.round_robin_position)).where(mine))
        free = count(0 if last is None else last + 1)
        return {
            booking.key: next(free) if (turn := taken.get(booking.key)) is None else turn
            for booking in bookings
        }


def _imagined(mapping: FieldMapping) -> Directory:
    """What stands for an account that is not asked: it has every pipeline and stage that is named."""
    named: dict[str, dict[str, Stage]] = {FIRST: {}}
    for rules in mapping.every():
        for deal in rules.deal:
            stages = named.setdefault(deal.pipeline, {})
            wanted = deal.stage.model_dump().values()
            stages |= {name: Stage(name, name) for name in wanted if name not in (FIRST, KEEP)}
    first = Stage(FIRST, FIRST)
    return Directory(
        unread=True,
        pipelines=tuple(
            Pipeline(name, name, (first, *stages.values())) for name, stages in named.items()
        ),
    )


def describe(booking: Booking) -> tuple[str, str, str]:
    """Key, title and people of a booking, as lists show them."""
    who = ", ".join(person.display_name for person in booking.attendees)
    title = booking.meeting_type.name or ("Form" if booking.form else "Meeting")
    return booking.key, title, who


class _Teller:
    """Tells what becomes of each record, once, however many bookings share it."""

    def __init__(
        self,
        adapter: Adapter,
        settled: Diff,
        ids: Mapping[Ref, str | None],
        directory: Directory,
    ) -> None:
        self._adapter, self._directory = adapter, directory
        self._settled = settled
        self._ids = ids
        self._changes = {change.ref: change for change in settled.plan.changes}
        self._blocked = _blocked(settled)
        self._told: dict[Ref, str] = {}
        """Record -> the booking that it was told with."""
        self._makes: dict[str, str] = {}
        """Person whose open deal is used -> the booking that makes one."""
        self._set: dict[tuple[str, str | None], dict[str, FieldValue]] = {}
        """What bookings before have changed of a record that is there."""

    def booking(self, booking: Booking, plan: DesiredBooking | CrmError) -> BookingPreview:
        """One booking with its records, in write order."""
        if isinstance(plan, CrmError):
            return BookingPreview(*describe(booking), problem=plan.message)
        records = [self._refused(ref, error) for ref, error in plan.problems.items()]
        for record in plan.records:
            ref = record.ref
            if ref in plan.problems:
                continue
            if ref in self._settled.wanted or ref in self._settled.notes:
                first = self._told.setdefault(ref, plan.booking_key)
                deal = ref.object is ObjectName.DEAL
                if first != plan.booking_key:
                    records.append(self._left(ref, f"As booking {first} has it."))
                elif deal and plan.group and self._is_new(ref) and plan.group in self._makes:
                    made = self._makes[plan.group]
                    records.append(self._left(ref, f"Falls on the deal that booking {made} makes."))
                else:
                    records.append(self._record(ref))
                    if deal and plan.group and self._is_new(ref):
                        self._makes[plan.group] = plan.booking_key
        records.sort(key=lambda view: WRITE_ORDER.index(ObjectName(view.object)))
        skipped = plan.skipped
        if plan.wait_until:
            skipped = f"waits until {plan.wait_until:%Y-%m-%d %H:%M} UTC for a booking to follow"
        return BookingPreview(*describe(booking), tuple(records), skipped, notes=plan.notes)

    def _is_new(self, ref: Ref) -> bool:
        change = self._changes.get(ref)
        return change is not None and change.record_id is None

    def _left(self, ref: Ref, *notes: str) -> RecordView:
        known = self._ids.get(ref)
        return RecordView(ref.object.value, "leave", known, self._url(ref, known), (), (), notes)

    def _refused(self, ref: Ref, error: CrmError) -> RecordView:
        return replace(self._left(ref, error.message), action="problem")

    def _url(self, ref: Ref, record_id: str | None) -> str:
        return self._adapter.url_for(ref.object, record_id) if record_id else ""

    def _record(self, ref: Ref) -> RecordView:
        notes = tuple(self._settled.notes.get(ref, ()))
        problem = self._settled.problems.get(ref)
        words = problem.message if problem else self._blocked.get(ref)
        if words:
            return replace(self._left(ref, *notes, words), action="problem")
        change = self._changes.get(ref)
        if change is None:
            return self._left(ref, *notes)
        record_id = change.record_id
        if change.inbox and record_id is None:
            notes = ("It is made as a lead of the Leads inbox.", *notes)
        fields = tuple(self._fields(change))
        links = tuple(dict.fromkeys(link.object.value for link in change.links))
        action = "create" if record_id is None else "change" if fields or links else "leave"
        return RecordView(
            ref.object.value,
            "delete" if change.delete else action,
            record_id,
            self._url(ref, record_id),
            fields,
            links,
            notes,
        )

    def _fields(self, change: Change) -> Iterator[FieldView]:
        key = (change.ref.object.value, change.record_id)
        now = {**change.present, **self._set.get(key, {})}
        for name, value in change.fields.items():
            if change.record_id is None:
                if not blank(value):
                    yield self._field(change.ref.object, name, None, value)
            elif not (name in now and same(now[name], value)):
                yield self._field(change.ref.object, name, now.get(name), value)
                self._set.setdefault(key, {})[name] = value

    def _field(self, kind: ObjectName, name: str, old: FieldValue, new: FieldValue) -> FieldView:
        shape = self._adapter.shape
        now, then = (in_words(kind, name, value, shape, self._directory) for value in (old, new))
        return FieldView(name, old, new, now, then)


def _blocked(settled: Diff) -> dict[Ref, str]:
    """Records that wait for one that cannot be written, as an adapter leaves them out."""
    blocked: dict[Ref, str] = {}
    for change in settled.plan.changes:
        for ref in change.links_after:
            if isinstance(settled.problems.get(ref), (RetryLater, Ambiguous)) or ref in blocked:
                blocked[change.ref] = f"The {ref.object} has to be written first, and cannot be."
                break
    return blocked
