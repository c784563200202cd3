"""Every call that an adapter makes; each can be repeated from the same state of a sandbox."""

from __future__ import annotations

import copy
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from app.crm.changes import Change, Plan
from app.crm.lookup import Lookup, LookupKey, MatchKey
from app.crm.objects import WRITE_ORDER, ObjectName, Ref
from app.crm.port import Access, Adapter, Report
from app.domain.rate_limits import RateLimiter
from crm_adapters.guard import guarded
from sandbox.core import Sandbox
from sandbox.limits import Window
from sandbox.serve import load_sandbox
from tests.between import Between
from tests.bridge import ADAPTERS, Bridge, sample
from tests.contract.desk import Desk, load_desks

State = dict[str, Any]
VALUES = {
    MatchKey.EMAIL: "jane.van.der.berg@example.com",
    MatchKey.SECONDARY_EMAIL: "other@example.com",
    MatchKey.PHONE: "+4915123456789",
    MatchKey.DOMAIN: "example.com",
    MatchKey.BOOKING: "default:6f0f7c1e-3a55-4c0e-9d58-0d2f7f0a11c1",
}


class Untiring(RateLimiter):
    """A rate limiter that never waits."""

    def rest(self, seconds: float) -> None:
        """Return at once, although the CRM asks for a pause."""


class Tokens:
    """A token source that never runs out of tokens."""

    def __init__(self) -> None:
        self._number = itertools.count(1)

    def token(self) -> str:
        """Return the first token."""
        return "t0"

    def renewed(self, refused: str) -> str:
        """Return the next token."""
        return f"t{next(self._number)}"

    def look_for_address(self, token: str) -> None:
        """Do nothing: the sandbox has one address."""


@dataclass(frozen=True)
class Step:
    """One adapter method with its arguments, and the state of the CRM before the call."""

    name: str
    state: State
    do: Callable[[Adapter, Report], object]
    cold: bool = False
    """Whether the adapter has done nothing before this step."""
    calls: int = 0
    """The number of calls that the step makes when everything works."""


