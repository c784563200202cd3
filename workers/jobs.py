"""The jobs that RQ calls by name: thin, each calls one service and carries no data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache

import structlog

from app.bootstrap import process_services
from app.domain.errors import CrmError, RateLimited
from app.services.catch_up import Kind
from app.store.deliveries import connections_with_work, mend_overlooked, ripen
from app.store.engine import utcnow
from app.store.inbox import has_waiting_events
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


def sweep() -> None:
    """Wake whatever is due: a lost or flushed Redis loses nothing."""
    services = process_services()
    wake_due(lambda connection_id: services.waker.wake([connection_id]))
    with services.store.read() as session:
        held = has_waiting_events(session)
    if held:
        services.waker.confirm()
    if services.notifier.due():
        services.waker.tell()


def wake_due(wake: Callable[[int], object]) -> None:
    """Wake every connection that has something due, also what has ripened or was overlooked."""
    services = process_services()
    with services.store.write() as session:
        ripen(session, utcnow())
        mend_overlooked(session, utcnow())
    with services.store.read() as session:
        due = connections_with_work(session, utcnow())
    for connection_id in due:
        wake(connection_id)


def confirm_events() -> None:
    """Re-read from meetergo what came under a scheme without a signature, in a thread."""
    process_pool().aside("confirm", confirm_now)


def confirm_now() -> None:
    """Do that, to its end."""
    services = process_services()
    services.waker.wake(services.intake.confirm(services.read_appointment))


def send_notices() -> None:
    """Tell people what has changed with the connections."""
    process_services().notifier.send_due()


def refresh_tokens() -> None:
    """Refresh access tokens before they expire, and revoke those of ended connections."""
    services = process_services()
    for connection_id in services.tokens.due():
        try:
            services.tokens.renew_early(connection_id)
        except CrmError as error:
            log.warning("refresh_failed", connection_id=connection_id, reason=error.message)
    services.connector.revoke_due()


def reconcile() -> None:
    """Look at meetergo for bookings without a webhook, in a thread: drains need not wait for it."""
    process_pool().aside("reconcile", _reconcile)


def _reconcile() -> None:
    services, now = process_services(), utcnow()
    since = now - timedelta(days=services.settings.reconcile_back_days)
    until = now + timedelta(days=services.settings.reconcile_ahead_days)
    for source in services.intake.source_names():
        if not services.intake.source(source).api_key:
            continue
        number = services.catch_up.begin(source, Kind.RECONCILE, since, until)
        while not process_pool().stopping.is_set():
            try:
                if services.catch_up.run(number, until=process_pool().stopping.is_set):
                    break
            except RateLimited as error:
                process_pool().stopping.wait(min(error.after or MINUTE, MINUTE))
            except CrmError as error:
                # It goes on from its last page at the next time.
                log.warning("reconcile_postponed", source=source, reason=error.message)
                break
