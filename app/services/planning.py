"""Plans bookings for one connection: the worker and the preview use the same plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog

from app.crm.objects import ObjectName, Ref
from app.crm.port import Adapter
from app.crm.schema import Directory
from app.domain.booking import Booking
from app.domain.errors import CrmError, Unforeseen
from app.domain.faults import place_of
from app.mapping.mapping import Mapping as FieldMapping
from app.mapping.plan import Planner
from app.mapping.plan_context import PlanContext
from app.mapping.plan_refs import refs_of
from app.security.encryption import Cipher
from app.services.crm_state import LedgerQueries, read_crm_state
from app.services.sharing import Sharing
from app.store.bookings import has_booked_since, histories, take_part
from app.store.engine import Store
from app.store.ledger import Ledger
from app.sync.desired import DesiredBooking
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import as_begun
from app.sync.merge import merge, with_lead_contacts

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DeliveryFacts:
    """What a delivery adds to the plan of its booking."""

    round_robin_position: int = 0
    mapping_section: Mapping[str, Any] = field(default_factory=dict)
    """Object -> the section of the mapping by which its record was made."""
    recheck_of: datetime | None = None
    """The time for which this second look was planned (UTC); None at the first look."""
    left_out: frozenset[tuple[ObjectName, str]] = frozenset()
    """Fields whose value the CRM refuses although its lists have it."""
    maybe_there: bool = False
    """Whether the CRM may have records of the booking that the ledger lacks: they are looked for."""


def plan_context(
    store: Store, cipher: Cipher, mapping: FieldMapping, booking: Booking, now: datetime
) -> PlanContext:
    """What a plan depends on besides the booking, as far as the mapping needs it."""
    people = [person.identity for person in booking.attendees if person.identity]
    sums, booked = {}, False
    if mapping.tells_of_people or (booking.form and people):
        with store.read() as session:
            if mapping.tells_of_people:
                everybody = [*people, *booking.former_attendees]
                sums = histories(session, cipher, everybody, now)
            if booking.form and people:
                booked = has_booked_since(session, cipher, people[0], booking.start)
    return PlanContext(now, sums, booked_since=booked)


class ConnectionPlanner:
    """Plans bookings by one mapping, and works out the diff for one account."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        connection_id: int,
        adapter: Adapter,
        mapping: FieldMapping,
        directory: Directory,
        now: Callable[[], datetime],
        refused_owners: frozenset[str] = frozenset(),
    ) -> None:
        """`refused_owners`: user ids that the CRM refuses as owners although its list has them."""
        self._store, self._cipher, self._id = store, cipher, connection_id
        self._adapter, self._mapping, self._directory = adapter, mapping, directory
        self._now, self._refused_owners = now, refused_owners
        self._maybe_there: set[Ref] = set()
        self._planner = Planner(mapping, adapter.shape, directory)

    def existing(self, bookings: Iterable[Booking]) -> frozenset[Ref]:
        """Records of these bookings, and of people who left them, that were made or begun before."""
        refs = [ref for booking in bookings for ref in refs_of(booking)]
        with self._store.read() as session:
            return frozenset(Ledger(session, self._cipher, self._id).there(refs))

    def plan(
        self, booking: Booking, existing: frozenset[Ref], facts: DeliveryFacts
    ) -> DesiredBooking | CrmError:
        """Return what a booking calls for, or the error that prevents it.

        `existing`: the answer of `existing` for this booking and others.
        """
        context = replace(
            plan_context(self._store, self._cipher, self._mapping, booking, self._now()),
            existing=existing,
            round_robin_position=facts.round_robin_position,
            mapping_section=facts.mapping_section,
            refused_owners=self._refused_owners,
            recheck_of=facts.recheck_of,
            left_out=facts.left_out,
        )
        try:
            desired = self._planner.plan(booking, context)
        except CrmError as error:
            return error
        except Exception as error:
            # Pure logic on a stranger's data: an unforeseen error concerns this booking only.
            log.error("plan_failed", booking=booking.key, kind=type(error).__name__)
            return Unforeseen(f"{type(error).__name__} at {place_of(error)}")
        if facts.maybe_there:
            self._maybe_there |= desired.own_refs
        return desired

    def may_have_begun(self, desired: DesiredBooking) -> bool:
        """Whether the CRM may hold a record of the booking that the ledger does not know.

        Such a record is searched for among other people's records too.
        """
        refs = [record.ref for record in desired.records if not record.fill_only]
        with self._store.read() as session:
            known = Ledger(session, self._cipher, self._id).read(refs)
        unknown = any(ref in self._maybe_there and ref not in known for ref in refs)
        return unknown or any(ref in known and not known[ref].live for ref in refs)

    def settle(
        self,
        desired: Iterable[DesiredBooking],
        thorough: bool = False,
        parts: Iterable[Iterable[Ref]] = (),
    ) -> tuple[dict[Ref, LedgerEntry], Diff]:
        """Read the ledger and the CRM; return the ledger's entries and the diff.

        `thorough` and `parts`: see `read_crm_state`. Raises the CRM's errors; writes nothing.
        """
        merged = merge(desired)
        with self._store.read() as session:
            ledger = Ledger(session, self._cipher, self._id)
            known = ledger.read(with_lead_contacts(merged), self._now())
        for ref in (self._maybe_there & set(merged)) - set(known):
            known[ref] = as_begun(merged[ref].record)
        others = Sharing(
            self._store,
            self._cipher,
            self._id,
            self._mapping,
            self._planner,
            self._adapter.shape.stage_field,
            self._now,
        )
        diff = read_crm_state(
            self._adapter,
            merged,
            known,
            self._directory,
            thorough,
            parts,
            LedgerQueries(self._claimed, self._shared, others, self._look_up),
        )
        return known, diff

    def _claimed(self, ref: Ref, record_id: str) -> bool:
        with self._store.read() as session:
            return Ledger(session, self._cipher, self._id).claimed(ref, record_id)

    def _shared(self, ref: Ref, record_id: str) -> bool:
        with self._store.read() as session:
            others = Ledger(session, self._cipher, self._id).holders(ref, record_id)
            return take_part(session, self._cipher, [other.key for other in others])

    def _look_up(self, ref: Ref) -> LedgerEntry | None:
        with self._store.read() as session:
            return Ledger(session, self._cipher, self._id).read([ref]).get(ref)
