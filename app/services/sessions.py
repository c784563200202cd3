"""Browser sessions as rows: signing out, revoking the key or long idling ends a session."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, delete, select, update

from app.security.api_keys import key_hash
from app.store.access_models import ApiKey, WebSession
from app.store.engine import DATABASE_DOWN, Store, utcnow

log = structlog.get_logger(__name__)
IDLE = timedelta(hours=2)
"""A session that was not used for this long has ended."""
LONGEST = timedelta(hours=12)
"""The longest that a session lasts, however much it is used."""
KEPT = timedelta(days=30)
"""How long a session's row is kept."""
NOTE_EVERY = timedelta(minutes=1)
"""The least time between two notes that a session is in use."""
LONGEST_ID = 100


@dataclass(frozen=True)
class Person:
    """The person who is signed in, and the session."""

    session_id: str
    name: str

    @property
    def csrf(self) -> str:
        """The token in this session's forms; the session id cannot be read from it."""
        return hmac.new(self.session_id.encode(), b"csrf", hashlib.sha256).hexdigest()


class Sessions:
    """The browser sessions of one service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, key: str) -> str | None:
        """Begin a session for the owner of a key; return its id, or None if the key is not valid."""
        query = select(ApiKey.id).where(
            ApiKey.key_hash == key_hash(key), ApiKey.revoked_at.is_(None)
        )
        session_id, now = secrets.token_urlsafe(32), utcnow()
        with self._store.write() as session:
            key_id = session.scalar(query)
            if key_id is None:
                return None
            session.execute(delete(WebSession).where(WebSession.created_at < now - KEPT))
            session.add(
                WebSession(id_hash=_hash(session_id), key_id=key_id, created_at=now, seen_at=now)
            )
        return session_id

    def find(self, session_id: object) -> Person | None:
        """The person in a session that has not ended; None for any other value, of any type."""
        if not isinstance(session_id, str) or not 0 < len(session_id) <= LONGEST_ID:
            return None
        now = utcnow()
        query = (
            select(ApiKey.name, WebSession.seen_at)
            .join(WebSession, WebSession.key_id == ApiKey.id)
            .where(WebSession.id_hash == _hash(session_id), *_alive(now))
        )
        with self._store.read() as session:
            found = session.execute(query).first()
        if found is None:
            return None
        if found.seen_at < now - NOTE_EVERY:
            self._note(session_id, now)
        return Person(session_id, found.name)

    def end(self, session_id: str) -> None:
        """End a session; its cookie gives no access any more."""
        with self._store.write() as session:
            meant = (WebSession.id_hash == _hash(session_id), WebSession.ended_at.is_(None))
            session.execute(update(WebSession).where(*meant).values(ended_at=utcnow()))

    def alive(self) -> dict[int, list[WebSession]]:
        """The sessions of each key (by its id) that have not ended, newest first."""
        query = (
            select(WebSession)
            .join(ApiKey, WebSession.key_id == ApiKey.id)
            .where(*_alive(utcnow()))
            .order_by(WebSession.created_at.desc())
        )
        found: dict[int, list[WebSession]] = {}
        with self._store.read() as session:
            for row in session.scalars(query):
                found.setdefault(row.key_id, []).append(row)
        return found

    def _note(self, session_id: str, now: datetime) -> None:
        """Note that a session is in use; if the database takes no write, the session goes on."""
        try:
            with self._store.write() as session:
                meant = (WebSession.id_hash == _hash(session_id), WebSession.seen_at < now)
                session.execute(update(WebSession).where(*meant).values(seen_at=now))
        except DATABASE_DOWN as error:
            log.warning("session_use_not_noted", kind=type(error).__name__)


def _alive(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        ApiKey.revoked_at.is_(None),
        WebSession.ended_at.is_(None),
        WebSession.seen_at > now - IDLE,
        WebSession.created_at > now - LONGEST,
    )


def _hash(session_id: str) -> str:
    """What is stored of a session's id. A plain hash is enough for 256 random bits."""
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()
