"""Shows what a mapping would do in a CRM: reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any, Literal

from sqlalchemy import func, select

from app.crm.changes import Change
from app.crm.objects import WRITE_ORDER, FieldValue, ObjectName, Ref
from app.crm.port import Adapter
from app.crm.schema import CrmShape, Directory, Pipeline, Stage
from app.domain.booking import Booking
from app.domain.errors import Ambiguous, CrmError, RetryLater
from app.mapping.mapping import Mapping as FieldMapping
from app.mapping.plan import Planner
from app.mapping.schema import FIRST, KEEP
from app.mapping.words import in_words
from app.security.encryption import Cipher
from app.services.planning import ConnectionPlanner, DeliveryFacts, plan_context
from app.store.engine import Store
from app.store.models import BookingRow, DeliveryRow
from app.store.stories import in_stories
from app.sync.desired import DesiredBooking
from app.sync.diff_state import Diff
from app.sync.values import blank, same

Action = Literal["create", "change", "delete", "leave", "problem"]
"""What would be done to a record; problem: it could not be written."""


@dataclass(frozen=True)
class FieldView:
    """One field before and after: `old` and `new` as sent, `now` and `then` as people read them."""

    name: str
    old: FieldValue
    new: FieldValue
    now: FieldValue = None
    then: FieldValue = None


@dataclass(frozen=True)
class RecordView:
    """What a sync would do to one record."""

    object: str
    action: Action
    record_id: str | None
    url: str
    fields: tuple[FieldView, ...]
    links: tuple[str, ...]
    """The kinds of records that it would be linked to."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BookingPreview:
    """What a sync of one booking would do."""

    key: str
    title: str
    who: str
    records: tuple[RecordView, ...] = ()
    skipped: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether the booking, or one of its records, could not be written."""
        return bool(self.problem) or any(record.action == "problem" for record in self.records)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Previewer:
    """Plans stored or given bookings for one connection, or without any."""

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
        """Bookings that changed since a moment (UTC), oldest first; `newest`: at most so many."""
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
        """What each booking would call for, without asking any CRM."""
        planner = Planner(mapping, shape, _imagined(mapping))
        plans: list[tuple[Booking, DesiredBooking | CrmError]] = []
        for booking in bookings:
            context = plan_context(self._store, self._cipher, mapping, booking, self._now())
            try:
                plans.append((booking, planner.plan(booking, context)))
            except CrmError as error:
                plans.append((booking, error))
        return plans

    def imagined(
        self, mapping: FieldMapping, shape: CrmShape, bookings: Iterable[Booking]
    ) -> list[BookingPreview]:
        """The same as `live`, without asking any CRM: every record is shown as new."""
        return [_imagined_preview(*pair) for pair in self.offline(mapping, shape, bookings)]

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

        `directory`: pass it if the account has been read already.
        """
        directory = directory or adapter.directory()
        planner = ConnectionPlanner(
            self._store, self._cipher, connection_id, adapter, mapping, directory, self._now
        )
        existing = planner.existing(bookings)
        facts = self._facts(connection_id, bookings)
        plans = [planner.plan(booking, existing, facts[booking.key]) for booking in bookings]

        def parts() -> Iterator[list[Ref]]:
            for start in range(0, len(plans), adapter.batch_size):
                part = plans[start : start + adapter.batch_size]
                yield [r.ref for p in part if isinstance(p, DesiredBooking) for r in p.records]
                progress(start + len(part))

        # All together: a later booking finds what an earlier one makes.
        desired = [plan for plan in plans if isinstance(plan, DesiredBooking)]
        known, diff = planner.settle(desired, thorough=True, parts=parts())
        ids = {ref: line.record_id for ref, line in known.items()}
        teller = _Teller(adapter, diff, ids, directory)
        return [teller.booking(*pair) for pair in zip(bookings, plans, strict=True)]

    def _facts(self, connection_id: int, bookings: Iterable[Booking]) -> dict[str, DeliveryFacts]:
        """The deliveries' part of the plans; a booking without a place in the rotation gets the next."""
        mine = DeliveryRow.connection_id == connection_id
        query = (
            select(BookingRow.key, DeliveryRow)
            .join(DeliveryRow, BookingRow.id == DeliveryRow.booking_id)
            .where(mine, BookingRow.key.in_([booking.key for booking in bookings]))
        )
        with self._store.read() as session:
            rows = {key: delivery for key, delivery in session.execute(query)}
            last = session.scalar(select(func.max(DeliveryRow.round_robin_position)).where(mine))
        free = count(0 if last is None else last + 1)
        facts = {}
        for booking in bookings:
            row = rows.get(booking.key)
            place = row.round_robin_position if row else None
            section = row.mapping_section if row else {}
            facts[booking.key] = DeliveryFacts(
                next(free) if place is None else place, section or {}
            )
        return facts


