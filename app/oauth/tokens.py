"""Keeps every connection's tokens: encrypted, refreshed before they expire, by one at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.domain.errors import RetryLater, Unauthorized
from app.oauth import exchange
from app.security.encryption import Cipher
from app.store.deliveries import park
from app.store.engine import Store, utcnow
from app.store.models import ConnectionRow, ConnectionStatus
from config.providers import Provider, Providers

log = structlog.get_logger(__name__)
PURPOSE = "connections.tokens"
MARGIN = timedelta(minutes=2)
"""A token is refreshed when less than this, or a tenth of its lifetime, is left."""
LEASE_SLACK = 30.0
"""Seconds that a refresh lease outlives the HTTP timeout."""
POLL = 0.1
"""Seconds between looks at another process's refresh."""


@dataclass(frozen=True)
class _State:
    """A connection's tokens as they lie in the database."""

    tokens: dict[str, Any]
    expires_at: datetime | None
    provider: str
    status: str


class TokenService:
    """Gives out access tokens that live; the only place that knows refresh tokens."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        providers: Providers,
        timeout: float,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._providers = providers
        self._timeout = timeout
        self._now = now

    def source(self, connection_id: int) -> ConnectionTokens:
        """The tokens of one connection, as an adapter wants them."""
        return ConnectionTokens(self, connection_id)

    def token(self, connection_id: int) -> str:
        """A token with life left, refreshed first where it is about to expire."""
        state = self._read(connection_id)
        if self._fresh(state):
            return str(state.tokens["access_token"])
        return self._renew(connection_id, lambda now: not self._fresh(now))

    def renewed(self, connection_id: int, refused: str) -> str:
        """Another token than the refused one."""
        return self._renew(connection_id, lambda now: now.tokens.get("access_token") == refused)

    def renew_early(self, connection_id: int) -> None:
        """Refresh a token that is still good but not for long. Raises CrmError."""
        self._renew(connection_id, lambda now: not self._fresh(now, early=2.0))

    def due(self) -> list[int]:
        """Active connections whose token is about to expire."""
        with self._store.read() as session:
            rows = session.scalars(
                select(ConnectionRow).where(ConnectionRow.status == ConnectionStatus.ACTIVE)
            ).all()
        return [row.id for row in rows if not self._fresh(self._state(row), early=2.0)]

    def keep(self, session: Session, row: ConnectionRow, provider: Provider, token: Any) -> None:
        """Merge a token answer into what is stored: an answer need not repeat everything."""
        known = self._state(row).tokens if row.token_box else {}
        merged = {**known, **{k: v for k, v in token.items() if v not in (None, "", [])}}
        lifetime = int(merged.pop("expires_in", 0) or provider.default_lifetime)
        merged.pop("expires_at", None)
        merged["lifetime"] = lifetime
        row.token_box = self._cipher.encrypt(json.dumps(merged), PURPOSE)
        row.expires_at = self._now() + timedelta(seconds=lifetime)
        row.scopes = merged.get("scope") or []

    def refresh_token(self, row: ConnectionRow) -> str:
        """The refresh token, to be revoked."""
        return str(self._state(row).tokens.get("refresh_token", ""))

    def _read(self, connection_id: int) -> _State:
        with self._store.read() as session:
            state = self._state(session.get_one(ConnectionRow, connection_id))
        if state.status in (ConnectionStatus.EXPIRED, ConnectionStatus.DISCONNECTED):
            raise Unauthorized("The connection has no valid grant.")
        return state

    def _state(self, row: ConnectionRow) -> _State:
        tokens = json.loads(self._cipher.decrypt(row.token_box, PURPOSE)) if row.token_box else {}
        return _State(tokens, row.expires_at, row.provider, row.status)

    def _fresh(self, state: _State, early: float = 1.0) -> bool:
        if state.expires_at is None or "access_token" not in state.tokens:
            return False
        lifetime = state.tokens.get("lifetime", 1800)
        # A token that lives shorter than twice the margin would never count as fresh.
        margin = min(max(MARGIN.total_seconds(), lifetime * 0.1), lifetime * 0.4) * early
        return state.expires_at - self._now() > timedelta(seconds=margin)

    def _renew(self, connection_id: int, needed: Callable[[_State], bool]) -> str:
        """Refresh unless somebody else has; wait for a refresh that is under way elsewhere."""
        deadline = time.monotonic() + self._timeout + LEASE_SLACK
        while True:
            state = self._read(connection_id)
            if not needed(state):
                return str(state.tokens["access_token"])
            fence = self._take_lease(connection_id)
            if fence is not None:
                return self._refresh(connection_id, fence)
            if time.monotonic() > deadline:
                raise RetryLater("Another process's token refresh does not end.")
            time.sleep(POLL)

    def _take_lease(self, connection_id: int) -> int | None:
        now = self._now()
        until = now + timedelta(seconds=self._timeout + LEASE_SLACK)
        with self._store.write() as session:
            taken = session.execute(
                update(ConnectionRow)
                .where(
                    ConnectionRow.id == connection_id,
                    or_(ConnectionRow.refresh_until.is_(None), ConnectionRow.refresh_until < now),
                )
                .values(refresh_fence=ConnectionRow.refresh_fence + 1, refresh_until=until)
                .returning(ConnectionRow.refresh_fence)
            )
            fence: int | None = taken.scalar()
        return fence

    def _refresh(self, connection_id: int, fence: int) -> str:
        """Call the provider without holding the database; store what it gave before it is used."""
        state = self._read(connection_id)
        provider = self._providers[state.provider]
        try:
            token = exchange.refresh(
                provider, str(state.tokens.get("refresh_token", "")), self._timeout
            )
        except Unauthorized as error:
            self._expire(connection_id, fence, error.message)
            raise
        except exchange.SetupError as error:
            self._release(connection_id, fence)
            raise RetryLater(str(error)) from None
        except RetryLater:
            self._release(connection_id, fence)
            if state.expires_at and state.expires_at > self._now():
                return str(state.tokens["access_token"])
            raise
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.refresh_fence == fence:
                self.keep(session, row, provider, token)
                row.refresh_until = None
        log.info("token_refreshed", connection_id=connection_id, provider=provider.name)
        return str(token["access_token"])

    def _release(self, connection_id: int, fence: int) -> None:
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.refresh_fence == fence:
                row.refresh_until = None

    def _expire(self, connection_id: int, fence: int, reason: str) -> None:
        now = self._now()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.refresh_fence != fence:
                return
            row.refresh_until = None
            row.status, row.status_since = ConnectionStatus.EXPIRED, now
            row.last_error = f"{reason} Connect it again on the connections page."
            park(session, connection_id, now)
        log.warning("connection_expired", connection_id=connection_id)


class ConnectionTokens:
    """The token source of one connection."""

    def __init__(self, service: TokenService, connection_id: int) -> None:
        self._service = service
        self._connection_id = connection_id

    def token(self) -> str:
        """A token that lives a while longer."""
        return self._service.token(self._connection_id)

    def renewed(self, refused: str) -> str:
        """Another token than the one that the CRM just refused."""
        return self._service.renewed(self._connection_id, refused)
