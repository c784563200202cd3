"""API keys, which also sign people in: made, listed, checked and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select

from app.domain.roles import Role, role_of
from app.security.api_keys import key_hash, new_key
from app.store import audit
from app.store.access_models import ApiKey
from app.store.engine import Store, utcnow


class ApiKeys:
    """The API keys of one service; only a hash of each is stored."""

    def __init__(self, store: Store, now: Callable[[], datetime] = utcnow) -> None:
        self._store, self._now = store, now

    def create(self, name: str, actor: str, role: Role | None = None) -> str:
        """Make a key; it is shown only this once. Without a role it may do everything."""
        key, now = new_key(), self._now()
        with self._store.write() as session:
            session.add(ApiKey(name=name, key_hash=key_hash(key), created_at=now, role=role))
            subject = f"{name}: {role}" if role else name
            audit.note(session, actor, "key_create", subject, now)
        return key

    def revoke(self, name: str, actor: str) -> int:
        """End every valid key of this name; return how many there were."""
        now = self._now()
        with self._store.write() as session:
            valid = select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None))
            rows = session.scalars(valid).all()
            for row in rows:
                row.revoked_at = now
            audit.note(session, actor, "key_revoke", name, now)
        return len(rows)

    def all(self) -> list[ApiKey]:
        """Every key, including those that have ended."""
        with self._store.read() as session:
            return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))

    def role(self, key: str) -> Role | None:
        """The role of a valid key; None for any other text."""
        query = select(ApiKey.role).where(
            ApiKey.key_hash == key_hash(key), ApiKey.revoked_at.is_(None)
        )
        with self._store.read() as session:
            found = session.execute(query).first()
        return role_of(found.role, without=Role.ADMIN) if found else None
