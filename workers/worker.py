"""The worker process: takes wake-ups by RQ's SimpleWorker and drains, even while Redis is away."""

from __future__ import annotations

import logging
import os
import threading
from urllib.parse import urlsplit

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq.serializers import JSONSerializer

from app.bootstrap import Services, process_services
from app.domain.errors import MappingError
from app.domain.faults import place_of
from app.services.wake import connect, make_queue
from config.settings import SettingsError, is_loopback
from workers.jobs import ALONE, BY_ID, look, process_pool
from workers.lookout import Lookout
from workers.stop_signal import stop_signal
from workers.wakeups import WakeUpWorker

log = structlog.get_logger(__name__)
REDIS_PAUSE = 2.0
"""Seconds between tries to reach Redis while it is away."""


def main() -> None:
    """Work until SIGTERM; then finish or give back the work under way within ten seconds."""
    try:
        services = process_services()
        services.prepare()
    except (SettingsError, MappingError) as error:
        raise SystemExit(f"The worker cannot start:\n{error}") from None
    hush_outages()
    warn_of_open_redis(services.settings.redis_url)
    stopping = stop_signal()
    lookout = Lookout(services, process_pool(), look)
    lookout.start()
    threading.Thread(target=_take_jobs, args=(services, stopping), daemon=True).start()
    stopping.wait()
    lookout.stop()
    process_pool().stop()
    logging.shutdown()
    # Do not wait for a call that hangs, to a CRM or to Redis: the leases were given back.
    os._exit(0)


def hush_outages() -> None:
    """Keep RQ from printing a stack when Redis is away: the line `redis_away` reports that."""

    def tells(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], RedisError))

    logging.getLogger("rq.worker").addFilter(tells)


def _take_jobs(services: Services, stopping: threading.Event) -> None:
    """Take jobs from RQ for as long as the process lives; while Redis is away, wait for it."""
    while not stopping.is_set():
        try:
            _listen(connect(services.settings.redis_url, read_timeout=None))
        except (RedisError, OSError) as error:
            log.warning("redis_away", reason=type(error).__name__)
        except Exception as error:
            # The outermost loop of this thread: if it ended, no wake-up would be heard.
            log.error("wake_ups_failed", kind=type(error).__name__, place=place_of(error))
        stopping.wait(REDIS_PAUSE)


def _listen(redis: Redis) -> None:
    """Take jobs until Redis goes away."""
    redis.ping()
    worker = WakeUpWorker(
        [make_queue(redis)], ALONE, BY_ID, connection=redis, serializer=JSONSerializer
    )
    # The longest that RQ itself waits for Redis; after that the caller takes over.
    worker.max_connection_wait_time = 4
    worker.work(logging_level="WARNING")


def warn_of_open_redis(url: str) -> None:
    """Warn that anyone who reaches a Redis without a password can delay its wake-ups."""
    parts = urlsplit(url)
    if parts.hostname and not is_loopback(url) and not parts.password:
        log.warning("redis_has_no_password", advice="Set one, and keep Redis in a private network.")


if __name__ == "__main__":
    main()
