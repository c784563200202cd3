"""Bugs planted on purpose, each with a name; the tests named with a bug must catch it.

Run as a module, this is the worker process of a chaos run; `create_app` is its web process.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask

from tests.chaos.planted import PLANTED


@dataclass(frozen=True)
class Mutant:
    """A bug, and tests of which at least one must fail because of it."""

    plant: Callable[[], None]
    tests: tuple[str, ...]


CRASHES = "tests/chaos/test_crashes.py::test_killed_at_every_commit_and_every_call"
STILL = "tests/contract/test_adapters.py::test_who_stood_still_right_before_a_call_does_not_make_it"
FENCE = "tests/integration/test_queue.py::test_a_drainer_that_lost_its_lease_writes_nothing"
LATE = "tests/integration/test_queue.py::test_a_wake_up_that_found_the_lease_taken_is_made_up_for"
ADAPTERS = "tests/contract/test_adapters.py"
AHEAD = "tests/integration/test_ahead.py::test_what_two_batches_share_is_made_once"
OUTAGES = "tests/integration/test_outages.py"


def _no_unique_key() -> None:
    """Every webhook counts as new, also a repeated one."""
    from app.domain.events import Event

    Event.dedupe_key = property(lambda event: uuid.uuid4().hex * 2)


def _ledger_before_the_call() -> None:
    """The ledger records a write before the call to the CRM."""
    from workers.batch import Batch

    plan_only = Batch._plan

    def plan(batch: Any, beside: Any) -> Any:
        settled = plan_only(batch, beside)
        with batch._write() as session:
            for delivery, booking in batch.state.rows:
                row = session.get_one(type(delivery), delivery.id)
                row.state, row.synced_revision = "synced", booking.revision
        return settled

    Batch._plan = plan


def _no_intent() -> None:
    """Creates are sent without an intent in the ledger."""
    from app.store.ledger import Ledger

    intend = Ledger.intend

    def only_when_saving(ledger: Any, creates: Any, now: Any) -> None:
        if not any(intent.fingerprints for intent in creates.values()):
            intend(ledger, creates, now)

    Ledger.intend = only_when_saving


def _lease_not_fenced() -> None:
    """A worker may write for ever after it held the lease once."""
    from app.store import leases

    leases.hold_lease = lambda session, connection_id, fence: True


def _last_look_too_early() -> None:
    """The lease is checked when a call's turn comes, not when the call is sent."""
    from app.outbound import wire

    wire._watched = lambda kind, gate: kind


def _lease_never_ends() -> None:
    """A dead drainer's lease on its connection never ends."""
    from datetime import timedelta

    from app.store import leases

    leases.LEASE = timedelta(days=365)


def _wake_up_lost() -> None:
    """A drainer does not check for work once more after it has released the lease."""
    from workers import drain

    drain.deliveries.connections_with_work = lambda session, now: []


def _pause_ignored() -> None:
    """The service calls a CRM at once, although the CRM asked for a pause."""
    from workers.drain import Drainer

    Drainer._pause = lambda drainer, lease, error: None


def _batches_not_kept_apart() -> None:
    """Lookups for the next batch may concern records that the current batch is creating."""
    from workers import batch

    batch.marks_of = lambda desired, adapter, departed=(): batch.Marks()


def _last_to_arrive_wins() -> None:
    """The state that arrives last counts as the newest."""
    from app.domain import merge

    merge.is_newer = lambda candidate, known: True


def _failed_search_is_nobody() -> None:
    """A failed search counts as a search without a result."""
    from app.crm.lookup import LookupResults
    from app.domain.errors import RetryLater
    from app.services import crm_state as inquiry

    def read_crm_state(adapter: Any, *args: Any, **kwargs: Any) -> Any:
        find = adapter.find

        def hopeful(questions: Any, ids: Any) -> Any:
            try:
                return find(questions, ids)
            except RetryLater:
                return LookupResults()

        adapter.find = hopeful
        try:
            return original(adapter, *args, **kwargs)
        finally:
            adapter.find = find

    original = inquiry.read_crm_state
    from app.services import planning

    planning.read_crm_state = read_crm_state


