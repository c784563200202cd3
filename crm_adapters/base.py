"""The protocol between the drainer and a CRM: what an adapter declares, takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from threading import Lock
from typing import ClassVar, Protocol, TypeVar

from app.domain.allowance import MakeWay, RateLimit, RateLimiter
from app.domain.errors import (
    AccountMoved,
    AccountRefused,
    Ambiguous,
    Blocked,
    Conflict,
    CrmError,
    Gone,
    InvalidRecord,
    RetryLater,
    ThereAlready,
)
from app.domain.records import (
    Change,
    CrmAccount,
    CrmField,
    CrmShape,
    Directory,
    Lookup,
    LookupResults,
    NewField,
    ObjectName,
    Plan,
    Ref,
    WriteResult,
)
from crm_adapters.allowance import read_headers

T = TypeVar("T")
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

    def enter(self, allowance: RateLimit) -> None:
        """Wait until a call may be made, and count it. Raises RateLimited."""
        self.gate.enter(allowance)
        self.meter.count()

    def answered(self, allowance: RateLimit, headers: Mapping[str, str]) -> None:
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

    def note(self, ref: Ref, words: str) -> None:
        """Remember a sentence about a record."""
        self.notes.setdefault(ref, []).append(words)

    def blocked_by(self, links: tuple[Ref, ...]) -> Ref | None:
        """The first link whose record has to be waited for."""
        return next((r for r in links if isinstance(self.problems.get(r), WAITS)), None)


WAITS = (RetryLater, Gone, ThereAlready, Blocked, Ambiguous)
"""Problems of a record that pass, or that a person has to decide: what hangs on it waits for it."""


def unblocked(changes: Sequence[Change], report: Report, ids: Mapping[Ref, str]) -> list[Change]:
    """The changes that can be written now; those that have to wait are noted as blocked.

    What was refused for good keeps nothing else out: a record is written without its link to one
    that is not there. `ids` are the records that are known, also where an update was refused.
    """
    ready = []
    for change in changes:
        blocker = report.blocked_by(change.links_after)
        if blocker:
            words = f"The {blocker.object} was not written: {report.problems[blocker]}"
            report.problems[change.ref] = Blocked(words)
        else:
            lacking = {
                ref for ref in change.links_after if ref in report.problems and ref not in ids
            }
            ready.append(without(change, lacking))
    return ready


def without(change: Change, refs: Collection[Ref]) -> Change:
    """A change that links to none of these."""
    if not refs:
        return change
    return replace(
        change,
        links_after=tuple(ref for ref in change.links_after if ref not in refs),
        links=tuple(ref for ref in change.links if ref not in refs),
    )


def ids_of(refs: Iterable[Ref], ids: Mapping[Ref, str], *names: ObjectName) -> dict[str, Ref]:
    """The ids of those of these records that are there, in order, of some objects or of all.

    One record may stand for several: a person who is given twice, with two addresses, is one.
    """
    found: dict[str, Ref] = {}
    for ref in refs:
        if ref in ids and (not names or ref.object in names):
            found.setdefault(ids[ref], ref)
    return found


def unlinked(change: Change, ids: Mapping[Ref, str]) -> dict[str, Ref]:
    """The ids of what a change takes links away to; not of what stays under another key."""
    stay = ids_of(change.links_after, ids)
    return {i: ref for i, ref in ids_of(change.links_to_remove, ids).items() if i not in stay}


def there_already(change: Change, error: Conflict) -> Conflict | ThereAlready:
    """The problem of a create that a person's or a company's record is in the way of.

    That record is read first, unless it is known already that it cannot be taken.
    """
    found = error.record_id
    # Salesforce writes an id in 15 or in 18 characters.
    if found is None or found[:15] == (change.not_taken or "")[:15]:
        return error
    return ThereAlready(error.message, found)


def problem_of(change: Change, error: CrmError) -> CrmError:
    """What a CRM's error means for the change that it was the answer to.

    What is being made cannot be gone, nor can what was read just now: then something else of the
    write is refused. `note_lost_targets` looks what that is.
    """
    if not isinstance(error, Gone):
        return error
    if not change.record_id or change.found_in_crm:
        return InvalidRecord(error.message)
    return Gone(error.message, change.record_id)


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


def load_adapter(path: str) -> type[Adapter]:
    """Find an adapter's class by `module:Class`, as providers.yaml names it."""
    module, _, name = path.partition(":")
    adapter: type[Adapter] = getattr(import_module(module), name)
    return adapter


def confirmed(ask: Callable[[], T], probe: Callable[[], object]) -> T:
    """What a question gives that is done without where it is refused.

    A refusal may be one of everything that passes in a moment. So `probe` makes a call that every
    account answers, and the question is asked once more. Raises what the second time says, or `probe`.
    """
    try:
        return ask()
    except (AccountRefused, InvalidRecord):
        probe()
        return ask()


def read_schema(
    read: Callable[[ObjectName], dict[str, CrmField]],
    objects: Sequence[ObjectName],
    needed: frozenset[ObjectName] | None,
    called: Mapping[ObjectName, str] | None = None,
) -> tuple[dict[ObjectName, dict[str, CrmField]], list[str]]:
    """The fields of the objects that a mapping uses, and a sentence for each that cannot be read.

    `called`: what the CRM calls its objects, where who may not read an object's fields may not write
    its records either. Raises AccountRefused then, where the object is needed.
    """
    schema: dict[ObjectName, dict[str, CrmField]] = {}
    notes: list[str] = []
    for name in objects:
        if needed is not None and name not in needed:
            continue
        try:
            schema[name] = read(name)
        except AccountMoved:
            raise  # It says nothing of this object.
        except (Gone, AccountRefused, InvalidRecord) as error:
            if needed is not None and called:
                words = (
                    f"The account does not show {called[name]} records, which the mapping writes"
                )
                raise AccountRefused(f"{words}: {error.message}") from None
            notes.append(f"The fields of {name} records cannot be read: {error.message}")
    return schema, notes
