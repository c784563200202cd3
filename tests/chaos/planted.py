"""Planted bugs at the edges: accounts, answers, Redis, clocks, slow clients. See mutants.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ALONE = "tests/chaos/test_kinds.py"
"""Each kind of fault by itself."""
CASE = "tests/contract/test_accounts.py::test_case"


def _drains_lose_their_lease() -> None:
    """An account that is read anew is read with the leave of a drain that ended long ago."""
    from workers.accounts import Accounts

    get = Accounts.get

    def with_old_leave(accounts: Any, row: Any, ensure_lease: Any) -> Any:
        connection_id = row.id
        known = accounts._warm.get(connection_id)
        latest = accounts._services.mappings[row.provider]
        if known and not accounts._is_fresh(connection_id, known, row, latest):
            # The gate of the new adapter asks the old one; the drain sets its own once it has it.
            get(accounts, row, known.adapter.access.gate.ensure_lease)
        return get(accounts, row, ensure_lease)

    Accounts.get = with_old_leave
    Accounts.release = lambda accounts, connection_id: None


def _guard_lets_faults_out() -> None:
    """An answer that makes no sense comes out of the adapter as whatever it broke on."""
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
    """A CRM that answers nonsense counts as one that is well, so that it is never left alone."""
    from workers import batch

    class Nobody(Exception):
        """What nothing is."""

    batch.Unreadable = Nobody


def _refused_owner_stays() -> None:
    """An owner whom the CRM refuses is no reason to look who works there."""
    from workers.delivery_ends import DeliveryEnds

    DeliveryEnds._looks_again = lambda ends, planned, problem: False


def _all_objects_are_needed() -> None:
    """What the mapping makes nothing of has to be shown by the account all the same."""
    from app.crm.objects import ObjectName
    from app.mapping.mapping import Mapping

    Mapping.needed = lambda mapping: frozenset(ObjectName)


def _mapping_stops_the_work() -> None:
    """A mapping file that cannot be read ends the drain instead of staying out of use."""
    from app.services.mappings import MappingFiles

    def read(files: Any, provider: str) -> Any:
        return files.load(files.path(provider), provider)

    MappingFiles.__getitem__ = read


def _worker_waits_to_be_woken() -> None:
    """A worker does not look into the database by itself."""
    from workers.lookout import Lookout

    Lookout._run = lambda lookout: None


def _any_function_is_a_job() -> None:
    """A job is whatever function its name in Redis says."""
    from rq.utils import import_attribute

    from workers.wakeups import WakeUpWorker

    def execute(worker: Any, job: Any, queue: Any) -> None:
        given = () if job.connection_id is None else (job.connection_id,)
        import_attribute(job.name)(*given)

    WakeUpWorker.execute_job = execute


def _deadline_is_for_a_read() -> None:
    """Who sends a byte a second is listened to for ever."""
    from app.outbound.deadline import Call

    Call.end = lambda call: None


def _answers_have_any_size() -> None:
    """What is sent is read, however much it is."""
    from app.outbound import reply, wire

    read = reply.read_body

    def all_of_it(raw: Any, most_bytes: int = 0) -> bytes:
        return read(raw, 10**12)

    reply.read_body = wire.read_body = all_of_it


def _refused_account_fails_bookings() -> None:
    """What the CRM says of the whole account is taken for its word on the booking in hand."""
    from app.domain.errors import AccountRefused
    from workers import batch

    batch.STOPS_BATCH = tuple(kind for kind in batch.STOPS_BATCH if kind is not AccountRefused)


def _references_are_sent() -> None:
    """A stranger's text goes into a graph of Salesforce as it is."""
    from crm_adapters.salesforce import graph

    graph.has_reference = lambda value: False


def _old_pauses_stand() -> None:
    """A pause that was set before the clock went back is kept until the clock is there again."""
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
    """Only a Redis that is away is no reason to fail; one that answers with an error is."""
    from redis.exceptions import ConnectionError as Away

    from app.services import wake as queue

    queue.RedisError = Away


def _slow_clients_are_waited_for() -> None:
    """The loop of the web process reads a request to its end before it looks at another one."""
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
    """A live booking waits until the batch of backlog before it has ended."""
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
"""Name -> the bug, and the tests of which at least one has to fail for it."""
