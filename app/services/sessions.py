"""Browser sessions as rows: signing out, revoking the key or long idling ends a session."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from sqlalchemy import ColumnElement, Row, Select, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from app.domain.roles import Role, role_of
from app.security.api_keys import key_hash
from app.store import audit
from app.store.access_models import ApiKey, UserRow, WebSession
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
DEMO = "demo"
"""The name of whoever the demo has signed in by itself."""


class Way(StrEnum):
    """How a session began."""

    KEY = "key"
    PASSWORD = "password"  # noqa: S105 - the name of a way
    OIDC = "oidc"
    DEMO = "demo"


@dataclass(frozen=True)
class Person:
    """The person who is signed in, and the session."""

    session_id: str
    name: str
    role: Role = Role.VIEWER
    way: Way = Way.KEY
    user_id: int | None = None
    key_id: int | None = None
    must_choose: bool = False
    """Whether the person came with a password that somebody else has seen, and has to choose one."""

    @property
    def csrf(self) -> str:
        """The token in this session's forms; the session id cannot be read from it."""
        return hmac.new(self.session_id.encode(), b"csrf", hashlib.sha256).hexdigest()

    @property
    def mark(self) -> str:
        """What names this session on a page."""
        return _hash(self.session_id)


@dataclass(frozen=True)
class OpenSession:
    """A session that has not ended."""

    mark: str
    """Names it on a page; nobody can use it as a cookie."""
    name: str
    way: Way
    started_at: datetime
    last_used_at: datetime


class Sessions:
    """The browser sessions of one service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, key: str) -> str | None:
        """Begin a session for the owner of a key; return its id, or None if the key is not valid."""
        query = select(ApiKey).where(ApiKey.key_hash == key_hash(key), ApiKey.revoked_at.is_(None))
        with self._store.write() as session:
            row = session.scalars(query).first()
            return _add(session, Way.KEY, row.name, key_id=row.id) if row else None

    def begin_for(self, user_id: int, way: Way) -> str | None:
        """Begin a session for a user who has shown who they are; None if the user is disabled."""
        with self._store.write() as session:
            row = session.get(UserRow, user_id)
            if row is None or row.disabled_at is not None:
                return None
            row.signed_in_at = utcnow()
            return _add(session, way, row.name, user_id=row.id)

    def begin_demo(self) -> str:
        """Begin a session of the demo, which is nobody's."""
        with self._store.write() as session:
            return _add(session, Way.DEMO, DEMO)

    def find(self, session_id: object) -> Person | None:
        """The person in a session that has not ended; None for any other value, of any type."""
        if not isinstance(session_id, str) or not 0 < len(session_id) <= LONGEST_ID:
            return None
        now = utcnow()
        query = _owned(now).where(WebSession.id_hash == _hash(session_id))
        with self._store.read() as session:
            found = session.execute(query).first()
        if found is None:
            return None
        if found.WebSession.seen_at < now - NOTE_EVERY:
            self._note(session_id, now)
        return _person(session_id, found)

    def end(self, session_id: str) -> None:
        """End a session; its cookie gives no access any more."""
        with self._store.write() as session:
            _end(session, WebSession.id_hash == _hash(session_id))

    def end_marked(self, mark: str, actor: str, owner: Person | None = None) -> bool:
        """End the session with a mark, of this owner alone if one is given; False: there is none."""
        mine = [_of(owner)] if owner else []
        with self._store.write() as session:
            row = session.execute(_owned(utcnow()).where(WebSession.id_hash == mark, *mine)).first()
            if row is None:
                return False
            _end(session, WebSession.id_hash == mark)
            audit.note(session, actor, "session_end", _name(row), utcnow())
        return True

    def alive(self) -> dict[int, list[WebSession]]:
        """The sessions of each key (by its id) that have not ended, newest first."""
        found: dict[int, list[WebSession]] = {}
        with self._store.read() as session:
            for row in session.execute(_owned(utcnow()).where(WebSession.key_id.is_not(None))):
                found.setdefault(row.WebSession.key_id, []).append(row.WebSession)
        return found

    def open(self, owner: Person | None = None, most: int = 200) -> list[OpenSession]:
        """The sessions that have not ended, newest first: of one person, or of everybody."""
        query = _owned(utcnow()).limit(most)
        with self._store.read() as session:
            rows = session.execute(query.where(_of(owner)) if owner else query).all()
        return [
            OpenSession(
                row.WebSession.id_hash, _name(row), Way(row.WebSession.way),
                row.WebSession.created_at, row.WebSession.seen_at,
            )
            for row in rows
        ]  # fmt: skip

    def _note(self, session_id: str, now: datetime) -> None:
        """Note that a session is in use; if the database takes no write, the session goes on."""
        try:
            with self._store.write() as session:
                meant = (WebSession.id_hash == _hash(session_id), WebSession.seen_at < now)
                session.execute(update(WebSession).where(*meant).values(seen_at=now))
        except DATABASE_DOWN as error:
            log.warning("session_use_not_noted", kind=type(error).__name__)


