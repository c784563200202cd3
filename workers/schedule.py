"""The scheduler process: RQ's CronScheduler with unique JSON jobs, alive through Redis outages."""

from __future__ import annotations

import time

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq.cron import CronJob, CronScheduler

from config.logging import configure_logging
from config.settings import load_settings
from workers import jobs
from workers.queue import QUEUE, connect, enqueue_once, make_queue

log = structlog.get_logger(__name__)
REDIS_PAUSE = 2.0
"""Seconds between tries to reach a Redis that is away."""


class UniqueCronJob(CronJob):
    """A scheduled job that is queued once, however long the workers are away."""

    def enqueue(self, connection: Redis) -> object:  # type: ignore[override]  # nobody reads it
        """Queue the job unless it waits already; RQ's own would use pickle and pile up."""
        name = self.func_name.rpartition(".")[2]
        return enqueue_once(make_queue(connection), self.func_name, f"cron-{name}")


def build_scheduler(
    redis: Redis, sweep_interval: int, reconcile_interval: int = 0
) -> CronScheduler:
    """The scheduler with all its jobs; intervals in seconds, 0 for not at all."""
    scheduler = CronScheduler(connection=redis)
    every = [(jobs.sweep, sweep_interval)]
    every += [(jobs.reconcile, reconcile_interval)] if reconcile_interval else []
    for function, interval in every:
        scheduler.get_jobs().append(
            UniqueCronJob(queue_name=QUEUE, func=function, interval=interval)
        )
    return scheduler


def main() -> None:
    """Run until SIGTERM; a Redis that is away is waited for."""
    settings = load_settings()
    configure_logging(settings.log_level)
    redis = connect(settings.redis_url)
    while True:
        try:
            redis.ping()
            scheduler = build_scheduler(redis, settings.sweep_interval, settings.reconcile_interval)
            scheduler.start()  # type: ignore[no-untyped-call]
            return
        except (RedisError, OSError) as error:
            log.warning("redis_away", reason=type(error).__name__)
            time.sleep(REDIS_PAUSE)


if __name__ == "__main__":
    main()
