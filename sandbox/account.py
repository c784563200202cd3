"""What an account is like: what its admin, its edition and its day make of a CRM.

Every sandbox has one as `sandbox.account`. Tests set its switches before or between steps; a new one
has none of them on. Objects and fields go by the CRM's own names. See tests/accounts/README.md.
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
"""Where a field can be missing."""
BLOCK_PAGE = (
    "<!doctype html><html><head><title>Access denied</title></head>"
    "<body><h1>Sorry, you have been blocked</h1></body></html>"
)
"""What a firewall or a mail host's filter puts where JSON is expected."""


@dataclass
class Refusal:
    """A rule of the account: writes that fit it are refused."""

    object: str
    code: str = ""
    """The CRM's own code, where its errors have one."""
    message: str = "A rule of this account forbids it"
    fields: tuple[str, ...] = ()
    """Fields that the error names."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Field -> value: strikes where the record would have all of them."""
    owner_inactive: bool = False
    """Strikes where the write gives the record to a user who has left."""
    owner_named: str = ""
    """Strikes where the write gives the record to the user of this name."""
    only_new: bool = False
    """Strikes at creates alone."""
    lacks: str = ""
    """Strikes where the record would have nothing in this field."""
    more: Record = field(default_factory=dict)
    """Further keys of the error body."""
    times: int | None = None
    """So many refusals; None: until it is lifted."""


@dataclass
class User:
    """Somebody beside the usual users, or with what is special about them."""

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
        """Object that the account does not show -> 404 or 403."""
        self.field_gone: set[tuple[str, str, str]] = set()
        """(use, object, field) that is missing."""
        self.extra: dict[str, Record] = {}
        """Object -> field that is there beside the usual ones -> its type."""
        self.locked: dict[tuple[str, str], tuple[str, str]] = {}
        """(record id, field) -> code and message with which its change is refused."""
        self.units: dict[tuple[str, str], int] = {}
        """(object, field) -> most UTF-16 units that it takes."""
        self.left: set[str] = set()
        """E-mail addresses of users who have left."""
        self.more_users: list[User] = []
        self.lost_scopes: set[str] = set()
        """Scopes that the tokens have no more, whatever was consented to."""
        self.other_success: list[tuple[str, int, int]] = []
        """(part of a path, success status, the one that is sent instead)."""
        self._at_work = False
        """Whether a colleague is at work, whom no rule stops."""

    @contextmanager
    def colleague(self) -> Iterator[None]:
        """Let what is made in here pass every refusal: a colleague makes it, as the rules want it."""
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    @property
    def rules_hold(self) -> bool:
        """Whether refusals strike at present."""
        return not self._at_work

    # What a path answers

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
        """Let calls whose path holds `path`, or one of them, get this answer and do nothing.

        `body`: JSON or text. `times`: so many calls, None: until `clears_answers`. A token is no call of the API: paths
        of OAuth answer as ever unless they are named.
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
        """Let every call of the API, none of OAuth, get this answer; `how` as for `answers`."""
        self.answers(self._sandbox.api_paths, status, body, **how)

    def blocks_with_a_page(self, status: int = 403, times: int | None = None) -> None:
        """Let a page in HTML stand where JSON is expected, as a firewall or a mail host's filter does."""
        self.every_call_answers(status, BLOCK_PAGE, times=times)

    def clears_answers(self) -> None:
        """Let every path answer as usual again."""
        with self._sandbox.lock:
            self._sandbox.faults.clear()

    def succeeds_with(self, path: str, usual: int, instead: int) -> None:
        """Let what succeeds under `path` with one status say another one of the 2xx."""
        self.other_success.append((path, usual, instead))

    def loses_scopes(self, *scopes: str) -> None:
        """Take permissions away from tokens that are out already, and from coming consents."""
        self.lost_scopes |= set(scopes)
        self._sandbox.withheld |= set(scopes)

    # What a write may do

    def refuses(self, object_: str, code: str = "", message: str = "", **how: Any) -> Refusal:
        """Refuse writes of an object; `how`: the other parts of a Refusal. Lift it with `lifts`."""
        words = {"message": message} if message else {}
        made = Refusal(object=object_, code=code, **words, **how)
        self.refusals.append(made)
        return made

    def requires(self, object_: str, name: str, code: str = "", message: str = "") -> Refusal:
        """Refuse new records of an object that have nothing in a field."""
        words = message or f"{name} is required"
        return self.refuses(object_, code, words, lacks=name, fields=(name,), only_new=True)

    def lifts(self) -> None:
        """Take every refusal back."""
        self.refusals.clear()

    def struck(
        self, object_: str, new: bool, written: Mapping[str, Any], whole: Mapping[str, Any],
        owner: User | None,
    ) -> Refusal | None:  # fmt: skip
        """The refusal that a write meets, counted. `owner`: the user whom the write names."""
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
        # A rule looks at what is written: a mere link, or a change beside it, passes.
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
        """Let a record's fields be read and linked to, but not changed."""
        for name in names:
            self.locked[str(record_id), name] = code, message or f"{name} is read-only"

    def locked_field(
        self, record_id: Any, written: Mapping[str, Any]
    ) -> tuple[str, str, str] | None:
        """Field, code and message of the first locked field that a write touches."""
        for name in written if self.rules_hold else ():
            if (str(record_id), name) in self.locked:
                return (name, *self.locked[str(record_id), name])
        return None

    def longest(self, object_: str, name: str, units: int) -> None:
        """Let a field take so many UTF-16 units and refuse more."""
        self.units[object_, name] = units

    def too_long(self, object_: str, name: str, value: Any, usual: int | None = None) -> int | None:
        """The most UTF-16 units of a field where a value has more, else None."""
        most = self.units.get((object_, name), usual)
        if most is None or not isinstance(value, str):
            return None
        return most if len(value.encode("utf-16-le", "surrogatepass")) // 2 > most else None

    # What there is

    def without(self, object_: str, status: int = 404) -> None:
        """Show an object neither in describe nor in query: 404, or 403 where it is forbidden."""
        self.missing[object_] = status

    def lacks(self, object_: str, *names: str, uses: tuple[str, ...] = USES) -> None:
        """Let fields of an object be missing: in describe, writes and queries, or some of them."""
        self.field_gone |= {(use, object_, name) for use in uses for name in names}

    def adds(self, object_: str, **types: Any) -> None:
        """Give an object more fields: name -> type as the sandbox's own tables write it."""
        self.extra.setdefault(object_, {}).update(types)

    def shows(self, object_: str, name: str, use: str = "") -> bool:
        """Whether a field is there; without a use: in any."""
        wanted = (use,) if use else USES
        return any((each, object_, name) not in self.field_gone for each in wanted)

    # Who works there

    def user(self, email: str, name: str, *, active: bool = True, kind: str = "") -> User:
        """Add a user, also one with an e-mail address that another one has."""
        made = User(email, name, active, kind)
        with self._sandbox.lock:
            self.more_users.append(made)
            self._sandbox.take_user(made)
        return made

    def user_leaves(self, email: str) -> None:
        """Deactivate the users with an e-mail address: they own what they own, and nothing new."""
        with self._sandbox.lock:
            self.left.add(email)
            for user in self.more_users:
                if user.email == email:
                    user.active = False
            self._sandbox.user_left(email)

    def user_returns(self, email: str) -> None:
        """Activate the users with an e-mail address again, as they were before they left."""
        with self._sandbox.lock:
            self.left.discard(email)
            for user in self.more_users:
                if user.email == email:
                    user.active = True
            self._sandbox.user_back(email)
