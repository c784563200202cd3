"""Which processes are at work, and what waits in the inbox because none is."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select

from app.store.engine import Store, utcnow
from app.store.models import EventRow
from app.store.process_models import Heartbeat
from app.store.states import EventStatus
from app.store.upsert import insert_into

EVERY = 15.0
"""Seconds between two reports of a worker."""
ALIVE = timedelta(seconds=60)
"""A worker that has not reported for so long has ended, or hangs."""
KEPT = timedelta(days=1)
"""How long the last report of a worker that has ended is kept."""
LATE = timedelta(minutes=1)
"""A webhook that no worker has processed for so long is a fault: it usually takes milliseconds."""


@dataclass(frozen=True)
class Workers:
    """The workers, and the webhooks that wait for one."""

    alive: int
    last_seen: datetime | None
    """When a worker last reported; None: none did within a day."""
    stored: int
    """Webhooks that no worker has processed."""
    stored_since: datetime | None
    """When the oldest of them came."""

    def late(self, now: datetime) -> bool:
        """Whether webhooks wait for too long."""
        return self.stored_since is not None and now - self.stored_since > LATE


class Processes:
    """Workers report here; pages, `doctor`, /readyz and /metrics read it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}"
        self._started_at = utcnow()
        self._beaten = -EVERY

    def beat(self) -> None:
        """Report that this worker is at work, now and then."""
        if time.monotonic() - self._beaten < EVERY:
            return
        self._beaten, now = time.monotonic(), utcnow()
        mine = {"name": self.name, "started_at": self._started_at, "beat_at": now}
        with self._store.write() as session:
            insert = insert_into(session, Heartbeat)
            again = {"beat_at": insert.excluded.beat_at, "started_at": insert.excluded.started_at}
            upsert = insert.on_conflict_do_update(index_elements=["name"], set_=again)
            session.execute(upsert, mine)
            session.execute(delete(Heartbeat).where(Heartbeat.beat_at < now - KEPT))

    def workers(self) -> Workers:
        """The workers, and what waits for one."""
        recent = Heartbeat.beat_at >= utcnow() - ALIVE
        stored = EventRow.status == EventStatus.STORED
        oldest = select(EventRow.received_at).where(stored).order_by(EventRow.id).limit(1)
        with self._store.read() as session:
            alive = session.scalar(select(func.count()).where(recent)) or 0
            last_seen = session.scalar(select(func.max(Heartbeat.beat_at)))
            number = session.scalar(select(func.count()).where(stored)) or 0
            since = session.scalar(oldest)
        return Workers(alive, last_seen, number, since)
