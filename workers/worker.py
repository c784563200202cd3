"""The worker process: takes wake-ups by RQ's SimpleWorker and drains, even while Redis is away."""

from __future__ import annotations

import logging
import os
import threading

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq.serializers import JSONSerializer

from app.bootstrap import Services, process_services
from app.domain.errors import MappingError
from app.domain.faults import place_of
from app.outbound.addresses import LOOPBACK
from app.services.redis_client import connect, explain, probe
from app.services.wake import make_queue
from config.logging import start_logging
from config.observe import start_observing, stop_observing
from config.redis_url import read_redis_url
from config.settings import SettingsError
from workers.jobs import ALONE, BY_ID, look, process_pool
from workers.lookout import Lookout
from workers.redis_log import hush_outages
from workers.stop_signal import StopSignal
from workers.wakeups import WakeUpWorker

log = structlog.get_logger(__name__)
REDIS_PAUSE = 2.0
"""Seconds between tries to reach Redis while it is away."""


def main() -> None:
    """Work until SIGTERM; then finish or give back the work under way within ten seconds."""
    start_logging("worker")
    try:
        start_observing()
        services = process_services()
        services.prepare()
    except (SettingsError, MappingError) as error:
        raise SystemExit(f"The worker cannot start:\n{error}") from None
    log.info("started")
    hush_outages(services.waker.outage)
    warn_of_open_redis(services.settings.redis_url)
    stopping = StopSignal()
    lookout = Lookout(services, process_pool(), look)
    lookout.start()
    threading.Thread(target=_take_jobs, args=(services, stopping), daemon=True).start()
    stopping.wait_for_it()
    lookout.stop()
    process_pool().stop()
    stop_observing()
    logging.shutdown()
    # Do not wait for a call that hangs, to a CRM or to Redis: the leases were given back.
    os._exit(0)


def _take_jobs(services: Services, stopping: threading.Event) -> None:
    """Take jobs from RQ for as long as the process lives; while Redis is away, wait for it."""
    while not stopping.is_set():
        try:
            redis = connect(services.settings.redis_url, read_timeout=None)
            _listen(redis, services, stopping)
        except (RedisError, OSError) as error:
            services.waker.outage.note(explain(error))
        except Exception as error:
            # The outermost loop of this thread: if it ended, no wake-up would be heard.
            log.error("wake_ups_failed", place=place_of(error), exc_info=error)
        stopping.wait(REDIS_PAUSE)


def _listen(redis: Redis, services: Services, stopping: threading.Event) -> None:
    """Take jobs until Redis goes away or the process ends."""
    outage = services.waker.outage
    probe(redis)
    outage.over()

    def away(error: BaseException) -> None:
        services.database_outage.note(services.store.explain(error))

    worker = WakeUpWorker(
        [make_queue(redis)], ALONE, BY_ID, outage.over, away,
        connection=redis, serializer=JSONSerializer,
    )  # fmt: skip
    # The longest pause between two tries of RQ itself to reach Redis again.
    worker.max_connection_wait_time = 4
    worker.stopping = stopping
    worker.work(logging_level="WARNING")


def warn_of_open_redis(url: str) -> None:
    """Warn that anyone who reaches a Redis without a password can delay its wake-ups."""
    address = read_redis_url(url)
    if not LOOPBACK.issuperset(address.hosts) and not address.options.get("password"):
        log.warning("redis_has_no_password", advice="Set one, and keep Redis in a private network.")


if __name__ == "__main__":
    main()
