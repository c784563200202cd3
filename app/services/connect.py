"""Connects, reconnects and disconnects CRM accounts; the adapter is handed in, never imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog
from sqlalchemy import select

from app.domain.errors import CrmError, RetryLater
from app.oauth import exchange
from app.oauth.tokens import TokenService
from app.store.deliveries import park, unpark, want_all
from app.store.engine import Store, utcnow
from app.store.models import AuditLog, ConnectionRow, ConnectionStatus
from config.providers import Provider, Providers

log = structlog.get_logger(__name__)


class Account(Protocol):
    """What of an adapter is needed to get to know a new account."""

    def whoami(self) -> str:
        """The account's own name."""

    def provision(self) -> list[str]:
        """Make the fields that are missing."""


class Connector:
    """Turns a token answer into a working connection."""

    def __init__(
        self,
        store: Store,
        tokens: TokenService,
        providers: Providers,
        account: Callable[[int], Account],
        timeout: float,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._providers = providers
        self._account = account
        self._timeout = timeout

    def connect(self, provider: Provider, token: Mapping[str, Any], actor: str) -> int:
        """Store a grant, learn whose account it is, make the fields; give the connection's id.

        The same account keeps its connection, ledger and parked work. Raises CrmError where the
        account cannot be read, ValueError where the provider names a foreign host.
        """
        fresh = self._insert(provider, token)
        try:
            label = self._account(fresh).whoami()
        except CrmError:
            self._drop(fresh)
            raise
        connection_id = self._settle(fresh, provider, token, label, actor)
        problem = None
        try:
            self._account(connection_id).provision()
        except CrmError as error:
            # Without the fields the service works, only less sheltered from doubles.
            problem = f"The booking-id field could not be made: {error.message}"
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id)
            row.last_error = problem
            unpark(session, connection_id, utcnow())
            want_all(session, row, utcnow())
        return connection_id

    def disconnect(self, connection_id: int, actor: str) -> str | None:
        """Erase a connection's tokens and revoke them; give what went wrong with the revocation."""
        now = utcnow()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            provider, refresh_token = self._providers[row.provider], self._tokens.refresh_token(row)
            row.token_box, row.expires_at = None, None
            row.status, row.status_since = ConnectionStatus.DISCONNECTED, now
            park(session, connection_id, now)
            session.add(AuditLog(actor=actor, action="disconnect", subject=row.account, at=now))
        if not refresh_token:
            return None
        try:
            exchange.revoke(provider, refresh_token, self._timeout)
        except RetryLater as error:
            return f"{error.message} Remove the app in {provider.title} by hand as well."
        return None

    def _insert(self, provider: Provider, token: Mapping[str, Any]) -> int:
        now = utcnow()
        row = ConnectionRow(
            provider=provider.name,
            account="",
            api_base=provider.api_base_for(token),
            # Not active before the account is known: no webhook makes deliveries for it.
            status=ConnectionStatus.ERROR,
            status_since=now,
            scopes=[],
            drain_fence=0,
            refresh_fence=0,
            created_at=now,
        )
        with self._store.write() as session:
            session.add(row)
            self._tokens.keep(session, row, provider, token)
            session.flush()
            return row.id

    def _drop(self, connection_id: int) -> None:
        with self._store.write() as session:
            session.delete(session.get_one(ConnectionRow, connection_id))

    def _settle(
        self, fresh: int, provider: Provider, token: Mapping[str, Any], label: str, actor: str
    ) -> int:
        """Make the new row active, or lay its grant over the row that the account has already."""
        now = utcnow()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, fresh)
            known = session.scalars(
                select(ConnectionRow).where(
                    ConnectionRow.provider == provider.name,
                    ConnectionRow.account == label,
                    ConnectionRow.id != fresh,
                )
            ).first()
            if known is not None:
                known.api_base = row.api_base
                session.delete(row)
                row = known
                self._tokens.keep(session, row, provider, token)
            row.account, row.status, row.status_since = label, ConnectionStatus.ACTIVE, now
            row.pause_until = row.last_error = None
            session.add(
                AuditLog(actor=actor, action="connect", subject=f"{provider.name} {label}", at=now)
            )
            session.flush()
            log.info("connected", provider=provider.name, connection_id=row.id)
            return row.id