def _imagined(mapping: FieldMapping) -> Directory:
    """A directory in place of an account that is not asked: it has every named pipeline and stage."""
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


def _imagined_preview(booking: Booking, plan: DesiredBooking | CrmError) -> BookingPreview:
    if isinstance(plan, CrmError):
        return BookingPreview(*describe(booking), problem=plan.message)
    records = []
    for record in plan.records:
        values = {name: value for name, value in record.fields.items() if not blank(value)}
        fields = tuple(FieldView(name, None, v, None, v) for name, v in values.items())
        links = tuple(dict.fromkeys(link.object.value for link in record.links))
        notes = tuple([plan.problems[record.ref].message] if record.ref in plan.problems else ())
        action: Action = "problem" if notes else "create"
        records.append(RecordView(record.ref.object.value, action, None, "", fields, links, notes))
    records.sort(key=lambda view: WRITE_ORDER.index(ObjectName(view.object)))
    return BookingPreview(*describe(booking), tuple(records), plan.skipped, notes=plan.notes)


def describe(booking: Booking) -> tuple[str, str, str]:
    """Key, title and people of a booking, as lists show them."""
    who = ", ".join(person.display_name for person in booking.attendees)
    title = booking.meeting_type.name or ("Form" if booking.form else "Meeting")
    return booking.key, title, who


class _Teller:
    """Describes what would be done to each record, once, even if several bookings share it."""

    def __init__(
        self,
        adapter: Adapter,
        diff: Diff,
        ids: Mapping[Ref, str | None],
        directory: Directory,
    ) -> None:
        self._adapter, self._directory = adapter, directory
        self._settled = diff
        self._ids = ids
        self._changes = {change.ref: change for change in diff.plan.changes}
        self._blocked = _blocked(diff)
        self._told: dict[Ref, str] = {}
        """Record -> the booking with which it was described."""
        self._makes: dict[str, str] = {}
        """Person whose open deal is used -> the booking that makes one."""
        self._set: dict[tuple[str, str | None], dict[str, FieldValue]] = {}
        """Values that earlier bookings have set in a record that exists."""

    def booking(self, booking: Booking, plan: DesiredBooking | CrmError) -> BookingPreview:
        """One booking with its records, in write order."""
        if isinstance(plan, CrmError):
            return BookingPreview(*describe(booking), problem=plan.message)
        records = [self._refused(ref, error) for ref, error in plan.problems.items()]
        for record in plan.records:
            known = record.ref in self._settled.wanted or record.ref in self._settled.notes
            if known and record.ref not in plan.problems:
                records.append(self._in_turn(record.ref, plan))
        records.sort(key=lambda view: WRITE_ORDER.index(ObjectName(view.object)))
        skipped = plan.skipped
        if plan.wait_until:
            skipped = f"waits until {plan.wait_until:%Y-%m-%d %H:%M} UTC for a booking to follow"
        return BookingPreview(*describe(booking), tuple(records), skipped, notes=plan.notes)

    def _in_turn(self, ref: Ref, plan: DesiredBooking) -> RecordView:
        """A record of a booking, unless an earlier booking has described it."""
        first = self._told.setdefault(ref, plan.booking_key)
        if first != plan.booking_key:
            return self._left(ref, f"The preview of booking {first} shows this record.")
        makes_deal = ref.object is ObjectName.DEAL and bool(plan.group) and self._is_new(ref)
        if makes_deal and plan.group in self._makes:
            made = self._makes[plan.group]
            return self._left(ref, f"Uses the deal that booking {made} creates.")
        if makes_deal:
            self._makes[plan.group] = plan.booking_key
        return self._record(ref)

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
            notes = ("It is created as a lead in the Leads inbox.", *notes)
        fields = tuple(self._fields(change))
        links = tuple(dict.fromkeys(link.object.value for link in change.links_to_add))
        action: Action = "change" if fields or links else "leave"
        if change.delete:
            action = "delete"
        elif record_id is None:
            action = "create"
        return RecordView(
            ref.object.value,
            action,
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


def _blocked(diff: Diff) -> dict[Ref, str]:
    """Records that wait for one that cannot be written, as an adapter leaves them out."""
    blocked: dict[Ref, str] = {}
    for change in diff.plan.changes:
        for ref in change.links_after:
            if isinstance(diff.problems.get(ref), (RetryLater, Ambiguous)) or ref in blocked:
                blocked[change.ref] = (
                    f"The {ref.object} has to be written first, but cannot be written."
                )
                break
    return blocked
