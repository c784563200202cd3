"""What other bookings say about a deal that several bookings share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import or_, select

from app.crm.objects import FieldValue, Ref
from app.domain.booking import Booking
from app.domain.errors import CrmError
from app.mapping.mapping import Mapping
from app.mapping.plan import Planner
from app.mapping.plan_context import PlanContext
from app.security.encryption import Cipher
from app.store.bookings import histories
from app.store.engine import Store
from app.store.ledger import Ledger
from app.store.models import BookingRow, DeliveryRow
from app.store.stories import in_stories
from app.sync.shared_deals import Shared

MOST = 50
"""The most bookings of one deal that are read, newest first."""


class Sharing:
    """Finds the bookings that a deal stands for, and the stages that the uncancelled ones want."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        connection_id: int,
        mapping: Mapping,
        planner: Planner,
        stage_field: str,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._cipher, self._id = store, cipher, connection_id
        self._mapping, self._planner = mapping, planner
        self._stage_field, self._now = stage_field, now

    def __call__(self, ref: Ref, record_id: str) -> Shared | None:
        """What the other bookings say about a deal; None if it belongs to this booking alone."""
        with self._store.read() as session:
            ledger = Ledger(session, self._cipher, self._id)
            others = ledger.holders(ref, record_id)
            if not others:
                return None
            lines = ledger.read(others)
            written = [
                lines[other].fingerprints[self._stage_field]
                for other in others
                if other in lines and self._stage_field in lines[other].fingerprints
            ]
            keys = [other.key for other in others]
            query = (
                select(BookingRow)
                .where(or_(BookingRow.key.in_(keys), BookingRow.story.in_(keys)))
                .order_by(BookingRow.id.desc())
                .limit(MOST)
            )
            rows = list(session.scalars(query))
            told = in_stories(session, self._cipher, rows)
            places = select(DeliveryRow.booking_id, DeliveryRow.mapping_section).where(
                DeliveryRow.connection_id == self._id, DeliveryRow.booking_id.in_(list(told))
            )
            mapping_section = {number: found or {} for number, found in session.execute(places)}
            people = {p.identity for b in told.values() for p in b.attendees if p.identity}
            known = (
                histories(session, self._cipher, sorted(people), self._now())
                if self._mapping.tells_of_people
                else {}
            )
        stages = []
        for number, booking in told.items():
            if booking.cancelled or booking.replaced_by or booking.record_key not in keys:
                continue
            mine = Ref(ref.object, booking.record_key)
            # What is left of a reduced booking still says which stage it wants.
            whole = replace(booking, reduced_at=None)
            context = PlanContext(
                self._now(),
                known,
                existing=frozenset([mine]),
                mapping_section=mapping_section.get(number, {}),
            )
            stage = self._stage(whole, mine, context)
            if stage:
                stages.append(str(stage))
        return Shared(tuple(stages), tuple(dict.fromkeys(itertools.chain.from_iterable(written))))

    def _stage(self, booking: Booking, ref: Ref, context: PlanContext) -> FieldValue:
        try:
            records = self._planner.plan(booking, context).records
        except CrmError:
            return None
        found = (r.fields.get(self._stage_field) for r in records if r.ref == ref)
        return next(found, None)
