"""The worker process: RQ's SimpleWorker, whose warm process keeps sessions and directories."""

from __future__ import annotations

import time

import structlog
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from app.bootstrap import process_services
from app.domain.errors import MappingError
from config.settings import SettingsError
from workers.queue import connect, make_queue

log = structlog.get_logger(__name__)
REDIS_PAUSE = 2.0
"""Seconds between tries to reach a Redis that is away."""


def main() -> None:
    """Work until SIGTERM, which lets the job at hand end; a Redis that is away is waited for."""
    try:
        services = process_services()
        services.prepare()
    except (SettingsError, MappingError) as error:
        raise SystemExit(f"The worker cannot start:\n{error}") from None
    while True:
        try:
            redis = connect(services.settings.redis_url, read_timeout=None)
            redis.ping()
            worker = SimpleWorker([make_queue(redis)], connection=redis, serializer=JSONSerializer)
            # The longest that RQ itself waits for Redis; after that this loop takes over.
            worker.max_connection_wait_time = 4
            worker.work(logging_level="WARNING")
            return
        except (RedisError, OSError) as error:
            log.warning("redis_away", reason=type(error).__name__)
            time.sleep(REDIS_PAUSE)


if __name__ == "__main__":
    main()
