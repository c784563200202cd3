"""The drainer: one per connection; it makes a CRM match the newest state of the bookings."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

import structlog
from structlog.contextvars import bound_contextvars

from app.bootstrap import Services
from app.domain.errors import (
    AccountMoved,
    AccountRefused,
    AllowanceUsed,
    CrmError,
    FreshTokenRefused,
    MissingScope,
    RateLimited,
    RetryLater,
)
from app.domain.errors import Unauthorized as UnauthorizedError
from app.domain.faults import place_of
from app.outbound.tracing import span
from app.services.outage import Outage
from app.store import deliveries, delivery_marking, delivery_outcomes, leases
from app.store.connections import (
    PROBED,
    NoticeKind,
    Problem,
    connection_of,
    set_status,
    tell,
    tell_failures,
)
from app.store.engine import DATABASE_DOWN, utcnow
from app.store.leases import PROBE_WITHIN
from app.store.ledger import Ledger
from app.store.models import ConnectionRow
from app.store.states import WORKING, ConnectionStatus
from workers.accounts import Accounts, OpenAccount
from workers.batch import Batch, Stopping, write_as_holder
from workers.batch_state import Rows
from workers.lane import Lane
from workers.lease import Lease, LeaseLost, ticks
from workers.turn import Turn

log = structlog.get_logger(__name__)
FIRST_PAUSES = (2.0, 5.0)
"""Seconds until a CRM that is out of order is called again, the first times; then it is probed."""
RATE_PAUSE = 10.0
"""Seconds to wait if a CRM reports too many calls but does not say how long to wait."""
HAND_OVER = 300.0
"""Seconds after which a drain hands the worker to other connections and is queued again."""
TELL_AFTER = 3
"""Drains in a row that end by themselves without progress before people are notified."""
MOVED_PAUSE = timedelta(seconds=1)
PROBE_OFTEN = timedelta(days=1)
"""How long an account that refuses everything is tried each minute."""
STOP_GRACE = 6.0
"""Seconds that a batch may go on once the process has to end."""


class Drainer:
    """Works off the due deliveries, connection by connection; several threads may use it."""

    def __init__(
        self,
        services: Services,
        now: Callable[[], datetime] = utcnow,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_save` runs between the CRM's answer and the ledger: tests interrupt there."""
        self._services = services
        self._store = services.store
        self._now = now
        self._before_save = before_save
        self._accounts = Accounts(services, now)
        self._stopping = threading.Event()
        self._stop_at = 0.0
        self._leases: dict[int, Lease] = {}
        self._outages: defaultdict[int, Outage] = defaultdict(lambda: Outage("crm"))

    def stop(self) -> None:
        """Begin nothing new; work under way may go on for STOP_GRACE seconds."""
        self._stop_at = time.monotonic() + STOP_GRACE
        self._stopping.set()

    def abandon(self) -> None:
        """Give back the leases of drains that have not ended: the process ends now."""
        for lease in list(self._leases.values()):
            lease.give(release=True)

    def drain(self, connection_id: int) -> None:
        """Write all due deliveries to one CRM; return at once if another drainer has the lease."""
        with (
            bound_contextvars(connection_id=connection_id),
            span("drain", connection_id=connection_id),
        ):
            self._drain(connection_id)

    def _drain(self, connection_id: int) -> None:
        deadline = time.monotonic() + HAND_OVER
        while time.monotonic() < deadline and not self._stopping.is_set():
            taken = self._take(connection_id)
            if taken is None:
                return
            lease, row = taken
            self._leases[connection_id] = lease
            if not self._hold(lease, row, deadline):
                return
            # A wake-up that came meanwhile found the lease taken and did nothing: look once more.
            with self._store.read() as session:
                if not deliveries.connections_with_work(session, self._now(), connection_id):
                    return
        self._services.waker.wake([connection_id])

    def _hold(self, lease: Lease, row: ConnectionRow, deadline: float) -> bool:
        """Work while the lease is held; False if the drain ended before its work did.

        This is the outermost loop of a drain: an unforeseen error is reported, so that no booking
        waits in silence. Raises the errors that mean that the database is away.
        """
        connection_id = lease.connection_id
        try:
            with lease:
                self._drain_account(lease, row, deadline)
        except LeaseLost:
            log.warning("lease_lost", connection_id=connection_id)
            self._clear_crash(lease)
            self._count_stall(lease, "a drain lost its lease", pause=False)
        except Stopping:
            log.info("drain_stopped", connection_id=connection_id)
        except DATABASE_DOWN:
            raise
        except Exception as error:
            kind, place = type(error).__name__, place_of(error)
            log.error("drain_failed", connection_id=connection_id, place=place, exc_info=error)
            self._count_stall(lease, f"{kind} at {place}")
        else:
            return True
        finally:
            self._leases.pop(connection_id, None)
            self._accounts.release(connection_id)
        return False

    def _count_stall(self, lease: Lease, why: str, pause: bool = True) -> None:
        """Count a drain that ended by itself; notify people at the third one without progress."""
        now = self._now()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, lease.connection_id, with_for_update=True)
            row.stalls += 1
            stalls = row.stalls
            ended = delivery_outcomes.record_unforeseen(
                session, lease.connection_id, lease.fence, why, now
            )
            if ended:
                row.stalls, row.progress_at = 0, now
                tell_failures(session, row, now)
            elif pause:
                row.pause_until, row.paused_at = now + self._stall_pause(stalls), now
            reason = f"The work on this account stopped {stalls} times in a row: {why}."
            if row.problem is None and not ended:
                row.last_error = reason
            if stalls == TELL_AFTER and not ended:
                step = "Report the named place as a bug. The service tries again; nothing is lost."
                tell(session, row, NoticeKind.STALLED, now, reason, step)

    def _stall_pause(self, stalls: int) -> timedelta:
        return timedelta(seconds=min(2.0 * stalls, self._services.settings.probe_interval))

    def _take(self, connection_id: int) -> tuple[Lease, ConnectionRow] | None:
        """Become the one drainer of a connection, and take over what a dead drainer left behind.

        Return the connection as it was then; None if another drainer has it.
        """
        asked = ticks()
        with self._store.write() as session:
            fence = leases.take_lease(session, connection_id, self._now())
            if fence is None:
                return None
            aside = delivery_outcomes.take_over_orphans(session, connection_id, fence, self._now())
            row = connection_of(session, connection_id)
            if aside:
                tell_failures(session, row, self._now())
        for delivery_id in aside:
            log.error("delivery_set_aside", connection_id=connection_id, delivery_id=delivery_id)
        return Lease(self._store, connection_id, fence, asked), row

    def _clear_crash(self, lease: Lease) -> None:
        """Note that the delivery in hand killed no worker, although the lease was lost."""
        if lease.alone is not None:
            with self._store.write() as session:
                delivery_outcomes.clear_crash(session, lease.alone, lease.fence, self._now())

    def _drain_account(self, lease: Lease, row: ConnectionRow, deadline: float) -> None:
        grant = grant_of(row)
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="writes") as writer:
                lane = Lane(writer)
                try:
                    self._run(lease, row, deadline, lane)
                except Exception:
                    # The error of the write comes first: the CRM may have asked for a pause.
                    lane.end()
                    raise
        except RetryLater as error:
            self._pause(lease, error)
        except (UnauthorizedError, AccountRefused) as error:
            self._note_refusal(lease, error, grant)
        except CrmError as error:
            # The CRM refused no booking, but a question about the account itself.
            self._pause(lease, RetryLater(error.message))

    def _run(self, lease: Lease, row: ConnectionRow, deadline: float, lane: Lane) -> None:
        """Take batch after batch, while something is due and there is time for it.

        There is no look for more work after the last batch: `drain` looks once more without the
        lease. If the adapter asks ahead, a batch is asked about while the one before it is written.
        An account that refused everything is tried with one booking first.
        """
        connection_id = lease.connection_id
        turn = Turn(partial(self._live_waits, connection_id))
        if row.status not in WORKING and not self._try_broken_account(lease, lane):
            return
        while time.monotonic() < deadline and not self._stopping.is_set():
            known = self._accounts.known(connection_id)
            with self._store.read() as session:
                row = connection_of(session, connection_id)
                broken = row.outages >= deliveries.OPEN_AFTER
                limit = turn.size(known.adapter.batch_size) if known and not broken else 1
                rows = deliveries.due(session, connection_id, self._now(), limit)
            if lane.writes and (not rows or is_suspect(rows)):
                lane.end()
                continue
            if not rows:
                break
            account = self._account(row, lease)
            if known is None:
                continue  # Now the batch size of this account is known.
            if broken:
                self._probe(lease, account)
            batch = Batch(self._services, account, lease, self._now, self._before_save)
            batch.prepare(rows, lane.writes, turn)
            lane.write(batch)
            last = len(rows) < limit or is_suspect(rows)
            if not account.adapter.asks_ahead or last or batch.stopped:
                lane.end()
            if last and batch.done and not rows[0][0].inconclusive_batches:
                break
        if lane.wrote:
            lane.end()
            self._outages[connection_id].over()
        self._recheck_people(lease)

    def _live_waits(self, connection_id: int) -> bool:
        try:
            with self._store.read() as session:
                return deliveries.is_live_due(session, connection_id, self._now())
        except DATABASE_DOWN:
            return False  # The next write to the database finds that out.

    def _try_broken_account(self, lease: Lease, lane: Lane) -> bool:
        """Try an account that refused everything; True if it works again.

        Real bookings are tried. First comes the waiting booking that was tried longest ago, so that
        no single booking keeps all others out; then the one that was refused last. If no booking
        waits, only the account is read. Raises the error if the account still refuses.
        """
        connection_id = lease.connection_id
        self._accounts.forget(connection_id)
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        account = self._account(row, lease)
        for refused in (False, True):
            with self._store.read() as session:
                rows = (
                    deliveries.refused_last(session, connection_id)
                    if refused
                    else deliveries.due(session, connection_id, self._now(), 1, parked=True)
                )
            if rows:
                batch = Batch(self._services, account, lease, self._now, self._before_save)
                batch.prepare(rows)
                lane.write(batch)
                lane.end()
        with write_as_holder(self._store, lease) as session:
            row = session.get_one(ConnectionRow, lease.connection_id)
            if row.status == ConnectionStatus.ERROR:
                set_status(session, row, ConnectionStatus.ACTIVE, self._now())
        log.info("account_works_again", connection_id=lease.connection_id)
        return True

    def _recheck_people(self, lease: Lease) -> None:
        """Recheck the bookings of people who are still in doubt, once no delivery is due.

        A person is in doubt if an update of the person got no answer, and the person had left the
        booking when the booking was tried again.
        """
        with self._store.read() as session:
            ledger = Ledger(session, self._services.cipher, lease.connection_id)
            if not ledger.has_doubts() or deliveries.has_due(session, lease.connection_id):
                return
        with write_as_holder(self._store, lease) as session:
            ledger = Ledger(session, self._services.cipher, lease.connection_id)
            people = [ref.key for ref in ledger.abandoned()]
            delivery_marking.mark_people_due(
                session, self._services.cipher, lease.connection_id, people, self._now()
            )

    def _probe(self, lease: Lease, account: OpenAccount) -> None:
        """Check by one harmless call if a CRM that was out of order answers. Raises RetryLater.

        If it answers, the next failure is the fault of the one booking that is tried.
        """
        account.adapter.check(account.mapping.objects()[0])
        with write_as_holder(self._store, lease) as session:
            session.get_one(ConnectionRow, lease.connection_id).alive_at = self._now()

    def _account(self, row: ConnectionRow, lease: Lease) -> OpenAccount:
        return self._accounts.get(row, partial(self._check, lease))

    def warm(self, connection_id: int) -> OpenAccount:
        """Read an account before anything is due, without its lease."""
        with self._store.read() as session:
            row = session.get_one(ConnectionRow, connection_id)
        account = self._accounts.get(row, lambda: None)
        self._accounts.release(connection_id)
        return account

    def _check(self, lease: Lease) -> None:
        """Check, before every call to the CRM, that this drain may still make it."""
        lease.check()
        if self._stopping.is_set() and time.monotonic() > self._stop_at:
            raise Stopping

    def _pause(self, lease: Lease, error: RetryLater) -> None:
        """Pause the account for as long as the CRM asked, or longer with each outage in a row."""
        with write_as_holder(self._store, lease) as session:
            row = session.get_one(ConnectionRow, lease.connection_id)
            seconds = error.after or RATE_PAUSE
            if not isinstance(error, RateLimited):
                row.outages += 1
                seconds = error.after or self._outage_pause(row.outages)
            until = self._now() + timedelta(seconds=seconds)
            if isinstance(error, AllowanceUsed) and error.backlog:
                row.backlog_after = until
            else:
                row.pause_until, row.paused_at = until, self._now()
            if row.problem is None:
                row.last_error = error.message
        if isinstance(error, RateLimited):
            log.info("crm_asks_to_wait", code=error.code, seconds=round(seconds, 1))
        else:
            self._outages[lease.connection_id].note(error.outage)

    def _outage_pause(self, outages: int) -> float:
        if outages < deliveries.OPEN_AFTER:
            return FIRST_PAUSES[outages - 1]
        probe = self._services.settings.probe_interval
        return probe + random.uniform(0, probe / 6)  # nosec B311  # noqa: S311 - spreads probes, no secret

    def _note_refusal(self, lease: Lease, error: CrmError, grant: object) -> None:
        """Park the work of a connection whose grant or account the CRM refuses."""
        with write_as_holder(self._store, lease) as session:
            row = session.get_one(ConnectionRow, lease.connection_id)
            if isinstance(error, AccountMoved) and self._has_moved(row):
                # The account's new address is known by now, and is called next.
                row.pause_until, row.paused_at = self._now() + MOVED_PAUSE, self._now()
                return
            probed = isinstance(error, (AccountRefused, FreshTokenRefused))
            if probed:
                row.probe_at = self._now() + self._probe_after(row)
            if row.status not in WORKING and not probed:
                return  # The token service has already reported what is wrong.
            if row.status not in WORKING and row.problem not in PROBED:
                return
            if grant_of(row) != grant:
                return  # connected again meanwhile; nobody knows yet whether the new grant works
            if not probed:
                status, problem = ConnectionStatus.EXPIRED, Problem.GRANT
                by_key = row.auth == "key"
                step = (
                    "Enter a new key."
                    if by_key
                    else 'Press "Connect again" on the account\'s page.'
                )
            else:
                refused = error if isinstance(error, AccountRefused) else AccountRefused(str(error))
                status, problem = ConnectionStatus.ERROR, problem_of(refused)
                step = f"{error.advice} The service tries again by itself, each minute at first."
            set_status(session, row, status, self._now(), problem, error.message, step)
        log.warning("connection_broken", connection_id=lease.connection_id, code=error.code)

    def _has_moved(self, row: ConnectionRow) -> bool:
        called = self._accounts.api_base(row.id)
        return called is not None and called != row.api_base

    def _probe_after(self, row: ConnectionRow) -> timedelta:
        """How long to leave alone an account that refuses everything: a minute; ten after a day."""
        broken = row.status not in WORKING
        long = broken and self._now() - row.status_since > PROBE_OFTEN
        return (
            PROBE_WITHIN if long else timedelta(seconds=2 * self._services.settings.probe_interval)
        )


def grant_of(row: ConnectionRow) -> tuple[datetime, tuple[str, ...], str | None]:
    """The values that change if a connection is connected again or gets another key or scope."""
    # A token without an end changes only if a person connects again or gives another key.
    lasting = row.token_encrypted if row.expires_at is None else None
    return row.status_since, tuple(row.scopes), lasting


def problem_of(error: AccountRefused) -> Problem:
    """Return the stable code for what is wrong with an account that refuses everything."""
    if isinstance(error, MissingScope):
        return Problem.SCOPE
    return Problem.MOVED if isinstance(error, AccountMoved) else Problem.REFUSED


def is_suspect(rows: Rows) -> bool:
    """Whether a batch needs the CRM to itself, to find the booking that makes others fail."""
    return len(rows) == 1 or rows[0][0].inconclusive_batches > 0
