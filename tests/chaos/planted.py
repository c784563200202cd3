"""Planted bugs around accounts, answers, Redis, clocks and slow clients. See mutants.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ALONE = "tests/chaos/test_kinds.py"
"""The tests of each single kind of fault."""
CASE = "tests/contract/test_accounts.py::test_case"


def _drains_lose_their_lease() -> None:
    """An account is read again with the lease of a drain that ended long ago."""
    from workers.accounts import Accounts

    get = Accounts.get

    def with_old_leave(accounts: Any, row: Any, ensure_lease: Any) -> Any:
        connection_id = row.id
        known = accounts._warm.get(connection_id)
        latest = accounts._services.mappings[row.provider]
        if known and not accounts._is_fresh(connection_id, known, row, latest):
            # The new adapter's gate uses the old lease check; the drain sets its own check later.
            get(accounts, row, known.adapter.access.gate.ensure_lease)
        return get(accounts, row, ensure_lease)

    Accounts.get = with_old_leave
    Accounts.release = lambda accounts, connection_id: None


def _guard_lets_faults_out() -> None:
    """An answer without sense leaves the adapter as the KeyError that it caused."""
    from crm_adapters.guard import GuardedAdapter

    guarded = GuardedAdapter._guarded

    @contextmanager
    def open_to_some(adapter: Any) -> Iterator[None]:
        broken: list[KeyError] = []
        with guarded(adapter):
            try:
                yield
            except KeyError as error:
                broken.append(error)
        if broken:
            raise broken[0]

    GuardedAdapter._guarded = open_to_some


def _nonsense_is_an_answer() -> None:
    """A CRM that answers nonsense counts as healthy, so that it is never paused."""
    from workers import batch

    class Nobody(Exception):
        """An error that nothing raises."""

    batch.Unreadable = Nobody


def _refused_owner_stays() -> None:
    """A refused owner does not make the service read the CRM's users again."""
    from workers.delivery_ends import DeliveryEnds

    DeliveryEnds._looks_again = lambda ends, planned, problem: False


def _all_objects_are_needed() -> None:
    """The account must allow even objects that the mapping does not use."""
    from app.crm.objects import ObjectName
    from app.mapping.mapping import Mapping

    Mapping.needed = lambda mapping: frozenset(ObjectName)


def _mapping_stops_the_work() -> None:
    """An unreadable mapping file ends the drain instead of being ignored."""
    from app.services.mappings import MappingFiles

    def read(files: Any, provider: str) -> Any:
        return files.load(files.path(provider), provider)

    MappingFiles.__getitem__ = read


def _worker_waits_to_be_woken() -> None:
    """A worker does not search the database for work by itself."""
    from workers.lookout import Lookout

    Lookout._run = lambda lookout: None


def _any_function_is_a_job() -> None:
    """Any function named in Redis is run as a job."""
    from rq.utils import import_attribute

    from workers.wakeups import WakeUpWorker

    def execute(worker: Any, job: Any, queue: Any) -> None:
        given = () if job.connection_id is None else (job.connection_id,)
        import_attribute(job.name)(*given)

    WakeUpWorker.execute_job = execute


def _deadline_is_for_a_read() -> None:
    """A server that sends a byte a second is read for ever."""
    from app.outbound.deadline import Call

    Call.end = lambda call: None


def _answers_have_any_size() -> None:
    """An answer is read whole, whatever its size."""
    from app.outbound import reply, wire

    read = reply.read_body

    def all_of_it(raw: Any, most_bytes: int = 0) -> bytes:
        return read(raw, 10**12)

    reply.read_body = wire.read_body = all_of_it


def _refused_account_fails_bookings() -> None:
    """A CRM's refusal of the whole account fails the current booking."""
    from app.domain.errors import AccountRefused
    from workers import batch

    batch.STOPS_BATCH = tuple(kind for kind in batch.STOPS_BATCH if kind is not AccountRefused)


def _references_are_sent() -> None:
    """A stranger's text goes into a Salesforce graph without escaping."""
    from crm_adapters.salesforce import graph

    graph.has_reference = lambda value: False


def _old_pauses_stand() -> None:
    """A pause set before the clock went back lasts until the clock reaches that time again."""
    from sqlalchemy import or_

    from app.store import deliveries, leases
    from app.store.models import ConnectionRow
    from app.store.states import WORKING

    def may_be_tried() -> Any:
        now = leases.moment("at_now")
        over = or_(ConnectionRow.pause_until.is_(None), ConnectionRow.pause_until <= now)
        return ConnectionRow.status.in_(WORKING) & over

    leases.may_be_tried = deliveries.may_be_tried = may_be_tried


def _full_redis_refuses_webhooks() -> None:
    """Only an unreachable Redis is tolerated; a Redis that answers with an error fails webhooks."""
    from redis.exceptions import ConnectionError as Away

    from app.services import wake as queue

    queue.RedisError = Away


def _slow_clients_are_waited_for() -> None:
    """The web process's loop reads a whole request before it looks at another one."""
    from app.web.front import FrontWorker

    read = FrontWorker._read

    def wait_and_read(worker: Any, visit: Any) -> None:
        visit.wire.settimeout(3)
        try:
            while not visit.arrival.whole:
                data = visit.wire.recv(65536)
                if not data:
                    break
                visit.arrival.feed(data)
        except OSError:
            pass
        visit.wire.setblocking(False)
        read(worker, visit)

    FrontWorker._read = wait_and_read


def _backlog_is_never_cut() -> None:
    """A live booking waits until the backlog batch before it has ended."""
    from workers.turn import Turn

    Turn.check = lambda turn: None


PLANTED: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "drains lose their lease once the account is read anew": (_drains_lose_their_lease, (ALONE,)),
    "guard lets a KeyError out": (_guard_lets_faults_out, (ALONE,)),
    "nonsense counts as an answer": (_nonsense_is_an_answer, (ALONE,)),
    "refused owner is never read anew": (_refused_owner_stays, (f"{CASE}[host_has_left-hubspot]",)),
    "unused objects are needed": (_all_objects_are_needed, (f"{CASE}[unseen_cases-salesforce]",)),
    "broken mapping file stops the work": (
        _mapping_stops_the_work,
        ("tests/integration/test_mappings.py::test_a_broken_file_is_refused_loudly",),
    ),
    "worker waits to be woken": (
        _worker_waits_to_be_woken,
        ("tests/chaos/test_leases.py::test_without_redis_workers_look_themselves",),
    ),
    "any function is a job": (_any_function_is_a_job, (ALONE,)),
    "deadline is for a read": (_deadline_is_for_a_read, (ALONE,)),
    "answers have any size": (_answers_have_any_size, (ALONE,)),
    "refused account fails bookings": (
        _refused_account_fails_bookings, (f"{CASE}[api_refused_for_all-hubspot]",),
    ),
    "references are sent": (
        _references_are_sent,
        ("tests/contract/test_hostile.py::test_hostile_text_is_text"
         "[reference that is there-salesforce]",),
    ),
    "old pauses stand": (_old_pauses_stand, (ALONE,)),
    "full Redis refuses webhooks": (_full_redis_refuses_webhooks, (ALONE,)),
    "backlog is never cut": (_backlog_is_never_cut, ("tests/integration/test_turns.py",)),
    "slow clients are waited for": (_slow_clients_are_waited_for, (ALONE,)),
}  # fmt: skip
"""Name -> the bug, and tests of which at least one must fail because of it."""
