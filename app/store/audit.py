"""The audit log: who did what, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.store.access_models import AuditLog


@dataclass(frozen=True)
class AuditFilter:
    """Which acts are wanted; an empty part asks for nothing."""

    actor: str = ""
    action: str = ""
    since: datetime | None = None
    before: datetime | None = None
    """Acts at this moment are not among them."""

    @property
    def parts(self) -> tuple[ColumnElement[bool], ...]:
        """The conditions."""
        found = []
        if self.actor:
            found.append(AuditLog.actor == self.actor)
        if self.action:
            found.append(AuditLog.action == self.action)
        if self.since is not None:
            found.append(AuditLog.at >= self.since)
        if self.before is not None:
            found.append(AuditLog.at < self.before)
        return tuple(found)


def note(session: Session, actor: str, action: str, subject: str, now: datetime) -> None:
    """Add an act to the audit log, in the same transaction as the act itself."""
    session.add(AuditLog(actor=actor, action=action, subject=subject, at=now))


def newest(
    session: Session, wanted: AuditFilter, older_than: int | None, most: int
) -> Sequence[AuditLog]:
    """The acts that were noted last; `older_than`: only those noted before the one of this number."""
    query = select(AuditLog).where(*wanted.parts).order_by(AuditLog.id.desc()).limit(most)
    if older_than is not None:
        query = query.where(AuditLog.id < older_than)
    return session.scalars(query).all()


def actions(session: Session) -> list[str]:
    """Every kind of act that is in the log."""
    return sorted(session.scalars(select(AuditLog.action).distinct()))