def _outage_uses_attempts() -> None:
    """A booking uses up attempts while its CRM is down."""
    from app.store import delivery_outcomes

    delivery_outcomes.record_outage = delivery_outcomes.record_failure


def _answer_before_commit() -> None:
    """A webhook is answered while it is only in memory, and stored with the next one."""
    from app.services.intake import Intake, Verdict, WebhookAnswer

    accept = Intake.accept
    kept: list[tuple[Any, bytes]] = []

    def hasty(intake: Any, rules: Any, body: bytes) -> Any:
        json.loads(body)
        kept.append((rules, body))
        if len(kept) > 1:
            return accept(intake, *kept.pop(0))
        return WebhookAnswer(Verdict.ACCEPTED, 0)

    Intake.accept = hasty


def _ended_before_it_is_processed() -> None:
    """A stored webhook is marked as processed in a transaction before the one that processes it."""
    from app.services import processing

    end = processing.end_stored

    def too_early(session: Any, *args: Any) -> Any:
        ended = end(session, *args)
        session.commit()
        return ended

    processing.end_stored = too_early


def _allowance_ignored() -> None:
    """Calls do not wait for the CRM's rate limit."""
    from app.services.rate_limits import SharedRateLimiter

    SharedRateLimiter.enter = lambda gate, allowance: None


def _poison_fails_its_batch() -> None:
    """One refused record fails all other records of its batch."""
    from app.domain.errors import InvalidRecord
    from workers.batch_state import BatchState

    problem = BatchState.problem_of

    def any_problem(state: Any, planned: Any) -> Any:
        refused = [p for p in state.report.problems.values() if isinstance(p, InvalidRecord)]
        return refused[0] if refused else problem(state, planned)

    BatchState.problem_of = any_problem


MUTANTS: dict[str, Mutant] = {
    "no unique key": Mutant(
        _no_unique_key,
        ("tests/integration/test_webhooks.py::test_fifty_at_once_are_one_event",),
    ),
    "ledger written before the call": Mutant(_ledger_before_the_call, (CRASHES,)),
    "create without an intent": Mutant(_no_intent, (CRASHES,)),
    "lease not fenced": Mutant(_lease_not_fenced, (FENCE,)),
    "last look too early": Mutant(_last_look_too_early, (STILL,)),
    "lease never ends": Mutant(_lease_never_ends, ("tests/chaos/test_leases.py",)),
    "wake-up lost": Mutant(_wake_up_lost, (LATE,)),
    "cooldown ignored": Mutant(_pause_ignored, (ADAPTERS,)),
    "batches not kept apart": Mutant(_batches_not_kept_apart, (AHEAD,)),
    "last to arrive wins": Mutant(_last_to_arrive_wins, (ADAPTERS,)),
    "failed search is nobody": Mutant(_failed_search_is_nobody, (ADAPTERS,)),
    "outage uses up attempts": Mutant(_outage_uses_attempts, (OUTAGES,)),
    "answer before the commit": Mutant(_answer_before_commit, (CRASHES,)),
    "webhook ended before it is processed": Mutant(_ended_before_it_is_processed, (CRASHES,)),
    "allowance ignored": Mutant(_allowance_ignored, ("tests/integration/test_allowance.py",)),
    "poison fails its batch": Mutant(_poison_fails_its_batch, (ADAPTERS,)),
    **{name: Mutant(bug, tests) for name, (bug, tests) in PLANTED.items()},
}


def plant(name: str) -> None:
    """Plant a bug in this process; do nothing for an empty name."""
    if name:
        MUTANTS[name].plant()


def create_app() -> Flask:
    """Return the web process's app, with the bug of BRIDGE_MUTANT."""
    from app import create_app as make

    plant(os.environ.get("BRIDGE_MUTANT", ""))
    return make()


def main() -> None:
    """Run the worker process, with the bug of BRIDGE_MUTANT."""
    plant(os.environ.get("BRIDGE_MUTANT", ""))
    from tests.chaos import hooks

    hooks.install()
    from workers.worker import main as work

    work()


if __name__ == "__main__":
    main()
