"""The audit log: who did what, and when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from app.store.access_models import AuditLog


def note(session: Session, actor: str, action: str, subject: str, now: datetime) -> None:
    """Add an act to the audit log, in the same transaction as the act itself."""
    session.add(AuditLog(actor=actor, action=action, subject=subject, at=now))
