"""The account of a sandbox: the effects of its admin, its edition and its day.

Every sandbox has one as `sandbox.account`. Tests set its switches before or between steps; in a new
one all are off. Objects and fields have the CRM's own names. See tests/accounts/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.answers import Record
from sandbox.faults import Fault

if TYPE_CHECKING:
    from sandbox.core import Sandbox

USES = ("describe", "write", "query")
"""The uses for which a field can be missing."""
BLOCK_PAGE = (
    "<!doctype html><html><head><title>Access denied</title></head>"
    "<body><h1>Sorry, you have been blocked</h1></body></html>"
)
"""The page that a firewall or a mail host's filter sends in place of JSON."""


@dataclass
class Refusal:
    """A rule of the account: it refuses the writes that match it."""

    object: str
    code: str = ""
    """The CRM's own code, if its errors have one."""
    message: str = "A rule of this account forbids it"
    fields: tuple[str, ...] = ()
    """Fields that the error names."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Field -> value: applies if the record would have all these values."""
    owner_inactive: bool = False
    """Applies if the write makes a deactivated user the owner."""
    owner_named: str = ""
    """Applies if the write makes the user with this name the owner."""
    only_new: bool = False
    """Applies to creates only."""
    lacks: str = ""
    """Applies if this field of the record would be empty."""
    more: Record = field(default_factory=dict)
    """Further keys of the error body."""
    times: int | None = None
    """The number of refusals; None: until the rule is lifted."""


@dataclass
class User:
    """A user beside the usual ones, or a user with special properties."""

    email: str
    name: str
    active: bool = True
    kind: str = ""
    """Salesforce's UserType; empty: Standard."""
    id: Any = None


