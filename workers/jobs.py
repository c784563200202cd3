"""The jobs that RQ calls by name: each is thin, calls one service and carries no data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache, partial

import structlog

from app.bootstrap import Services, process_services
from app.domain.errors import CrmError, RateLimited
from app.services.catch_up import WalkKind
from app.services.wake import (
    CONFIRM_JOB,
    NOTICE_JOB,
    PROCESS_JOB,
    RECONCILE_JOB,
    RETENTION_JOB,
    SYNC_JOB,
)
from app.services.watch import watch
from app.store.deliveries import connections_with_work
from app.store.delivery_marking import recover_missed, release_rechecks, release_skewed
from app.store.engine import utcnow
from workers.pool import DrainPool

log = structlog.get_logger(__name__)
AT_ONCE = 3
"""Connections that a process drains without asking whether another process is free."""
MINUTE = 60.0
"""Seconds after which meetergo's limit of calls starts anew."""


@lru_cache(maxsize=1)
def process_pool() -> DrainPool:
    """The drains of this process."""
    return DrainPool(process_services())


def sync_connection(connection_id: int) -> None:
    """Bring one CRM account up to date, in a thread, so that the next wake-up need not wait."""
    process_pool().submit(connection_id)


def look(services: Services, pool: DrainPool) -> None:
    """Start all due work; every call to the outside gets a thread of its own."""
    services.processes.beat()
    process(services, pool)
    wake_due(pool.submit, services)
    reread(services, pool)
    services.sources.warn_of_ends()
    watch(services.store, utcnow())
    pool.aside("retries", services.causes.go_on)
    if services.notifier.due():
        pool.aside("notices", services.notifier.send_due)
    for connection_id in services.tokens.due():
        pool.aside(f"refresh-{connection_id}", partial(refresh_one, connection_id, services))
    if services.connector.has_revocations():
        pool.aside("revocations", services.connector.revoke_due)


def wake_due(wake: Callable[[int], object], services: Services | None = None) -> None:
    """Wake every connection with due work, also work that became due or was overlooked."""
    services = services or process_services()
    with services.store.write() as session:
        release_rechecks(session, utcnow())
        release_skewed(session, utcnow())
        recover_missed(session, utcnow())
    with services.store.read() as session:
        due = connections_with_work(session, utcnow())
    for connection_id in due:
        wake(connection_id)


def process_webhooks() -> None:
    """Process the stored webhooks, in a thread."""
    process(process_services(), process_pool())


def process(services: Services, pool: DrainPool) -> None:
    """Start processing the stored webhooks, unless this process is at it already."""

    def wake(connections: list[int]) -> None:
        # This process begins at once with a few; any worker may take the others. While Redis is
        # away, this one takes them all.
        mine = connections[: max(0, AT_ONCE - pool.at_work())]
        others = connections[len(mine) :]
        if others and not services.waker.wake(others):
            mine = connections
        for connection_id in mine:
            pool.submit(connection_id)

    def run() -> None:
        services.processor.run(wake, pool.stopping.is_set)
        index = partial(services.search_index.run, pool.stopping.is_set)
        pool.aside("search", index, again=True)

    pool.aside("inbox", run, again=True)


def confirm_events() -> None:
    """Ask meetergo about the webhooks and bookings that wait for its answer, a thread a source."""
    reread(process_services(), process_pool())


def reread(services: Services, pool: DrainPool) -> None:
    """Start reading every source that has something waiting, each in a thread of its own."""
    for source in sorted(services.rereader.sources_with_work()):
        read = partial(services.rereader.run, source, pool.stopping.is_set)
        pool.aside(f"read-{source}", read)


def confirm_now(services: Services | None = None) -> None:
    """Do the same as `confirm_events`, but one source after the other and to the end."""
    services = services or process_services()
    for source in sorted(services.rereader.sources_with_work()):
        services.rereader.run(source)


def send_notices() -> None:
    """Notify people of what has changed with the connections, in a thread."""
    process_pool().aside("notices", process_services().notifier.send_due)


def refresh_one(connection_id: int, services: Services) -> None:
    """Refresh the access token of one connection."""
    try:
        services.tokens.renew_early(connection_id)
    except CrmError as error:
        log.warning("refresh_failed", connection_id=connection_id, reason=error.message)


def refresh_now() -> None:
    """Refresh every due token, then revoke the tokens of ended connections, one after the other."""
    services = process_services()
    for connection_id in services.tokens.due():
        refresh_one(connection_id, services)
    services.connector.revoke_due()


def reconcile() -> None:
    """Look in meetergo for bookings without a webhook, each source in a thread of its own."""
    services = process_services()
    for source in services.sources.names():
        if services.sources.rules(source).api_key:
            process_pool().aside(f"reconcile-{source}", partial(reconcile_source, source))


def reconcile_source(source: str) -> None:
    """Read one source to the end; a failure is stored as the source's state."""
    services, pool, now = process_services(), process_pool(), utcnow()
    since = now - timedelta(days=services.settings.reconcile_back_days)
    until = now + timedelta(days=services.settings.reconcile_ahead_days)
    number = services.catch_up.begin(source, WalkKind.RECONCILE, since, until)
    while not pool.stopping.is_set():
        try:
            if services.catch_up.run(number, until=pool.stopping.is_set):
                break
        except RateLimited as error:
            pool.stopping.wait(min(error.after or MINUTE, MINUTE))
        except CrmError as error:
            # The next run goes on from the last page.
            log.warning("reconcile_postponed", source=source, reason=error.message)
            break


def delete_old_data() -> None:
    """Delete people's data whose time is over, in a thread."""
    pool, retention = process_pool(), process_services().retention
    pool.aside("retention", partial(retention.run, pool.stopping.is_set))


BY_ID = {SYNC_JOB: sync_connection}
ALONE = {
    PROCESS_JOB: process_webhooks,
    CONFIRM_JOB: confirm_events,
    NOTICE_JOB: send_notices,
    RECONCILE_JOB: reconcile,
    RETENTION_JOB: delete_old_data,
}
"""Every job there is: no other job that lies in Redis is run."""
