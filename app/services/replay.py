"""Processes stored webhooks again: any number of any age, behind live traffic, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select

from app.domain.errors import UnfitPayload
from app.services.intake import Intake
from app.store.engine import Store
from app.store.models import EventRow
from app.store.states import EventStatus

CHUNK = 200
"""Events between two reads of the inbox."""


@dataclass(frozen=True)
class ReplaySelection:
    """The events to replay."""

    since: datetime | None = None
    """Received at or after this time (UTC)."""
    quarantined: bool = False
    """Only those that did not fit when they came."""
    after: int = 0
    """Only those with a larger id: where an interrupted replay resumes."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """The selection as SQL conditions, of the events that still have their content."""
        return [*self._chosen(), EventRow.payload_encrypted.is_not(None)]

    def deleted(self) -> list[ColumnElement[bool]]:
        """The events that are selected, but cannot be replayed any more."""
        return [*self._chosen(), EventRow.payload_encrypted.is_(None)]

    def _chosen(self) -> list[ColumnElement[bool]]:
        wanted = [EventRow.id > self.after]
        if self.since is not None:
            wanted.append(EventRow.received_at >= self.since)
        if self.quarantined:
            wanted.append(EventRow.status == EventStatus.QUARANTINED)
        else:
            wanted.append(EventRow.status.in_((EventStatus.APPLIED, EventStatus.QUARANTINED)))
        return wanted


@dataclass
class Replayed:
    """How far a replay is."""

    done: int = 0
    unfit: int = 0
    """Events that still do not fit."""
    deleted: int = 0
    """Events whose content was deleted: they cannot be replayed any more."""
    last_id: int = 0


def count(store: Store, choice: ReplaySelection) -> int:
    """The number of selected events."""
    with store.read() as session:
        return session.scalar(select(func.count(EventRow.id)).where(*choice.conditions())) or 0


def replay(
    store: Store,
    intake: Intake,
    choice: ReplaySelection,
    wake: Callable[[list[int]], object],
    progress: Callable[[Replayed], None] = lambda _: None,
) -> Replayed:
    """Replay the selected events, oldest first; values in a CRM already are not written again."""
    told = Replayed(last_id=choice.after)
    with store.read() as session:
        query = select(func.count(EventRow.id)).where(*choice.deleted())
        told.deleted = session.scalar(query) or 0
    while True:
        with store.read() as session:
            query = select(EventRow.id).where(*choice.conditions(), EventRow.id > told.last_id)
            ids = session.scalars(query.order_by(EventRow.id).limit(CHUNK)).all()
        if not ids:
            return told
        due: set[int] = set()
        for event_id in ids:
            try:
                due.update(intake.replay(event_id, backlog=True))
                told.done += 1
            except UnfitPayload:
                told.unfit += 1
            told.last_id = event_id
        wake(sorted(due))
        progress(told)