class Account:
    """The switches of one account."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.refusals: list[Refusal] = []
        self.missing: dict[str, int] = {}
        """Object that the account hides -> 404 or 403."""
        self.field_gone: set[tuple[str, str, str]] = set()
        """(use, object, field) that is missing."""
        self.extra: dict[str, Record] = {}
        """Object -> additional field -> its type."""
        self.locked: dict[tuple[str, str], tuple[str, str]] = {}
        """(record id, field) -> code and message of the refusal of its change."""
        self.units: dict[tuple[str, str], int] = {}
        """(object, field) -> the maximum length in UTF-16 units."""
        self.left: set[str] = set()
        """E-mail addresses of deactivated users."""
        self.more_users: list[User] = []
        self.lost_scopes: set[str] = set()
        """Scopes that the tokens have lost, whatever the consent was."""
        self.other_success: list[tuple[str, int, int]] = []
        """(part of a path, success status, the status that is sent instead)."""
        self._at_work = False
        """Whether a colleague is at work, to whom no rule applies."""

    @contextmanager
    def colleague(self) -> Iterator[None]:
        """Turn all refusals off inside this block: a colleague works by the rules."""
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    @property
    def rules_hold(self) -> bool:
        """Whether refusals apply at present."""
        return not self._at_work

    # Answers of a path

    def answers(
        self,
        path: str | tuple[str, ...],
        status: int,
        body: Any = "",
        *,
        method: str = "",
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Answer calls whose path contains `path`, or one of several, in this way and do nothing
        else.

        `body`: JSON or text. `times`: the number of calls, None: until `clears_answers`. Token
        calls are not API calls: OAuth paths answer as usual unless they are named.
        """
        text = body if isinstance(body, str) else json.dumps(body)
        html = text.lstrip().startswith("<")
        kind = "text/html; charset=utf-8" if html or not text else "application/json"
        sent = {"Content-Type": kind, **(headers or {})}
        with self._sandbox.lock:
            self._sandbox.faults.append(
                Fault(path=path, method=method, status=status, body=text, headers=sent, times=times)
            )

    def every_call_answers(self, status: int, body: Any = "", **how: Any) -> None:
        """Give this answer to every API call, without OAuth; `how` as for `answers`."""
        self.answers(self._sandbox.api_paths, status, body, **how)

    def blocks_with_a_page(self, status: int = 403, times: int | None = None) -> None:
        """Send an HTML page in place of JSON, as a firewall or a mail host's filter does."""
        self.every_call_answers(status, BLOCK_PAGE, times=times)

    def clears_answers(self) -> None:
        """Let every path answer as usual again."""
        with self._sandbox.lock:
            self._sandbox.faults.clear()

    def succeeds_with(self, path: str, usual: int, instead: int) -> None:
        """Replace a success status under `path` with another one of the 2xx."""
        self.other_success.append((path, usual, instead))

    def loses_scopes(self, *scopes: str) -> None:
        """Remove permissions from existing tokens and from later consents."""
        self.lost_scopes |= set(scopes)
        self._sandbox.withheld |= set(scopes)

    # Rules for writes

    def refuses(self, object_: str, code: str = "", message: str = "", **how: Any) -> Refusal:
        """Refuse writes of an object; `how`: the other parts of a Refusal. `lifts` ends it."""
        words = {"message": message} if message else {}
        made = Refusal(object=object_, code=code, **words, **how)
        self.refusals.append(made)
        return made

    def requires(self, object_: str, name: str, code: str = "", message: str = "") -> Refusal:
        """Refuse new records of an object whose field is empty."""
        words = message or f"{name} is required"
        return self.refuses(object_, code, words, lacks=name, fields=(name,), only_new=True)

    def lifts(self) -> None:
        """Remove all refusals."""
        self.refusals.clear()

    def struck(
        self, object_: str, new: bool, written: Mapping[str, Any], whole: Mapping[str, Any],
        owner: User | None,
    ) -> Refusal | None:  # fmt: skip
        """Return the refusal that a write meets, and count it. `owner`: the user that the write names."""
        fitting = (
            refusal for refusal in (self.refusals if self.rules_hold else ())
            if refusal.object == object_ and self._fits(refusal, new, written, whole, owner)
        )  # fmt: skip
        met = next(fitting, None)
        if met is not None and met.times is not None:
            met.times -= 1
            if met.times <= 0:
                self.refusals.remove(met)
        return met

    def _fits(
        self, refusal: Refusal, new: bool, written: Mapping[str, Any], whole: Mapping[str, Any],
        owner: User | None,
    ) -> bool:  # fmt: skip
        # A rule applies to written fields: a call that only adds a link passes.
        if (refusal.only_new and not new) or not written:
            return False
        if any(whole.get(name) != value for name, value in refusal.where.items()):
            return False
        if refusal.lacks and whole.get(refusal.lacks) not in (None, "", [], {}):
            return False
        if refusal.owner_inactive and (owner is None or owner.active):
            return False
        return not refusal.owner_named or (owner is not None and owner.name == refusal.owner_named)

    def read_only(self, record_id: Any, *names: str, code: str = "", message: str = "") -> None:
        """Allow reads and links of a record's fields, but no changes."""
        for name in names:
            self.locked[str(record_id), name] = code, message or f"{name} is read-only"

    def locked_field(
        self, record_id: Any, written: Mapping[str, Any]
    ) -> tuple[str, str, str] | None:
        """Return field, code and message of the first locked field in a write."""
        for name in written if self.rules_hold else ():
            if (str(record_id), name) in self.locked:
                return (name, *self.locked[str(record_id), name])
        return None

    def longest(self, object_: str, name: str, units: int) -> None:
        """Limit a field to this many UTF-16 units."""
        self.units[object_, name] = units

    def too_long(self, object_: str, name: str, value: Any, usual: int | None = None) -> int | None:
        """Return the limit of a field in UTF-16 units if the value is longer, otherwise None."""
        most = self.units.get((object_, name), usual)
        if most is None or not isinstance(value, str):
            return None
        return most if len(value.encode("utf-16-le", "surrogatepass")) // 2 > most else None

    # Objects and fields

    def without(self, object_: str, status: int = 404) -> None:
        """Hide an object in describe and query: 404, or 403 if it is forbidden."""
        self.missing[object_] = status

    def lacks(self, object_: str, *names: str, uses: tuple[str, ...] = USES) -> None:
        """Hide fields of an object in describe, writes and queries, or in some of these."""
        self.field_gone |= {(use, object_, name) for use in uses for name in names}

    def adds(self, object_: str, **types: Any) -> None:
        """Give an object more fields: name -> type, in the form of the sandbox's tables."""
        self.extra.setdefault(object_, {}).update(types)

    def shows(self, object_: str, name: str, use: str = "") -> bool:
        """Whether a field exists for a use; without a use: for any."""
        wanted = (use,) if use else USES
        return any((each, object_, name) not in self.field_gone for each in wanted)

    # Users

    def user(self, email: str, name: str, *, active: bool = True, kind: str = "") -> User:
        """Add a user; the e-mail address may belong to another user too."""
        made = User(email, name, active, kind)
        with self._sandbox.lock:
            self.more_users.append(made)
            self._sandbox.take_user(made)
        return made

    def user_leaves(self, email: str) -> None:
        """Deactivate the users with this e-mail address: they keep their records and get no new ones."""
        with self._sandbox.lock:
            self.left.add(email)
            for user in self.more_users:
                if user.email == email:
                    user.active = False
            self._sandbox.user_left(email)

    def user_returns(self, email: str) -> None:
        """Activate the users with this e-mail address again."""
        with self._sandbox.lock:
            self.left.discard(email)
            for user in self.more_users:
                if user.email == email:
                    user.active = True
            self._sandbox.user_back(email)
