"""RQ's worker as this service uses it: a job is one of four names; nothing else in Redis is run.

RQ looks up a job's function, and its callbacks, by any name that Redis holds, and obeys commands
sent over pub/sub. So anyone who can write to Redis could run any code in the worker. Here a job
only says "now": a table lists the allowed jobs; all else is dropped with a line in the log.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.exceptions import DequeueTimeout, NoSuchJobError, StopRequested
from rq.job import Job
from rq.queue import Queue

from app.domain.faults import place_of
from app.store.engine import DATABASE_DOWN

log = structlog.get_logger(__name__)
MOST_BYTES = 4096
"""The most bytes of a job, packed or unpacked: it is a name and a number."""
LARGEST_ID = 2**53


class ForeignJob(Exception):
    """An entry in the queue that is no job of this service."""


class WakeUp(Job):
    """A job of which only the name and the number are read."""

    name = ""
    connection_id: int | None = None

    def refresh(self) -> None:
        """Read the job from Redis. Raises ForeignJob, and NoSuchJobError if it is gone."""
        size = self.connection.hstrlen(self.key, "data")
        if not size:
            raise NoSuchJobError(f"No such job: {self.key}")
        if size > MOST_BYTES:
            raise ForeignJob("it is larger than any job")
        self.name, self.connection_id = read_job(self.connection.hget(self.key, "data"))


def read_job(packed: object) -> tuple[str, int | None]:
    """Return the name and the number of a job as RQ packs it. Raises ForeignJob."""
    if not isinstance(packed, bytes):
        raise ForeignJob("it holds no data")
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, MOST_BYTES)
        if unpacker.unconsumed_tail:
            raise ForeignJob("it is larger than any job")
    except zlib.error:
        text = packed
    try:
        function, instance, args, kwargs = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise ForeignJob("it is not JSON") from None
    if not isinstance(function, str) or instance is not None or kwargs not in ({}, None):
        raise ForeignJob("it is more than a name and a number")
    if not args:
        return function, None
    good = isinstance(args, list) and len(args) == 1 and type(args[0]) is int
    if not good or not 0 < args[0] < LARGEST_ID:
        raise ForeignJob("its argument is no number of a connection")
    return function, args[0]


class WakeUpWorker(SimpleWorker):
    """Takes wake-ups and runs what the table says for them; it runs nothing that Redis names."""

    stopping = threading.Event()
    """Set once the process has been told to stop; its own event takes the place of this one."""

    def __init__(
        self,
        queues: list[Queue],
        alone: Mapping[str, Callable[[], None]],
        by_id: Mapping[str, Callable[[int], None]],
        beats: Callable[[], None] = lambda: None,
        away: Callable[[BaseException], None] = lambda error: None,
        **kwargs: Any,
    ) -> None:
        """`alone`: jobs without a number; `by_id`: jobs for one connection; `beats`: called after
        each heartbeat, a write by which the worker knows that Redis works; `away`: told of a
        database that cannot be used.
        """
        self._beats, self._away = beats, away
        super().__init__(queues, job_class=WakeUp, **kwargs)
        self._alone, self._by_id = alone, by_id

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Tell Redis that this worker lives."""
        super().heartbeat(timeout, pipeline)
        if pipeline is None:
            self._beats()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job if it is one of ours; it is removed from Redis first.

        A process that is about to end leaves it to another one.
        """
        if self.stopping.is_set():
            queue.push_job_id(job.id, at_front=True)
            self.connection.delete(queue.intermediate_queue_key)
            raise StopRequested
        self._forget(job.key, queue)
        if not isinstance(job, WakeUp):
            return
        try:
            self._do(job)
        except DATABASE_DOWN as error:
            # The job's work is due in the database, and is found once the database is back.
            self._away(error)
        except Exception as error:
            # RQ would print the stack, which holds a person's data, and end the worker.
            log.error("job_failed", place=place_of(error), exc_info=error)

    def _do(self, job: WakeUp) -> None:
        if job.connection_id is None and job.name in self._alone:
            self._alone[job.name]()
        elif job.connection_id is not None and job.name in self._by_id:
            self._by_id[job.name](job.connection_id)
        else:
            log.warning("foreign_job_dropped", reason="its name is not one of this service's")

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Take the next job; drop entries that cannot be read as a job, and go on to the next."""
        while True:
            try:
                taken: tuple[Job, Queue] | None = super().dequeue_job_and_maintain_ttl(
                    timeout, max_idle_time
                )
                return taken
            except (RedisError, OSError, DequeueTimeout, StopRequested):
                raise
            except Exception as error:
                # A stranger may have put anything there; it is out of the queue already.
                reason = str(error) if isinstance(error, ForeignJob) else type(error).__name__
                log.warning("foreign_job_dropped", reason=reason)
                for queue in self.queues:
                    self.connection.delete(queue.intermediate_queue_key)

    def _forget(self, key: Any, queue: Queue) -> None:
        self.connection.delete(key, queue.intermediate_queue_key)

    def _install_signal_handlers(self) -> None:
        """Leave the signals to workers.stop_signal."""

    def subscribe(self) -> None:
        """Obey no commands: RQ would stop, or end jobs, for anyone who publishes one."""

    def check_for_suspension(self, burst: bool) -> None:
        """Ignore the key in Redis that would suspend RQ's workers."""

    def run_maintenance_tasks(self) -> None:
        """Leave RQ's registries alone: cleaning them runs callbacks that a job names."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Always False, for the same reason."""
        return False
