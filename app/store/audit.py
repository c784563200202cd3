"""The audit log: who did what, and when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from app.store.access_models import AuditLog


def note(session: Session, actor: str, action: str, subject: str, now: datetime) -> None:
    """Note an act in the transaction in which it is done."""
    session.add(AuditLog(actor=actor, action=action, subject=subject, at=now))
