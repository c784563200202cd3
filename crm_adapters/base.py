"""The protocol between the drainer and a CRM: what an adapter declares, takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from threading import Lock
from typing import ClassVar, Protocol

from app.domain.allowance import Allowance, Gate
from app.domain.errors import Blocked, CrmError
from app.domain.records import (
    Account,
    Change,
    CrmField,
    CrmShape,
    Directory,
    Findings,
    NewField,
    ObjectName,
    Plan,
    Question,
    Ref,
    Result,
)
from crm_adapters.allowance import read_headers

BOOKING_FIELD = "meetergo_booking_id"
"""Name of the custom field that carries the booking's id in every CRM."""
SEARCH_LAG = 15.0
"""Seconds until a search shows what was made; HubSpot and Pipedrive only say that it takes some."""


class TokenSource(Protocol):
    """Where an adapter gets its access token from; the service keeps and refreshes it."""

    def token(self) -> str:
        """A token that lives a while longer. Raises Unauthorized where the grant is dead."""

    def renewed(self, refused: str) -> str:
        """Another token than the one that the CRM just refused. Raises Unauthorized."""


@dataclass
class CallMeter:
    """Counts the HTTP calls of one adapter, and keeps what the CRM last said of its limits."""

    calls: int = 0
    answered: int = 0
    """Calls that the CRM answered as a CRM does that is not out of order."""
    limits: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Which limit, in words -> (calls left, calls allowed or None where it is not told)."""
    _told: int = 0
    _lock: Lock = field(default_factory=Lock)

    def since(self) -> int:
        """Calls since this was last asked for."""
        with self._lock:
            new, self._told = self.calls - self._told, self.calls
            return new

    def count(self, answered: bool = False) -> None:
        """Count a call that is made, or one that was answered; several threads may call."""
        with self._lock:
            if answered:
                self.answered += 1
            else:
                self.calls += 1


@dataclass(frozen=True)
class Access:
    """All that an adapter needs to reach one account."""

    api_base: str
    tokens: TokenSource
    timeout: float = 30.0
    """Seconds for one call."""
    header: str = "Authorization"
    """Where the token goes; another header for some CRMs' hand-made keys."""
    prefix: str = "Bearer "
    meter: CallMeter = field(default_factory=CallMeter)
    gate: Gate = field(default_factory=Gate)

    def enter(self, allowance: Allowance) -> None:
        """Wait until a call may be made, and count it. Raises RateLimited."""
        self.gate.enter(allowance)
        self.meter.count()

    def answered(self, allowance: Allowance, headers: Mapping[str, str]) -> None:
        """Keep what an answer says of the limits; to be called before its status is looked at."""
        short, day = read_headers(headers)
        short = short if allowance.told else None
        for label, reading in ((allowance.name, short), ("day", day)):
            if reading:
                self.meter.limits[label] = (reading.left, reading.most)
        if short or day:
            self.gate.learn(allowance, short, day)

    def authorization(self, token: str) -> dict[str, str]:
        """The header that carries the token."""
        return {self.header: f"{self.prefix}{token}"}


@dataclass
class Report:
    """How a plan ended: a result or a problem for every change in it."""

    results: dict[Ref, Result] = field(default_factory=dict)
    problems: dict[Ref, CrmError] = field(default_factory=dict)
    begun: set[Ref] = field(default_factory=set)
    """Creates that were sent; noted before the call, since its answer may never come. One that the CRM
    has refused in words is taken out again: nothing was made, and nobody has to look for it."""

    def blocked_by(self, links: tuple[Ref, ...]) -> Ref | None:
        """The first link whose record could not be written."""
        return next((ref for ref in links if ref in self.problems), None)


def unblocked(changes: Sequence[Change], report: Report) -> list[Change]:
    """The changes whose links could be written; the others are noted as blocked."""
    ready = []
    for change in changes:
        blocker = report.blocked_by(change.targets)
        if blocker:
            words = f"The {blocker.object} was not written: {report.problems[blocker]}"
            report.problems[change.ref] = Blocked(words)
        else:
            ready.append(change)
    return ready


class Adapter(Protocol):
    """One CRM. A class that fits is found by its entry in providers.yaml.

    Every method may raise the errors of app.domain.errors; nothing else may come out.
    """

    shape: ClassVar[CrmShape]
    batch_size: ClassVar[int]
    """How many bookings are planned together."""
    asks_ahead: ClassVar[bool]
    """Whether the next batch is asked about while one is written: `find` and `apply` are then called
    by two threads at once. It pays where the CRM counts searches apart from other calls."""
    allowances: ClassVar[Sequence[Allowance]]
    """What the CRM allows of calls in short windows, on its smallest plan."""
    access: Access
    """What it was made with; the drainer reads the meter."""

    def __init__(self, access: Access) -> None: ...

    def whoami(self) -> Account:
        """Whose account it is: its own id, which never changes, and its name."""

    def check(self, name: ObjectName) -> None:
        """Read one record of an object; raise MissingScope or another CrmError where it fails."""

    def directory(self) -> Directory:
        """Owners, pipelines and custom fields of the account; the caller keeps it for minutes."""

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The fields of an object."""

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create the booking-id fields that are missing, and `fields`; one sentence for each."""

    def find(self, questions: Sequence[Question], ids: Mapping[Ref, str]) -> Findings:
        """Read records by id or look for them by their keys, in as few calls as there can be.

        `ids` are the records that are known already. Nothing is written. A record that is not
        there is left out; one that was merged comes under the id that it has now.
        """

    def apply(self, plan: Plan, report: Report) -> None:
        """Write a plan: put a result or a problem for every change into the report as it comes,
        so that what was done before an outage is not done again.

        Raises RetryLater, RateLimited, Unauthorized or MissingScope where the CRM as a whole does
        not answer; the caller may apply the same plan again.
        """

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Address of a record for a person with a browser."""


def load_adapter(path: str) -> type[Adapter]:
    """Find an adapter's class by `module:Class`, as providers.yaml names it."""
    module, _, name = path.partition(":")
    adapter: type[Adapter] = getattr(import_module(module), name)
    return adapter
