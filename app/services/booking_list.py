"""The list of bookings that people look through: searched, filtered, a page at a time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import limits
from app.domain.booking import Booking, MeetingOutcome
from app.domain.search import asked_words, fits
from app.security.encryption import Cipher
from app.services.overview import BookingView, Overview
from app.store.bookings import read_state
from app.store.engine import Store, utcnow
from app.store.models import BookingRow, ConnectionRow
from app.store.search import (
    FEW,
    Cursor,
    Wanted,
    count_some,
    find,
    hosts_of,
    meeting_type_of,
)
from app.store.states import DeliveryState

PERIODS = {"today": 1, "7 days": 7, "30 days": 30}
"""Name of a period -> the days back in which the bookings changed."""
ROUNDS = 5
"""How often more is read if words longer than the index holds did not fit."""
NEWEST = 100
"""Bookings that changed last: their meeting types and hosts are offered as filters."""
MOST_VALUES = 12
STATES = (
    DeliveryState.FAILED, DeliveryState.RETRYING, DeliveryState.DUE, DeliveryState.PARKED,
    DeliveryState.WAITING, DeliveryState.SKIPPED, DeliveryState.DISCARDED, DeliveryState.SYNCED,
)  # fmt: skip
"""Those that need a person come first."""


class UnfitFilter(ValueError):
    """A filter has a value that there is not; the message says which values there are."""


@dataclass(frozen=True)
class Filters:
    """The filters of a list, as its address has them."""

    q: str = ""
    state: str = ""
    crm: str = ""
    outcome: str = ""
    meeting_type: str = ""
    host: str = ""
    period: str = ""

    def given(self) -> dict[str, str]:
        """Those that are set."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class BookingPage:
    """One page of a list."""

    bookings: tuple[BookingView, ...]
    after: str | None
    """The cursor of the next page; None: this is the last one."""


@dataclass(frozen=True)
class FacetValue:
    """A value that a list can be filtered by."""

    value: str
    count: int
    chosen: bool

    @property
    def more(self) -> bool:
        """Whether there are more than the count says."""
        return self.count > FEW


class BookingList:
    """Reads the list."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    def page(self, filters: Filters, after: str | None = None, most: int = 50) -> BookingPage:
        """The bookings that fit, the newest or those that changed last first. Raises UnfitFilter."""
        words = asked_words(filters.q)
        if filters.q.strip() and not words:
            raise UnfitFilter("Search for a word of two letters or more.")
        with self._store.read() as session:
            wanted = self._wanted(session, filters, tuple(words))
            place = _place(after)
            found: list[tuple[BookingRow, Booking, Cursor]] = []
            more = True
            for _ in range(ROUNDS):
                if len(found) > most or not more:
                    break
                rows = find(session, self._cipher, wanted, place, most + 1)
                more = len(rows) > most
                read = [(row, read_state(row, self._cipher), at) for row, at in rows]
                found += [(row, state, at) for row, state, at in read if fits(state, words)]
                place = rows[-1][1] if rows else place
            shown = found[:most]
            pairs = [(row, state) for row, state, _ in shown]
            views = Overview(self._store, self._cipher).views(session, pairs)
        last = shown[-1][2] if len(found) > most else place
        follows = len(found) > most or more
        return BookingPage(tuple(views), _cursor(last) if follows and last else None)

    def facets(self, filters: Filters) -> dict[str, list[FacetValue]]:
        """The values of each filter, with the number of bookings that have them."""
        with self._store.read() as session:
            connections = _connections(session)
            newest = select(BookingRow).order_by(BookingRow.updated_at.desc()).limit(NEWEST)
            seen = [read_state(row, self._cipher) for row in session.scalars(newest)]
            types = _values(filters.meeting_type, map(meeting_type_of, seen))
            hosts = _values(filters.host, (host for state in seen for host in hosts_of(state)))
            wanted: dict[str, dict[str, Wanted]] = {
                "state": {state.value: Wanted(state=state) for state in STATES},
                "crm": {name: Wanted(connection_ids=ids) for name, ids in connections.items()},
                "outcome": {each.value: Wanted(outcome=each) for each in MeetingOutcome},
                "meeting_type": {name: Wanted(meeting_type=name) for name in types},
                "host": {name: Wanted(host=name) for name in hosts},
            }
            return {
                name: [
                    FacetValue(
                        value,
                        count_some(session, self._cipher, each),
                        value == getattr(filters, name),
                    )
                    for value, each in values.items()
                ]
                for name, values in wanted.items()
            }

    def _wanted(self, session: Session, filters: Filters, words: tuple[str, ...]) -> Wanted:
        wanted = Wanted(words=words, meeting_type=filters.meeting_type, host=filters.host)
        if filters.state:
            wanted = replace(wanted, state=DeliveryState(_one_of("state", filters.state, STATES)))
        if filters.outcome:
            outcome = _one_of("outcome", filters.outcome, tuple(MeetingOutcome))
            wanted = replace(wanted, outcome=MeetingOutcome(outcome))
        if filters.crm:
            connections = _connections(session)
            _one_of("crm", filters.crm, tuple(connections))
            wanted = replace(wanted, connection_ids=connections[filters.crm])
        if filters.period:
            days = PERIODS[_one_of("period", filters.period, tuple(PERIODS))]
            wanted = replace(wanted, since=utcnow() - timedelta(days=days))
        return wanted


def _connections(session: Session) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    query = select(ConnectionRow.provider, ConnectionRow.id).order_by(ConnectionRow.id)
    for provider, number in session.execute(query):
        found[provider] = (*found.get(provider, ()), number)
    return found


def _values(chosen: str, seen: Iterable[str]) -> list[str]:
    """The chosen value, then those seen most often."""
    counts: dict[str, int] = {}
    for value in filter(None, seen):
        counts[value] = counts.get(value, 0) + 1
    often = sorted(counts, key=lambda value: (-counts[value], value))
    return list(dict.fromkeys([*filter(None, [chosen]), *often]))[:MOST_VALUES]


def _one_of(name: str, value: str, values: Sequence[str]) -> str:
    if value not in values:
        raise UnfitFilter(f"There is no {name} {value!r}. There are: {', '.join(values)}.")
    return value


def _cursor(place: Cursor) -> str:
    return base64.urlsafe_b64encode(f"{place[0].isoformat()} {place[1]}".encode()).decode()


def _place(cursor: str | None) -> Cursor | None:
    if not cursor:
        return None
    try:
        moment, _, number = base64.urlsafe_b64decode(cursor[:200]).decode("ascii").partition(" ")
        place = (datetime.fromisoformat(moment), int(number))
        usable = place[0].tzinfo is not None and 0 < place[1] <= limits.LARGEST_ID
    except (ValueError, binascii.Error):
        usable = False
    if not usable:
        raise UnfitFilter("This page of the list cannot be found. Begin with the first page.")
    return place
