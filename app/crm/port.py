"""The protocol between the service and a CRM: what an adapter declares, takes and returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

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
    """Gives an adapter its access token; the service stores and refreshes it."""

    def token(self) -> str:
        """Return a token that stays valid for a while. Raises Unauthorized if the grant is dead."""

    def renewed(self, refused: str) -> str:
        """Return a new token in place of the one that the CRM just refused. Raises Unauthorized."""

    def look_for_address(self, token: str) -> None:
        """Get a new token; the answer may contain a new address for the account."""


class CallResult(StrEnum):
    """How a call to a CRM ended."""

    OK = "ok"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"
    LIMITED = "limited"
    """The CRM asks for a pause: too many calls."""
    OUTAGE = "outage"
    """No answer, or one that no API gives when it works."""


@dataclass
class CallMeter:
    """Counts the HTTP calls of one adapter and keeps the limits that the CRM last reported."""

    calls: int = 0
    answered: int = 0
    """Calls that the CRM answered as it does when it works normally."""
    nonsense: int = 0
    """Answers that did not have the expected form."""
    limits: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """The limit, in words -> (calls left, calls allowed or None if not reported)."""
    date: str = ""
    """The `Date` header of the last answer."""
    _told: int = 0
    _results: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def since(self) -> int:
        """Return the number of calls since the last call of this method."""
        with self._lock:
            new, self._told = self.calls - self._told, self.calls
            return new

    def count(self, answered: bool = False) -> None:
        """Count a call that is made, or one that was answered; several threads may call this."""
        with self._lock:
            if answered:
                self.answered += 1
            else:
                self.calls += 1

    def note(self, result: CallResult) -> None:
        """Count how a call ended."""
        with self._lock:
            self._results[result] += 1

    def take_results(self) -> Counter[str]:
        """Return the numbers of results since the last call of this method."""
        with self._lock:
            taken, self._results = self._results, Counter()
            return taken

    def count_nonsense(self) -> None:
        """Count an answer that did not have the expected form."""
        with self._lock:
            self.nonsense += 1


LimitsRead = tuple[LimitHeaders | None, LimitHeaders | None]
"""The limits in an answer's headers: of a short window, and of a day."""


def no_limits_told(headers: Mapping[str, str]) -> LimitsRead:
    """Return no limits: for a CRM whose answers do not report them."""
    return None, None


@dataclass(frozen=True)
class ApiFacts:
    """Details in which one CRM's API differs from others; its adapter declares them."""

    read_limits: Callable[[Mapping[str, str]], LimitsRead] = no_limits_told
    """Reads the remaining limits from an answer's headers, whose names are in lower case."""
    reset_header: str = ""
    """The header of a 429 with the seconds until calls are accepted; empty: only Retry-After."""
    busy: Mapping[int, tuple[str, float]] = field(default_factory=dict)
    """Statuses that mean "not now" only in this API -> their message, and the seconds to wait."""


@dataclass(frozen=True)
class Access:
    """All that an adapter needs to reach one account."""

    api_base: str
    tokens: TokenSource
    timeout: float = 30.0
    """Timeout of one call, in seconds."""
    header: str = "Authorization"
    """The header for the token; for manually created keys, some CRMs use another one."""
    prefix: str = "Bearer "
    meter: CallMeter = field(default_factory=CallMeter)
    gate: RateLimiter = field(default_factory=RateLimiter)
    facts: ApiFacts = field(default_factory=ApiFacts)
    web_base: str = ""
    """Root of the pages for people, if it is not the account's usual one; `url_for` uses it."""

    @property
    def web_host(self) -> str:
        """Return host and port of `web_base`; empty without one."""
        return urlsplit(self.web_base).netloc.lower()

    def enter(self, allowance: RateLimit) -> None:
        """Wait until a call may be made, and count it. Raises RateLimited."""
        self.gate.enter(allowance)
        self.meter.count()

    def answered(self, allowance: RateLimit, headers: Mapping[str, str]) -> None:
        """Store the limits that an answer reports; call this before looking at its status."""
        self.meter.date = headers.get("date", "")
        short, day = self.facts.read_limits(headers)
        short = short if allowance.told else None
        for label, reading in ((allowance.name, short), ("day", day)):
            if reading:
                self.meter.limits[label] = (reading.left, reading.most)
        if short or day:
            self.gate.learn(allowance, short, day)

    def authorization(self, token: str) -> dict[str, str]:
        """Return the header that carries the token."""
        return {self.header: f"{self.prefix}{token}"}


