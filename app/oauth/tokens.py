"""Keeps every connection's tokens: encrypted, and refreshed in time by one process at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, or_, select, update
from sqlalchemy.orm import Session

from app.domain.errors import RetryLater, Unauthorized
from app.oauth import exchange
from app.oauth.grants import EARLY, SPARE, Grant, back_off, lifetime_of, refresh_spread
from app.security.encryption import Cipher
from app.store import totals
from app.store.access_models import Revocation
from app.store.boxes import seal, unseal
from app.store.connections import Problem, set_status, tokens_of
from app.store.engine import Store, utcnow
from app.store.leases import SKEW
from app.store.models import ConnectionRow
from app.store.states import WORKING, ConnectionStatus
from app.store.totals import TotalKind
from config.providers import Provider, Providers

log = structlog.get_logger(__name__)


LEASE_SLACK = 30.0
"""Seconds by which a refresh lease outlasts the HTTP timeout."""


POLL = (0.05, 0.5)
"""Seconds between two looks at another process's refresh: first wait, longest wait."""


RECONNECT = 'Press "Connect again" on the account\'s page; the waiting bookings are then synced.'
ALARM_AFTER = timedelta(minutes=15)
"""A token endpoint that has failed for this long makes a connection `expiring`."""


class TokenService:
    """Gives out valid access tokens; the only code that knows refresh tokens."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        providers: Providers,
        timeout: float,
        now: Callable[[], datetime] = utcnow,
        at: Callable[[str], None] = lambda step: None,
    ) -> None:
        """`timeout`: seconds for a token endpoint. `at` is called at each step: tests interrupt there."""
        self._store = store
        self._cipher = cipher
        self._providers = providers
        self._timeout = timeout
        self._now = now
        self._at = at

    def source(self, connection_id: int, account_id: str) -> ConnectionTokens:
        """The tokens of one connection for its adapter, as long as it is for that account."""
        return ConnectionTokens(self, connection_id, account_id)

    def token(self, connection_id: int, account_id: str = "") -> str:
        """Return a token with life left, refreshed first if it is about to expire.

        Raises Unauthorized if the grant is dead. Raises RetryLater if it cannot be refreshed now,
        or if the connection is by now for another account than `account_id`.
        """
        grant = self._read(connection_id)
        if not grant.fresh(self._now()):
            grant = self._renew(connection_id, lambda held: not held.fresh(self._now()), spare=True)
        return grant.token_for(account_id)

    def renewed(self, connection_id: int, refused: str, account_id: str = "") -> str:
        """Return another token than the refused one. Raises Unauthorized or RetryLater."""
        grant = self._renew(connection_id, lambda held: held.access_token == refused, spare=False)
        return grant.token_for(account_id)

    def look_for_address(self, connection_id: int, token: str) -> None:
        """Get a new token answer, since the account may have another address by now.

        For a key there is none: its address is that of the provider. Raises CrmError.
        """
        if not self._read(connection_id).lasting:
            self.renewed(connection_id, token)

    def renew_now(self, connection_id: int) -> None:
        """Get another token, to see that the grant lives; one that has no end stays. Raises CrmError."""
        if not self._read(connection_id).lasting:
            self.renewed(connection_id, self.token(connection_id))

    def renew_early(self, connection_id: int) -> None:
        """Refresh a token that is still good, but not for long. Raises CrmError."""
        self._renew(connection_id, lambda held: not held.fresh(self._now(), EARLY), spare=True)

    def due(self) -> list[int]:
        """Connections whose token is to be refreshed before it expires.

        This includes connections whose fault needs no reconnect: they come back by themselves.
        """
        alive = (*WORKING, ConnectionStatus.ERROR)
        with self._store.read() as session:
            rows = session.scalars(select(ConnectionRow).where(ConnectionRow.status.in_(alive)))
            held = [(row.id, self._grant(row)) for row in rows.all() if row.token_encrypted]
        now = self._now()
        return [
            number
            for number, grant in held
            if not grant.fresh(now, refresh_spread(number, grant)) and grant.left_alone(now) is None
        ]

    def keep(self, row: ConnectionRow, provider: Provider, answer: Any) -> None:
        """Merge a token answer into the stored tokens: an answer need not repeat everything."""
        held = self._grant(row).tokens if row.token_encrypted else {}
        merged = {**held, **{k: v for k, v in answer.items() if v not in (None, "", [])}}
        merged.pop("expires_at", None)
        lifetime = lifetime_of(merged.pop("expires_in", None)) or lifetime_of(
            merged.get("lifetime")
        )
        merged["lifetime"] = lifetime or provider.default_lifetime
        row.token_encrypted = self._box(row, merged)
        lasts = self._lasts(provider.name, merged)
        row.expires_at = None if lasts else self._now() + timedelta(seconds=merged["lifetime"])
        row.scopes = merged.get("scope") or []
        row.auth = "oauth"
        self._follow(row, provider, answer)
        _settle(row)

    def _follow(self, row: ConnectionRow, provider: Provider, answer: Any) -> None:
        """Use the API host that the newest answer names, if it is one of the provider's own."""
        if not row.api_base or not answer.get(provider.api_base_from or ""):
            return
        try:
            base = provider.api_base_for(answer)
        except ValueError:
            log.error("foreign_host_named", connection_id=row.id, provider=provider.name)
            return
        if base != row.api_base:
            log.warning("account_moved", connection_id=row.id, provider=provider.name)
            row.api_base = base

    def replace(self, row: ConnectionRow, provider: Provider, answer: Any) -> None:
        """Store the grant of a new consent; a refresh of the old grant under way becomes void."""
        row.token_encrypted = None
        row.refresh_fence += 1
        row.refresh_until = None
        self.keep(row, provider, answer)

    def keep_key(self, row: ConnectionRow, key: str) -> None:
        """Store a key that a person made by hand; it is never refreshed."""
        row.token_encrypted = self._box(row, {"access_token": key})
        row.expires_at, row.scopes, row.auth = None, [], "key"
        row.refresh_fence += 1
        row.refresh_until = None
        _settle(row)

    def erase(self, session: Session, row: ConnectionRow) -> None:
        """Erase a connection's tokens, and leave its grant to be revoked."""
        # A key was made by hand, and only the person who made it can end it.
        tokens = {} if row.auth == "key" else self._grant(row).tokens
        row.token_encrypted, row.expires_at, row.scopes = None, None, []
        row.refresh_fence += 1
        row.refresh_until = None
        _settle(row)
        self.revoke_later(session, row, tokens)

    def revoke_later(self, session: Session, row: ConnectionRow, tokens: Mapping[str, Any]) -> None:
        """Leave a grant to be revoked by its refresh token, or by the only token that it has."""
        token = str(tokens.get("refresh_token") or "")
        if self._lasts(row.provider, tokens):
            token = str(tokens.get("access_token") or "")
        if token and self._providers[row.provider].revoke_url:
            entry = Revocation(
                connection_id=row.id,
                login_host=row.login_host,
                tries=0,
                next_try_at=self._now(),
                created_at=self._now(),
            )
            entry.token_encrypted = seal(self._cipher, Revocation.token_encrypted, entry, token)
            session.add(entry)

    def _box(self, row: ConnectionRow, tokens: Mapping[str, Any]) -> str:
        return seal(self._cipher, ConnectionRow.token_encrypted, row, json.dumps(tokens))

    def _read(self, connection_id: int) -> Grant:
        with self._store.read() as session:
            row = tokens_of(session, connection_id)
        if row.status == ConnectionStatus.EXPIRED or not row.token_encrypted:
            raise Unauthorized("The connection has no valid grant.")
        return self._grant(row)

    def _grant(self, row: ConnectionRow | Row[Any]) -> Grant:
        tokens = (
            json.loads(unseal(self._cipher, ConnectionRow.token_encrypted, row))
            if row.token_encrypted
            else {}
        )
        return Grant(
            tokens,
            row.expires_at,
            row.provider,
            row.login_host,
            row.auth == "key" or self._lasts(row.provider, tokens),
            row.refresh_retry_at,
            row.last_error,
            row.account_id,
            row.refresh_failing_since,
        )

    def _lasts(self, provider: str, tokens: Mapping[str, Any]) -> bool:
        known = self._providers.get(provider)
        return bool(known and known.tokens_last and not tokens.get("refresh_token"))

    def _renew(self, connection_id: int, needed: Callable[[Grant], bool], spare: bool) -> Grant:
        """Refresh unless another process has; wait for a refresh that another one has under way.

        `spare`: the present token may be used as long as it lives.
        """
        deadline = time.monotonic() + self._timeout + LEASE_SLACK
        pause = POLL[0]
        while time.monotonic() < deadline:
            grant = self._read(connection_id)
            if not needed(grant):
                return grant
            if grant.lasting:
                raise Unauthorized("The CRM no longer accepts the key, or the access that it gave.")
            usable = spare and grant.outlives(self._now() + SPARE)
            if until := grant.left_alone(self._now()):
                if spare and grant.outlives(self._now()):
                    return grant
                wait = (until - self._now()).total_seconds()
                raise RetryLater(grant.reason or "The token endpoint is not called for now.", wait)
            fence = self._take_lease(connection_id, needed)
            if fence is not None:
                if self._refresh(connection_id, fence, spare):
                    # However short the new token lives: asking again would not make it live longer.
                    return self._read(connection_id)
                continue
            if usable:
                return grant
            time.sleep(pause)
            pause = min(pause * 1.5, POLL[1])
        raise RetryLater("Another process is still refreshing the token.")

    def _take_lease(self, connection_id: int, needed: Callable[[Grant], bool]) -> int | None:
        """Become the process that refreshes; None if another one is, or has just finished."""
        now = self._now()
        until = now + timedelta(seconds=self._timeout + LEASE_SLACK)
        with self._store.write() as session:
            taken = session.execute(
                update(ConnectionRow)
                .where(
                    ConnectionRow.id == connection_id,
                    # A lease that ends further ahead than clock differences explain was taken
                    # before a clock was set back. A lease of another machine is waited for: two
                    # refreshes end a grant.
                    or_(
                        ConnectionRow.refresh_until.is_(None),
                        ConnectionRow.refresh_until < now,
                        ConnectionRow.refresh_until > until + SKEW,
                    ),
                )
                .values(refresh_fence=ConnectionRow.refresh_fence + 1, refresh_until=until)
                .returning(ConnectionRow.refresh_fence)
            )
            fence: int | None = taken.scalar()
            row = session.get_one(ConnectionRow, connection_id)
            if fence is not None and not needed(self._grant(row)):
                row.refresh_until = None
                fence = None
        self._at("leased")
        return fence

    def _refresh(self, connection_id: int, fence: int, spare: bool) -> bool:
        """Call the provider outside of any transaction; store its answer before it is used.

        False if nothing was stored; the stored state then says what to do next.
        """
        grant = self._mark_sent(connection_id, fence)
        if grant is None:
            return False
        provider = self._providers[grant.provider].at(grant.login_host)
        sent = str(grant.tokens.get("refresh_token", ""))
        self._at("marked")
        try:
            answer = exchange.refresh(provider, sent, self._timeout)
        except Unauthorized as error:
            self._refused(connection_id, fence, sent, error.message)
            return False
        except (exchange.SetupError, RetryLater) as error:
            self._postpone(connection_id, fence, error)
            if not (spare and grant.outlives(self._now())):
                after = error.after if isinstance(error, RetryLater) else None
                raise RetryLater(str(error), after) from None
            return False
        self._at("answered")
        self._store_answer(connection_id, fence, sent, provider, answer)
        self._at("stored")
        return True

    def _mark_sent(self, connection_id: int, fence: int) -> Grant | None:
        """Note that a refresh is about to be sent: if its answer is never stored, it is in doubt."""
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.refresh_fence != fence or not row.token_encrypted:
                return None
            row.refresh_sent_at = row.refresh_sent_at or self._now()
            return self._grant(row)

    def _store_answer(
        self, connection_id: int, fence: int, sent: str, provider: Provider, answer: exchange.Token
    ) -> None:
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.status == ConnectionStatus.DISCONNECTED or not row.token_encrypted:
                # Disconnected meanwhile: the new tokens must not stay valid.
                self.revoke_later(session, row, answer)
                return
            mine = row.refresh_fence == fence
            if not mine and self._grant(row).tokens.get("refresh_token") != sent:
                return  # another process or a reconnect has stored something newer
            if row.refresh_failures:
                # The drain was paused for as long as the token endpoint was to be left alone.
                row.pause_until = None
            self.keep(row, provider, answer)
            totals.add_one(session, row.id, TotalKind.REFRESHES, "ok")
            if mine:
                row.refresh_until = None
            # This also repairs a grant that was declared dead because its answer came late.
            mended = (Problem.SETUP, Problem.GRANT)
            if row.status == ConnectionStatus.EXPIRING or row.problem in mended:
                set_status(session, row, ConnectionStatus.ACTIVE, self._now())
        log.info("token_refreshed", connection_id=connection_id, provider=provider.name)

    def _refused(self, connection_id: int, fence: int, sent: str, reason: str) -> None:
        """Look at the stored tokens before a grant counts as dead: another process may have renewed."""
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.refresh_fence != fence:
                return
            row.refresh_until = None
            if not row.token_encrypted or self._grant(row).tokens.get("refresh_token") != sent:
                return
            lost = row.refresh_sent_at
            if lost and self._now() - lost > timedelta(seconds=self._timeout):
                reason += (
                    f" An earlier answer, of {lost:%Y-%m-%d %H:%M} UTC, was lost; it may have held"
                    " the new refresh token."
                )
            _settle(row)
            totals.add_one(session, row.id, TotalKind.REFRESHES, "refused")
            now, step = self._now(), RECONNECT
            set_status(session, row, ConnectionStatus.EXPIRED, now, Problem.GRANT, reason, step)
        log.warning("connection_expired", connection_id=connection_id)

    def _postpone(
        self, connection_id: int, fence: int, error: exchange.SetupError | RetryLater
    ) -> None:
        """Leave the token endpoint alone for a while; the connection works as long as it can."""
        now = self._now()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.refresh_fence != fence:
                return
            row.refresh_until = None
            if not isinstance(error, exchange.AnswerLost):
                row.refresh_sent_at = None
            row.refresh_failures += 1
            totals.add_one(session, row.id, TotalKind.REFRESHES, "failed")
            row.refresh_failing_since = row.refresh_failing_since or now
            row.refresh_retry_at = now + timedelta(seconds=back_off(row.refresh_failures, error))
            self._judge(session, row, error, now)
        log.warning("refresh_failed", connection_id=connection_id, failures=row.refresh_failures)

    def _judge(
        self,
        session: Session,
        row: ConnectionRow,
        error: exchange.SetupError | RetryLater,
        now: datetime,
    ) -> None:
        """Set the connection's status after a failed refresh."""
        since = row.refresh_failing_since or now
        alive = row.expires_at is not None and row.expires_at > now
        if row.status not in WORKING and row.problem != Problem.SETUP:
            return
        if isinstance(error, exchange.SetupError):
            status = ConnectionStatus.EXPIRING if alive else ConnectionStatus.ERROR
            step = "Correct the setting and restart; the service then tries again by itself."
            set_status(session, row, status, now, Problem.SETUP, str(error), step)
        elif not alive and row.problem != Problem.SETUP and now - since >= ALARM_AFTER:
            reason = f"{error.message} Its token endpoint has failed since {since:%H:%M} UTC."
            step = "Nothing to do: the service tries again by itself. No booking is lost."
            problem = Problem.TOKEN_ENDPOINT
            set_status(session, row, ConnectionStatus.EXPIRING, now, problem, reason, step)


class ConnectionTokens:
    """The token source of one connection."""

    def __init__(self, service: TokenService, connection_id: int, account_id: str) -> None:
        self._service = service
        self._connection_id, self._account_id = connection_id, account_id

    def token(self) -> str:
        """A token that lives a while longer."""
        return self._service.token(self._connection_id, self._account_id)

    def renewed(self, refused: str) -> str:
        """Another token than the one that the CRM just refused."""
        return self._service.renewed(self._connection_id, refused, self._account_id)

    def look_for_address(self, token: str) -> None:
        """Refresh: the answer names the account's address, which is stored with the connection."""
        self._service.look_for_address(self._connection_id, token)


def _settle(row: ConnectionRow) -> None:
    """Note a definite answer: no refresh is in doubt or postponed any more."""
    row.refresh_sent_at = row.refresh_failing_since = row.refresh_retry_at = None
    row.refresh_failures = 0
