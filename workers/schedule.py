"""The scheduler process: RQ's CronScheduler with unique JSON jobs; it survives Redis outages.

It names jobs and knows nothing of what they do. Each worker looks for due work by itself, so only
work that must not run in two workers at once is scheduled here.
"""

from __future__ import annotations

import threading

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq.cron import CronJob, CronScheduler

from app.domain.faults import place_of
from app.services.outage import Outage
from app.services.redis_client import connect, explain, probe
from app.services.wake import QUEUE, RECONCILE_JOB, RETENTION_JOB, enqueue_once, make_queue
from config.logging import configure_logging, start_logging
from config.observe import start_observing
from config.settings import Settings, SettingsError, load_settings
from workers.stop_signal import StopSignal

log = structlog.get_logger(__name__)
RETENTION_INTERVAL = 3600
"""Seconds between two looks for data whose time is over."""
REDIS_PAUSE = 2.0
"""Seconds between tries to reach Redis while it is away."""


class UniqueCronJob(CronJob):
    """A scheduled job that is queued only once, however long the workers are away."""

    def enqueue(self, connection: Redis) -> object:  # type: ignore[override]  # nobody reads it
        """Queue the job unless it is queued already; RQ's own would use pickle and pile up."""
        name = self.func_name.rpartition(".")[2]
        return enqueue_once(make_queue(connection), self.func_name, f"cron-{name}")


class Scheduler(CronScheduler):
    """RQ's scheduler, which runs in a thread here."""

    def _install_signal_handlers(self) -> None:
        """Leave the signals to workers.stop_signal."""


def build_scheduler(
    redis: Redis, reconcile_interval: int, retention_interval: int = RETENTION_INTERVAL
) -> CronScheduler:
    """Return the scheduler with its jobs; intervals in seconds, 0 to leave a job out."""
    scheduler = Scheduler(connection=redis, logging_level="WARNING")
    intervals = {RECONCILE_JOB: reconcile_interval, RETENTION_JOB: retention_interval}
    for name, interval in intervals.items():
        if interval:
            scheduler.get_jobs().append(UniqueCronJob(QUEUE, func_name=name, interval=interval))
    return scheduler


def main() -> None:
    """Run until SIGTERM; while Redis is away, wait for it."""
    start_logging("scheduler")
    try:
        start_observing()
        settings = load_settings()
    except SettingsError as error:
        raise SystemExit(f"The scheduler cannot start:\n{error}") from None
    configure_logging(settings.log_level)
    log.info("started")
    stopping = StopSignal()
    threading.Thread(target=_schedule, args=(settings, stopping), daemon=True).start()
    stopping.wait_for_it()


def _schedule(settings: Settings, stopping: threading.Event) -> None:
    """Queue the jobs when they are due, for as long as the process lives."""
    redis, outage = connect(settings.redis_url), Outage("redis")
    while not stopping.is_set():
        try:
            probe(redis)
            outage.over()
            build_scheduler(redis, settings.reconcile_interval).start()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            outage.note(explain(error))
        except Exception as error:
            # The outermost loop of this thread: if it ended, nothing would be scheduled any more.
            log.error("schedule_failed", place=place_of(error), exc_info=error)
        stopping.wait(REDIS_PAUSE)


if __name__ == "__main__":
    main()