@dataclass
class Report:
    """The outcome of a plan: a result or a problem for every change in it."""

    results: dict[Ref, WriteResult] = field(default_factory=dict)
    problems: dict[Ref, CrmError] = field(default_factory=dict)
    begun: set[Ref] = field(default_factory=set)
    """Creates that were sent; noted before the call, since its answer may never come. A create that
    the CRM refused is taken out again: nothing was created, so no lookup is needed."""

    notes: dict[Ref, list[str]] = field(default_factory=dict)
    """What a person should know of a written record: parts that the account did not accept."""

    @contextmanager
    def sending(self, refs: Iterable[Ref]) -> Iterator[None]:
        """Note creates as sent, around the call that makes them."""
        new = set(refs) - self.begun
        self.begun |= new
        try:
            yield
        except MakeWay:
            self.begun -= new
            raise

    def refused(self, refs: Iterable[Ref]) -> None:
        """Note that the CRM refused creates: nothing was created, so no lookup is needed."""
        self.begun.difference_update(refs)

    def note(self, ref: Ref, words: str) -> None:
        """Remember a sentence about a record."""
        self.notes.setdefault(ref, []).append(words)

    def blocked_by(self, links: tuple[Ref, ...]) -> Ref | None:
        """Return the first link whose record has to be waited for."""
        return next((r for r in links if isinstance(self.problems.get(r), WAITS)), None)


WAITS = (RetryLater, Gone, ThereAlready, Blocked, Ambiguous)
"""Problems that pass, or that a person must solve: records linked to such a record wait for it."""


class Adapter(Protocol):
    """One CRM. A matching class is found by its entry in providers.yaml.

    Every method may raise the errors of app.domain.errors, or NotOurs, and no others.
    """

    shape: ClassVar[CrmShape]
    batch_size: ClassVar[int]
    """The number of bookings that are planned together."""
    asks_ahead: ClassVar[bool]
    """Whether lookups for the next batch run while one is written: two threads then call `find` and
    `apply` at once. This helps if the CRM counts searches apart from other calls."""
    allowances: ClassVar[Sequence[RateLimit]]
    """The calls that the CRM allows in short windows, on its smallest plan."""
    api_facts: ClassVar[ApiFacts]
    access: Access
    """The access that it was created with; the drainer reads its meter."""

    def __init__(self, access: Access) -> None: ...

    def whoami(self) -> CrmAccount:
        """Return the account: its own id, which never changes, and its name."""

    def check(self, name: ObjectName) -> None:
        """Read one record of an object. Raises MissingScope or another CrmError if that fails."""

    def directory(self, needed: frozenset[ObjectName] | None = None) -> Directory:
        """Return owners, pipelines and fields of the account; the caller keeps them for minutes.

        `needed`: the objects that the mapping uses; None means all. An object that the account does
        not show is left out of the schema with a note. If it is needed, AccountRefused is raised.
        """

    def describe(self, name: ObjectName) -> list[CrmField]:
        """Return the fields of an object."""

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create the missing booking-id fields and `fields`; return one sentence for each."""

    def find(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> LookupResults:
        """Read records by id or search them by their keys, in as few calls as possible.

        `ids` are the records that are known already. Nothing is written. A record that does not
        exist is left out; one that was merged is returned under its present id.
        """

    def apply(self, plan: Plan, report: Report) -> None:
        """Write a plan, and put a result or a problem for every change into the report as it comes.

        So nothing that was written before an outage is written again.

        Raises RetryLater, RateLimited, Unauthorized or MissingScope if the CRM as a whole does not
        answer; the caller may apply the same plan again.
        """

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Return the URL of a record for a person with a browser."""

    def record_id_in(self, name: ObjectName, text: str) -> str:
        """Return the record id in a text that somebody typed or pasted, without a call to the CRM.

        The text may be an id in the CRM's form, or a URL of the account's own page for such a
        record (like one of `url_for`), of which only the path counts. Empty for any other text.
        """