class World:
    """One CRM whose contents can be restored, so that every step starts from its own saved state."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.sandbox: Sandbox = load_sandbox(provider)()
        self.desk: Desk = load_desks()[provider](self.sandbox)
        # No rate limit slows these tests down.
        for name, value in vars(self.sandbox).items():
            if isinstance(value, Window):
                setattr(self.sandbox, name, Window(10**9, 0.0))
        self.between = Between(self.sandbox)
        with tempfile.TemporaryDirectory() as folder:
            plans = self._record(f"sqlite:///{folder}/bridge.sqlite3")
        for grant in self.sandbox.grants:
            grant.access_tokens |= {f"t{number}": float("inf") for number in range(9)}
        last = self.state()
        states = [(name, plan, {**state, "grants": last["grants"]}) for name, plan, state in plans]
        self._warm: Adapter | None = None
        steps = [*self._reads(last), *self._finds(last), *_writes(states), *self._deletes(last)]
        self.steps = [self._counted(step) for step in steps]

    def adapter(self, step: Step) -> Adapter:
        """Return an adapter, guarded as in the service; a step that needs the account read gets a
        warm one.
        """
        if not step.cold and self._warm:
            return self._warm
        access = Access(self.between.url, Tokens(), 2.0, gate=Untiring())
        made = guarded(ADAPTERS[self.provider](access))
        if not step.cold:
            made.directory()
            self._warm = made
        return made

    def restore(self, state: State) -> None:
        """Restore the saved contents of the CRM."""
        for name, value in copy.deepcopy(state).items():
            setattr(self.sandbox, name, value)

    def ids(self) -> set[str]:
        """Return the ids of all records in the CRM."""
        return {record_id for _, record_id in self.desk.raw()}

    def state(self) -> State:
        """Return the contents of the CRM, for `restore`."""
        return {
            name: copy.deepcopy(value)
            for name, value in vars(self.sandbox).items()
            if name not in self.sandbox.no_state
            and not callable(value)
            and not isinstance(value, Window)
        }

    def _record(self, database_url: str) -> list[tuple[str, Plan, State]]:
        """Run the sample bookings; return each plan with its name and the CRM's state before the
        write.
        """
        told: list[tuple[str, Plan, State]] = []
        bridge = Bridge(database_url, served={self.provider: self.between}).connect_all()
        names: list[str] = []
        with _watched_apply(
            self.provider, lambda plan: told.append((names[-1], plan, self.state()))
        ):
            moved = sample("booking_rescheduled")
            group, smaller = sample("group_booking_created"), sample("group_attendee_removed")
            cancelled = sample("booking_cancelled")
            for name, payload in (
                ("created", sample("booking_created")), ("updated", moved), ("linked", group),
                ("unlinked", smaller), ("cancelled", cancelled),
            ):  # fmt: skip
                names.append(name)
                bridge.sync(payload)
        bridge.services.store.close()
        assert {name for name, *_ in told} == {
            "created", "updated", "linked", "unlinked", "cancelled",
        }  # fmt: skip
        return told

    def _reads(self, state: State) -> Iterator[Step]:
        objects = ADAPTERS[self.provider].shape.objects
        yield Step("whoami", state, lambda adapter, _: adapter.whoami(), True)
        yield Step("directory", state, lambda adapter, _: adapter.directory(), True)
        for name in objects[:2]:
            yield Step(f"check {name}", state, lambda a, _, n=name: a.check(n), True)
            yield Step(f"describe {name}", state, lambda a, _, n=name: a.describe(n), True)
        fields = [self.desk.new_field]
        self.restore(state)
        self.sandbox.drop_booking_fields()
        yield Step("provision", self.state(), lambda adapter, _: adapter.provision(fields), True)

    def _finds(self, state: State) -> Iterator[Step]:
        shape = ADAPTERS[self.provider].shape
        self.restore(state)
        view = self.sandbox.view()
        ids = {
            ObjectName.CONTACT: view.contacts[0].id, ObjectName.COMPANY: view.companies[0].id,
            ObjectName.DEAL: view.deals[0].id, ObjectName.MEETING: view.meetings[0].id,
        }  # fmt: skip
        person = Ref(ObjectName.CONTACT, VALUES[MatchKey.EMAIL])
        known = {person: ids[ObjectName.CONTACT]}
        for name in shape.objects:
            keys = {*shape.match_keys.get(name, ()), MatchKey.FIELD}
            keys |= {shape.native_keys[name]} if name in shape.native_keys else set()
            keys |= {MatchKey.BOOKING} if name in (ObjectName.DEAL, ObjectName.MEETING) else set()
            if name in ids:
                gone = Lookup(Ref(name, "gone"), "999999", fields=frozenset())
                there = Lookup(Ref(name, "there"), ids[name])
                yield _find(f"{name} by id", state, [gone, there], {})
            for kind in sorted(keys):
                key = LookupKey(kind, VALUES.get(kind, "value"))
                if kind is MatchKey.FIELD:
                    if name is not ObjectName.CONTACT:
                        continue
                    key = LookupKey(kind, "CTO", self.desk.field("contact", "job_title"))
                if kind is MatchKey.OPEN_DEAL:
                    key = LookupKey(kind, person.key)
                question = Lookup(Ref(name, "some"), None, (key,), anchors=(person,))
                yield _find(f"{name} by {kind}", state, [question], known)

    def _deletes(self, state: State) -> Iterator[Step]:
        self.restore(state)
        meeting = self.sandbox.view().meetings[0].id
        change = Change(Ref(ObjectName.MEETING, "m"), meeting, {}, {}, delete=True)
        yield Step("deleted", state, lambda a, report: a.apply(Plan((change,)), report))

    def _counted(self, step: Step) -> Step:
        """Return the step with the number of its calls. The step must succeed when everything works."""
        self.restore(step.state)
        report, adapter = Report(), self.adapter(step)
        with self.between.answering(lambda asked, right: None) as asked:
            step.do(adapter, report)
        assert not report.problems, (step.name, report.problems)
        assert asked, step.name
        return replace(step, calls=len(asked))


@functools.cache
def world(provider: str) -> World:
    """Return the world of a CRM; it is made once per process."""
    return World(provider)


def _find(name: str, state: State, questions: list[Lookup], ids: dict[Ref, str]) -> Step:
    return Step(f"find {name}", state, lambda adapter, _: adapter.find(questions, ids))


def _writes(plans: list[tuple[str, Plan, State]]) -> Iterator[Step]:
    for name, plan, state in plans:
        yield Step(name, state, lambda a, report, p=plan: a.apply(p, report))
    # Each step writes a whole plan: the changes of one booking depend on each other.
    assert {c.ref.object for _, plan, _ in plans for c in plan.changes} <= set(WRITE_ORDER)


@contextmanager
def _watched_apply(provider: str, told: Callable[[Plan], None]) -> Iterator[None]:
    """Report every plan before the adapter writes it."""
    adapter: Any = ADAPTERS[provider]
    original = adapter.apply

    def apply(self: Adapter, plan: Plan, report: Report) -> None:
        told(plan)
        original(self, plan, report)

    adapter.apply = apply
    try:
        yield
    finally:
        adapter.apply = original
