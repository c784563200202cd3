"""The connection to RQ: wake-ups that carry no data, at most one in the queue per connection."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.cron_scheduler_registry import get_registry_key
from rq.serializers import JSONSerializer

from app.services.outage import Outage
from app.services.redis_client import connect, explain
from app.services.together import Together

QUEUE = "sync"
SYNC_JOB = "workers.jobs.sync_connection"
NOTICE_JOB = "workers.jobs.send_notices"
RECONCILE_JOB = "workers.jobs.reconcile"
PROCESS_JOB = "workers.jobs.process_webhooks"
CONFIRM_JOB = "workers.jobs.confirm_events"
RETENTION_JOB = "workers.jobs.delete_old_data"
SCHEDULERS = get_registry_key()
"""RQ's set of schedulers, each with the time of its last report."""
JOB_TIMEOUT = 600
"""Seconds after which RQ ends a job; a drain hands over long before."""
COOL_DOWN = 5.0
"""Seconds without a call to Redis after it did not answer, so that webhooks are answered fast."""


def make_queue(redis: Redis) -> Queue:
    """Return the one queue, with JSON instead of pickle: a job is a name and an id."""
    return Queue(QUEUE, connection=redis, serializer=JSONSerializer, default_timeout=JOB_TIMEOUT)


class Waker:
    """Wakes workers. If Redis is away, that is no failure: the sweep finds the work later."""

    def __init__(self, redis_url: str) -> None:
        self.redis = connect(redis_url)
        self.outage = Outage("redis")
        """What this process has told of Redis."""
        self._queue = make_queue(self.redis)
        self._rest_until = 0.0
        # A wake-up is cheap, and the webhook's answer waits for it.
        self._process = Together(self._wake_processor, pause=0)

    def wake(self, connection_ids: Iterable[int]) -> bool:
        """Queue a drain for each connection; False if Redis did not accept it."""
        return self._quietly(lambda: self._wake_all(connection_ids))

    def process(self) -> bool:
        """Queue the processing of stored webhooks; False if Redis did not accept it."""
        return self._process(None)

    def _wake_processor(self, calls: Sequence[None]) -> list[bool]:
        done = self._quietly(lambda: enqueue_once(self._queue, PROCESS_JOB, "process"))
        return [done] * len(calls)

    def confirm(self) -> bool:
        """Queue the check of waiting webhooks at meetergo; False if Redis did not accept it."""
        return self._quietly(lambda: enqueue_once(self._queue, CONFIRM_JOB, "confirm"))

    def schedulers(self) -> int:
        """How many schedulers have reported within two minutes. Raises what Redis raises."""
        return int(self.redis.zcount(SCHEDULERS, time.time() - 120, "+inf"))

    def tell(self) -> bool:
        """Queue the sending of notices; False if Redis did not accept it."""
        return self._quietly(lambda: enqueue_once(self._queue, NOTICE_JOB, "notices"))

    def _wake_all(self, connection_ids: Iterable[int]) -> None:
        for connection_id in connection_ids:
            enqueue_once(self._queue, SYNC_JOB, f"sync-{connection_id}", (connection_id,))

    def _quietly(self, action: Callable[[], object]) -> bool:
        if time.monotonic() < self._rest_until:
            return False
        try:
            action()
        except (RedisError, OSError) as error:
            self._rest_until = time.monotonic() + COOL_DOWN
            self.outage.note(explain(error))
            return False
        self.outage.over()
        return True


def enqueue_once(queue: Queue, function: str, name: str, args: tuple[int, ...] = ()) -> bool:
    """Queue a job unless one of that name is queued already; False if one is.

    Only queued jobs count. A job that a worker took may be past the point at which it looks for
    work, or its worker may be dead while RQ still knows the job. Two jobs queued at the same moment
    do no harm: the lease, and in one process the pool, let only one drain run.
    """
    if any(job_id.startswith(f"{name}-") for job_id in queue.get_job_ids()):
        return False
    queue.enqueue(
        function, args=args, job_id=f"{name}-{uuid.uuid4().hex}", result_ttl=0, failure_ttl=0
    )
    return True
