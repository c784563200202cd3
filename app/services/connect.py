"""Connects, reconnects and disconnects CRM accounts; the adapter is passed in, never imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.crm.schema import CrmAccount
from app.domain.errors import CrmError, RetryLater, Unauthorized
from app.oauth import exchange
from app.oauth.flow import ConnectRequest
from app.oauth.tokens import TokenService
from app.security.encryption import Cipher
from app.store import audit
from app.store.access_models import Revocation
from app.store.boxes import unseal
from app.store.connections import set_status
from app.store.delivery_marking import discard_parked, mark_all_due, mark_missed_due
from app.store.engine import CONNECT_TURN, Store, take_turns, utcnow
from app.store.models import ConnectionRow, RecordLink
from app.store.states import WORKING, ConnectionStatus
from config.providers import Provider, Providers

log = structlog.get_logger(__name__)
REVOKE_FOR = timedelta(days=1)
"""How long a failed revocation is tried again; after that the token is erased here anyway."""
REVOKE_WAIT = (60.0, 3600.0)
"""Seconds between two tries: the first wait, the longest wait."""


class ConnectingAdapter(Protocol):
    """The part of an adapter that is needed to identify a new account."""

    def whoami(self) -> CrmAccount:
        """Return the account's id and name."""

    def provision(self) -> list[str]:
        """Make the missing fields."""


class OtherAccount(Exception):
    """A connection was to be repaired, but another CRM account was chosen."""

    def __init__(self, message: str, connection_id: int) -> None:
        super().__init__(message)
        self.connection_id = connection_id