def end_all_of(session: Session, user_id: int, but: str | None = None) -> None:
    """End every session of a user, but the one with this mark."""
    _end(session, WebSession.user_id == user_id, WebSession.id_hash != (but or ""))


def _add(session: Session, way: Way, name: str, **owner: int) -> str:
    session_id, now = secrets.token_urlsafe(32), utcnow()
    session.execute(delete(WebSession).where(WebSession.created_at < now - KEPT))
    session.add(
        WebSession(id_hash=_hash(session_id), way=way, created_at=now, seen_at=now, **owner)
    )
    audit.note(session, name, "sign_in", way, now)
    return session_id


def _end(session: Session, *meant: ColumnElement[bool]) -> None:
    still = WebSession.ended_at.is_(None)
    session.execute(update(WebSession).where(*meant, still).values(ended_at=utcnow()))


Owned = Row[WebSession, ApiKey, UserRow]


def _owned(now: datetime) -> Select[WebSession, ApiKey, UserRow]:
    """The sessions that have not ended, with their owners, newest first."""
    owner = or_(
        and_(WebSession.key_id.is_not(None), ApiKey.revoked_at.is_(None)),
        and_(WebSession.user_id.is_not(None), UserRow.disabled_at.is_(None)),
        WebSession.way == Way.DEMO,
    )
    return (
        select(WebSession, ApiKey, UserRow)
        .outerjoin(ApiKey, WebSession.key_id == ApiKey.id)
        .outerjoin(UserRow, WebSession.user_id == UserRow.id)
        .where(owner, *_alive(now))
        .order_by(WebSession.created_at.desc(), WebSession.id_hash)
    )


def _alive(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        WebSession.ended_at.is_(None),
        WebSession.seen_at > now - IDLE,
        WebSession.created_at > now - LONGEST,
    )


def _of(owner: Person) -> ColumnElement[bool]:
    if owner.user_id is not None:
        return WebSession.user_id == owner.user_id
    if owner.key_id is not None:
        return WebSession.key_id == owner.key_id
    return WebSession.way == Way.DEMO


def _person(session_id: str, row: Owned) -> Person:
    way = Way(row.WebSession.way)
    if row.UserRow is not None:
        user: UserRow = row.UserRow
        once = user.password_ends_at is not None and way is Way.PASSWORD
        return Person(session_id, user.name, role_of(user.role), way, user.id, must_choose=once)
    if row.ApiKey is not None:
        role = role_of(row.ApiKey.role, without=Role.ADMIN)
        return Person(session_id, row.ApiKey.name, role, way, key_id=row.ApiKey.id)
    return Person(session_id, DEMO, Role.ADMIN, way)


def _name(row: Owned) -> str:
    owner = row.UserRow or row.ApiKey
    return owner.name if owner is not None else DEMO


def _hash(session_id: str) -> str:
    """What is stored of a session's id. A plain hash is enough for 256 random bits."""
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()
