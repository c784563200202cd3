"""The protocol between the service and a CRM: what an adapter declares, takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import ClassVar, Protocol

from app.crm.changes import Plan, WriteResult
from app.crm.lookup import Lookup, LookupResults
from app.crm.objects import ObjectName, Ref
from app.crm.schema import CrmAccount, CrmField, CrmShape, Directory, NewField
from app.domain.errors import (
    Ambiguous,
    Blocked,
    CrmError,
    Gone,
    RetryLater,
    ThereAlready,
)
from app.domain.rate_limits import LimitHeaders, MakeWay, RateLimit, RateLimiter


class TokenSource(Protocol):
    """Where an adapter gets its access token from; the service keeps and refreshes it."""

    def token(self) -> str:
        """A token that lives a while longer. Raises Unauthorized where the grant is dead."""

    def renewed(self, refused: str) -> str:
        """Another token than the one that the CRM just refused. Raises Unauthorized."""

    def look_for_address(self, token: str) -> None:
        """Get another token, whose answer may name another address of the account."""


@dataclass
class CallMeter:
    """Counts the HTTP calls of one adapter, and keeps what the CRM last said of its limits."""

    calls: int = 0
    answered: int = 0
    """Calls that the CRM answered as a CRM does that is not out of order."""
    nonsense: int = 0
    """Answers that were not what was asked for."""
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

    def count_nonsense(self) -> None:
        """Count an answer that was not what was asked for."""
        with self._lock:
            self.nonsense += 1


LimitsRead = tuple[LimitHeaders | None, LimitHeaders | None]
"""What an answer's headers say of a short window, and of a day's budget."""


def no_limits_told(headers: Mapping[str, str]) -> LimitsRead:
    """For a CRM whose answers say nothing of its limits."""
    return None, None


@dataclass(frozen=True)
class ApiFacts:
    """What one CRM's API says in a way of its own; its adapter declares it."""

    read_limits: Callable[[Mapping[str, str]], LimitsRead] = no_limits_told
    """Reads what is left of its limits from an answer's headers, whose names are in lower case."""
    reset_header: str = ""
    """Tells, with a 429, the seconds until calls are taken again; empty: Retry-After alone does."""
    busy: Mapping[int, tuple[str, float]] = field(default_factory=dict)
    """Statuses that mean "not now" in this API alone -> what they say, and the seconds to wait."""


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
    gate: RateLimiter = field(default_factory=RateLimiter)
    facts: ApiFacts = field(default_factory=ApiFacts)

    def enter(self, allowance: RateLimit) -> None:
        """Wait until a call may be made, and count it. Raises RateLimited."""
        self.gate.enter(allowance)
        self.meter.count()

    def answered(self, allowance: RateLimit, headers: Mapping[str, str]) -> None:
        """Keep what an answer says of the limits; to be called before its status is looked at."""
        short, day = self.facts.read_limits(headers)
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

    results: dict[Ref, WriteResult] = field(default_factory=dict)
    problems: dict[Ref, CrmError] = field(default_factory=dict)
    begun: set[Ref] = field(default_factory=set)
    """Creates that were sent; noted before the call, since its answer may never come. One that the CRM
    has refused in words is taken out again: nothing was made, and nobody has to look for it."""

    notes: dict[Ref, list[str]] = field(default_factory=dict)
    """What a person should know of a record that was written: what of it the account does not take."""

    @contextmanager
    def sending(self, refs: Iterable[Ref]) -> Iterator[None]:
        """Note creates as begun, around the call that makes them."""
        new = set(refs) - self.begun
        self.begun |= new
        try:
            yield
        except MakeWay:
            self.begun -= new
            raise

    def refused(self, refs: Iterable[Ref]) -> None:
        """Note that the CRM has refused creates in words: nothing was made, nobody has to look."""
        self.begun.difference_update(refs)

    def note(self, ref: Ref, words: str) -> None:
        """Remember a sentence about a record."""
        self.notes.setdefault(ref, []).append(words)

    def blocked_by(self, links: tuple[Ref, ...]) -> Ref | None:
        """The first link whose record has to be waited for."""
        return next((r for r in links if isinstance(self.problems.get(r), WAITS)), None)


WAITS = (RetryLater, Gone, ThereAlready, Blocked, Ambiguous)
"""Problems of a record that pass, or that a person has to decide: what hangs on it waits for it."""


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
    allowances: ClassVar[Sequence[RateLimit]]
    """What the CRM allows of calls in short windows, on its smallest plan."""
    api_facts: ClassVar[ApiFacts]
    access: Access
    """What it was made with; the drainer reads the meter."""

    def __init__(self, access: Access) -> None: ...

    def whoami(self) -> CrmAccount:
        """Whose account it is: its own id, which never changes, and its name."""

    def check(self, name: ObjectName) -> None:
        """Read one record of an object; raise MissingScope or another CrmError where it fails."""

    def directory(self, needed: frozenset[ObjectName] | None = None) -> Directory:
        """Owners, pipelines and fields of the account; the caller keeps it for minutes.

        `needed`: the objects that the mapping uses; None stands for all. An object that the account
        does not show is left out of the schema with a note, unless it is needed: AccountRefused then.
        """

    def describe(self, name: ObjectName) -> list[CrmField]:
        """The fields of an object."""

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create the booking-id fields that are missing, and `fields`; one sentence for each."""

    def find(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> LookupResults:
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

    def record_id_in(self, name: ObjectName, text: str) -> str:
        """The id of a record of that object in what anybody typed or pasted; no call is made for it.

        That is an id as the CRM gives them, or an address of its own pages for such a record of this
        account (`url_for` gives one): its path alone counts. Empty for any other text.
        """