class UnfitGrant(Exception):
    """A grant that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Credential:
    """The access with which an account was opened: a token answer, or a key."""

    api_base: str
    access_token: str
    answer: Mapping[str, Any] | None
    """None for a key."""
    name: str = ""
    """The account's name, as the provider's introspection knows it."""


class Connector:
    """Turns a grant or a key into a working connection, and ends connections."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        tokens: TokenService,
        providers: Providers,
        open_account: Callable[[Provider, str, str, bool], ConnectingAdapter],
        account: Callable[[int], ConnectingAdapter],
        timeout: float,
    ) -> None:
        """`open_account` opens an account that is not a connection yet."""
        self._store = store
        self._cipher = cipher
        self._tokens = tokens
        self._providers = providers
        self._open_account = open_account
        self._account = account
        self._timeout = timeout

    def connect(
        self,
        provider: Provider,
        answer: Mapping[str, Any],
        actor: str,
        wish: ConnectRequest = ConnectRequest(),  # noqa: B008
    ) -> int:
        """Store a grant, identify its account and make the fields; return the connection's id.

        An account that is known keeps its connection, ledger and parked work. Raises CrmError if
        the account cannot be read, OtherAccount, and UnfitGrant.
        """
        if not answer.get("refresh_token") and not provider.tokens_last:
            raise UnfitGrant(
                f"{provider.title} gave no refresh token, so the connection would end within hours."
                " Allow offline access in the app's settings at the CRM and connect again."
            )
        try:
            api_base = provider.api_base_for(answer)
        except ValueError as error:
            raise UnfitGrant(f"{error}. Nothing was stored.") from None
        access_token = str(answer["access_token"])
        told = exchange.introspect(provider.at(wish.login_host), access_token, self._timeout)
        merged = dict(answer)
        if not merged.get("expires_in"):
            merged["expires_in"] = exchange.seconds_left(told, utcnow())
        name = str(told.get(provider.account_name_from, "")) if provider.account_name_from else ""
        return self._store_connection(
            provider, Credential(api_base, access_token, merged, name), actor, wish
        )

    def add_key(
        self,
        provider: Provider,
        key: str,
        actor: str,
        wish: ConnectRequest = ConnectRequest(),  # noqa: B008
    ) -> int:
        """Store a hand-made key, if the CRM accepts it; return the connection's id.

        Raises UnfitGrant for a key that the CRM refuses, CrmError and OtherAccount.
        """
        if provider.key is None:
            raise UnfitGrant(f"{provider.title} has no keys; connect it through its consent page.")
        if not key or any(not "!" <= char <= "~" for char in key):
            raise UnfitGrant(
                "This is not a key: it is empty, or has blanks or characters that no key has, such"
                " as curly quotes. Copy the key again. Nothing was stored."
            )
        try:
            return self._store_connection(
                provider, Credential(provider.api_base, key, None), actor, wish
            )
        except Unauthorized:
            raise UnfitGrant(
                f"{provider.title} does not accept this {provider.key.title}. Make a key under"
                f" {provider.key.where}. Nothing was stored."
            ) from None

    def resume(self, connection_id: int, actor: str) -> None:
        """Renew a connection's access, read its account, and resume its work.

        Raises CrmError if that fails; Unauthorized if the connection has to be connected again.
        """
        self._tokens.renew_now(connection_id)
        self._account(connection_id).whoami()
        now = utcnow()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            if row.status == ConnectionStatus.DISCONNECTED:
                raise Unauthorized("A person has disconnected the account in the meantime.")
            set_status(session, row, ConnectionStatus.ACTIVE, now)
            audit.note(session, actor, "resume", row.account, now)

    def disconnect(
        self, connection_id: int, actor: str, discard: bool = False
    ) -> tuple[int, str | None]:
        """Erase a connection's tokens and revoke them; `discard` discards its parked work.

        Return how many bookings were discarded, and the problem with the revocation, if any; a
        failed revocation is tried again for a day.
        """
        now = utcnow()
        with self._store.write() as session:
            row = session.get_one(ConnectionRow, connection_id, with_for_update=True)
            self._tokens.erase(session, row)
            set_status(session, row, ConnectionStatus.DISCONNECTED, now)
            gone = discard_parked(session, connection_id, now) if discard else 0
            audit.note(session, actor, "disconnect", row.account, now)
        return gone, self.revoke_due(connection_id)

    def has_revocations(self) -> bool:
        """Whether a refresh token is due to be revoked."""
        query = select(Revocation.id).where(Revocation.next_try_at <= utcnow()).limit(1)
        with self._store.read() as session:
            return session.scalar(query) is not None

    def revoke_due(self, connection_id: int | None = None) -> str | None:
        """Revoke the refresh tokens that are due; return the last problem."""
        query = select(Revocation).where(Revocation.next_try_at <= utcnow())
        if connection_id is not None:
            query = query.where(Revocation.connection_id == connection_id)
        with self._store.read() as session:
            waiting = list(session.scalars(query.order_by(Revocation.id)))
        problem = None
        for entry in waiting:
            problem = self._revoke(entry) or problem
        return problem

    def _revoke(self, entry: Revocation) -> str | None:
        wait = min(REVOKE_WAIT[0] * 2**entry.tries, REVOKE_WAIT[1])
        with self._store.write() as session:
            # Counted before the call, so that a crash does not repeat it for ever.
            claimed = session.execute(
                update(Revocation)
                .where(Revocation.id == entry.id, Revocation.tries == entry.tries)
                .values(tries=entry.tries + 1, next_try_at=utcnow() + timedelta(seconds=wait))
                .returning(Revocation.id)
            ).scalar()
            row = session.get_one(ConnectionRow, entry.connection_id)
        if claimed is None:
            return None
        provider = self._providers[row.provider]
        token = unseal(self._cipher, Revocation.token_encrypted, entry)
        problem = None
        try:
            exchange.revoke(provider.at(entry.login_host), token, self._timeout)
        except (RetryLater, exchange.SetupError) as error:
            problem = f"{error} The service keeps trying for a day."
            log.warning("revocation_failed", connection_id=row.id, kind=type(error).__name__)
        given_up = problem and utcnow() - entry.created_at > REVOKE_FOR
        with self._store.write() as session:
            if problem is None or given_up:
                session.execute(delete(Revocation).where(Revocation.id == entry.id))
            else:
                session.get_one(Revocation, entry.id).error = problem
            row = session.get_one(ConnectionRow, row.id, with_for_update=True)
            if row.status == ConnectionStatus.DISCONNECTED:
                self._note_revocation(row, provider, problem, bool(given_up))
        return problem

    @staticmethod
    def _note_revocation(
        row: ConnectionRow, provider: Provider, problem: str | None, given_up: bool
    ) -> None:
        row.last_error, row.next_step = None, None
        if problem:
            row.last_error = (
                f"The tokens are erased here, but {provider.title} did not get the revocation: {problem}"
                if not given_up
                else f"The tokens are erased here, but {provider.title} never got the revocation."
            )
            row.next_step = (
                f"To be sure, remove the app in {provider.title}: {provider.apps_where}."
            )

    def _store_connection(
        self, provider: Provider, found: Credential, actor: str, wish: ConnectRequest
    ) -> int:
        by_key = found.answer is None
        account = self._open_account(provider, found.api_base, found.access_token, by_key).whoami()
        label = ", ".join(part for part in (found.name, account.name) if part)
        now = utcnow()
        with self._store.write() as session:
            # Two people who connect one account at the same time must not get two connections.
            take_turns(session, [CONNECT_TURN])
            placed = self._place(session, provider, account, label, wish, now)
            if isinstance(placed, Exception):
                self._leave_account(session, account, found, wish)
            else:
                self._fill_connection(session, placed, provider, account, label, found, wish)
                subject = f"{provider.name} {label}"
                audit.note(session, actor, "connect", subject, now)
        if isinstance(placed, Exception):
            raise placed
        log.info("connected", provider=provider.name, connection_id=placed.id)
        self._provision(placed.id)
        return placed.id

    def _fill_connection(
        self,
        session: Session,
        row: ConnectionRow,
        provider: Provider,
        account: CrmAccount,
        label: str,
        found: Credential,
        wish: ConnectRequest,
    ) -> None:
        """Store a credential in a connection and resume the work that waited for it."""
        now = utcnow()
        idle = row.status == ConnectionStatus.DISCONNECTED
        since = row.status_since if idle else None
        row.account_id, row.account = account.id, label
        row.api_base, row.login_host = found.api_base, wish.login_host
        if found.answer is None:
            self._tokens.keep_key(row, found.access_token)
        else:
            self._tokens.replace(row, provider, found.answer)
        row.pause_until = None
        set_status(session, row, ConnectionStatus.ACTIVE, now)
        mark_missed_due(session, row, now, since)

    def _place(
        self,
        session: Session,
        provider: Provider,
        account: CrmAccount,
        label: str,
        wish: ConnectRequest,
        now: datetime,
    ) -> ConnectionRow | OtherAccount | UnfitGrant:
        """The row for a grant: the one of its account, the one to repair, or a new one."""
        same = session.scalars(
            select(ConnectionRow)
            .where(ConnectionRow.provider == provider.name, ConnectionRow.account_id == account.id)
            .with_for_update()
        ).first() or self._unnamed(session, provider, account)
        if wish.connection_id is None or (same is not None and same.id == wish.connection_id):
            return same or self._new_row(session, provider, now)
        row = session.get(ConnectionRow, wish.connection_id, with_for_update=True)
        if row is None or row.provider != provider.name:
            return UnfitGrant("The connection to repair no longer exists.")
        if same is not None:
            return UnfitGrant(
                f"{provider.title}: {label} has its own connection already (number"
                f" {same.id}). Connection {row.id} is for {row.account}; nothing was changed."
            )
        if not wish.other_account:
            return OtherAccount(
                f"{provider.title}: {label} was chosen, but this connection is for {row.account}."
                " Nothing was changed. Connect again and choose the right account, or move the"
                " connection to the other account on purpose: every booking is then synced there"
                " again.",
                row.id,
            )
        session.execute(delete(RecordLink).where(RecordLink.connection_id == row.id))
        # A drainer at work holds record ids of the old account: it must save nothing.
        row.drain_fence, row.drain_until = row.drain_fence + 1, None
        session.flush()
        mark_all_due(session, row.id, now)
        return row

    @staticmethod
    def _unnamed(session: Session, provider: Provider, account: CrmAccount) -> ConnectionRow | None:
        """A connection of this account that was made before account ids were stored."""
        rows = session.scalars(
            select(ConnectionRow).where(
                ConnectionRow.provider == provider.name, ConnectionRow.account_id == ""
            )
        )
        return next(
            (row for row in rows if account.id in row.account or row.account == account.name), None
        )

    def _leave_account(
        self,
        session: Session,
        account: CrmAccount,
        found: Credential,
        wish: ConnectRequest,
    ) -> None:
        """Have an unused grant revoked, unless its account is connected here."""
        row = session.get(ConnectionRow, wish.connection_id) if wish.connection_id else None
        if row is None or found.answer is None:
            return
        known = session.scalars(
            select(ConnectionRow.id).where(
                ConnectionRow.provider == row.provider, ConnectionRow.account_id == account.id
            )
        ).first()
        if known is None:
            self._tokens.revoke_later(session, row, found.answer)

    @staticmethod
    def _new_row(session: Session, provider: Provider, now: datetime) -> ConnectionRow:
        row = ConnectionRow(
            provider=provider.name,
            api_base=provider.api_base,
            status=ConnectionStatus.DISCONNECTED,
            status_since=now,
            scopes=[],
            created_at=now,
        )
        for counter in ("drain_fence", "refresh_fence", "refresh_failures", "failed_in_row"):
            setattr(row, counter, 0)
        session.add(row)
        session.flush()
        return row

    def _provision(self, connection_id: int) -> None:
        """Make the fields; without them the service works, but is less safe from duplicates."""
        try:
            self._account(connection_id).provision()
        except CrmError as error:
            with self._store.write() as session:
                row = session.get_one(ConnectionRow, connection_id)
                if row.status in WORKING:
                    row.last_error = f"The booking-id field could not be created: {error.message}"
                    row.next_step = (
                        "Bookings are synced all the same. To prevent duplicates, let an"
                        " administrator connect, or create the field by hand; the examination names it."
                    )


__all__ = ["Connector", "CrmAccount", "OtherAccount", "UnfitGrant"]
