"""The jobs that RQ calls by name: thin, each calls one service and carries no data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache, partial

import structlog

from app.bootstrap import Services, process_services
from app.domain.errors import CrmError, RateLimited
from app.services.catch_up import WalkKind
from app.services.wake import CONFIRM_JOB, NOTICE_JOB, RECONCILE_JOB, SYNC_JOB
from app.services.watch import watch
from app.store.deliveries import connections_with_work
from app.store.delivery_marking import recover_missed, release_rechecks
from app.store.engine import utcnow
from workers.pool import DrainPool

log = structlog.get_logger(__name__)
MINUTE = 60.0
"""Seconds after which meetergo's limit of calls is renewed."""


@lru_cache(maxsize=1)
def process_pool() -> DrainPool:
    """The drains of this process."""
    return DrainPool(process_services())


def sync_connection(connection_id: int) -> None:
    """Bring one CRM account up to date, in a thread: the next wake-up need not wait for it."""
    process_pool().submit(connection_id)


def look(services: Services, pool: DrainPool) -> None:
    """Hand out whatever is due; what calls somebody outside is done by threads of its own."""
    wake_due(pool.submit, services)
    reread(services, pool)
    services.sources.warn_of_ends()
    watch(services.store, utcnow())
    if services.notifier.due():
        pool.aside("notices", services.notifier.send_due)
    for connection_id in services.tokens.due():
        pool.aside(f"refresh-{connection_id}", partial(refresh_one, connection_id, services))
    if services.connector.has_revocations():
        pool.aside("revocations", services.connector.revoke_due)


def wake_due(wake: Callable[[int], object], services: Services | None = None) -> None:
    """Wake every connection that has something due, also what has ripened or was overlooked."""
    services = services or process_services()
    with services.store.write() as session:
        release_rechecks(session, utcnow())
        recover_missed(session, utcnow())
    with services.store.read() as session:
        due = connections_with_work(session, utcnow())
    for connection_id in due:
        wake(connection_id)


def confirm_events() -> None:
    """Ask meetergo for what waits for its word, each source in a thread."""
    reread(process_services(), process_pool())


def reread(services: Services, pool: DrainPool) -> None:
    """Do that, for every source of which something waits."""
    for source in sorted(services.rereader.sources_with_work()):
        read = partial(services.rereader.run, source, pool.stopping.is_set)
        pool.aside(f"read-{source}", read)


def confirm_now(services: Services | None = None) -> None:
    """The same, one source after the other, to its end."""
    services = services or process_services()
    for source in sorted(services.rereader.sources_with_work()):
        services.rereader.run(source)


def send_notices() -> None:
    """Tell people what has changed with the connections, in a thread."""
    process_pool().aside("notices", process_services().notifier.send_due)


def refresh_one(connection_id: int, services: Services) -> None:
    """Refresh the access token of one connection."""
    try:
        services.tokens.renew_early(connection_id)
    except CrmError as error:
        log.warning("refresh_failed", connection_id=connection_id, reason=error.message)


def refresh_now() -> None:
    """Refresh every token that is due, and revoke those of ended connections, one after the other."""
    services = process_services()
    for connection_id in services.tokens.due():
        refresh_one(connection_id, services)
    services.connector.revoke_due()


def reconcile() -> None:
    """Look at meetergo for bookings without a webhook, each source in a thread of its own."""
    services = process_services()
    for source in services.sources.names():
        if services.sources.rules(source).api_key:
            process_pool().aside(f"reconcile-{source}", partial(reconcile_source, source))


def reconcile_source(source: str) -> None:
    """Look at one source, to the end; what goes wrong is told as the source's state."""
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
            # It goes on from its last page at the next time.
            log.warning("reconcile_postponed", source=source, reason=error.message)
            break


BY_ID = {SYNC_JOB: sync_connection}
ALONE = {CONFIRM_JOB: confirm_events, NOTICE_JOB: send_notices, RECONCILE_JOB: reconcile}
"""Every job that there is: nothing else that lies in Redis is run."""
