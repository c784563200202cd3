"""meetergo workspaces: how their webhooks are verified, their API keys, and their state."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import delete, select

from app.domain.errors import (
    CrmError,
    Gone,
    InvalidRecord,
    MissingScope,
    RateLimited,
    Unauthorized,
)
from app.domain.limits import is_source_name
from app.meetergo.client import MeetergoClient
from app.security import signatures
from app.security.encryption import Cipher
from app.store import audit
from app.store.access_models import WebhookSecret
from app.store.boxes import seal, unseal
from app.store.connections import NoticeKind
from app.store.engine import Store, utcnow
from app.store.models import SourceRow, SourceState
from app.store.sources import count_waiting, set_source_status, state_of, tell_source
from app.store.states import SourceStatus
from config.settings import Settings, SignatureScheme, api_key_problem

log = structlog.get_logger(__name__)
DEFAULT_SOURCE = "default"
"""The source that the environment describes."""
PAUSES = (2.0, 5.0, 15.0, 30.0)
"""Seconds until meetergo is asked again, by failures in a row; then the last one."""
REFUSED_PAUSE = 30.0
"""Seconds until a key or a set-up that meetergo refused is tried again."""
KEY_WARNING = timedelta(days=7)
"""How long before the known end of a key people are notified."""


class UnknownSource(signatures.BadSignature):
    """There is no such source; answered like a bad signature, so that names do not leak."""


@dataclass(frozen=True)
class SourceRules:
    """How the webhooks of one source are verified, and the key that reads its appointments."""

    name: str
    scheme: SignatureScheme = SignatureScheme.BODY
    header: str = "X-Meetergo-Signature"
    secrets: tuple[str, ...] = ()
    company_ids: tuple[str, ...] = ()
    api_key: str = ""
    api_user_id: str = ""
    key_ends_at: datetime | None = None

    @property
    def confirms(self) -> bool:
        """Whether its webhooks are checked at meetergo before they are believed."""
        return self.scheme is SignatureScheme.URL_TOKEN and bool(self.api_key)


@dataclass(frozen=True)
class SourceView:
    """The settings and the state of a meetergo workspace."""

    name: str
    scheme: str
    header: str
    company_ids: tuple[str, ...]
    has_key: bool
    api_user_id: str
    key_ends_at: datetime | None
    status: str
    since: datetime | None
    problem: str | None
    next_step: str | None
    waiting: int
    """Webhooks that wait until meetergo confirms them."""
    waiting_since: datetime | None
    heard_at: datetime | None
    from_environment: bool

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        values = asdict(self)
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}

    @property
    def works(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        return self.status == SourceStatus.WORKS

    @property
    def key_ends_soon(self) -> bool:
        """Whether its key is near its end, or past it."""
        return self.key_ends_at is not None and self.key_ends_at - utcnow() < KEY_WARNING


class Sources:
    """All sources: `default` is defined in the environment, the others in the database."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        cipher: Cipher,
        client: Callable[[SourceRules, bool], MeetergoClient],
    ) -> None:
        """`client` makes a client with a source's key; its second argument: whether for old news."""
        self._settings, self._store, self._cipher = settings, store, cipher
        self._client = client

    def rules(self, name: str) -> SourceRules:
        """The rules of a source. Raises UnknownSource."""
        if name == DEFAULT_SOURCE:
            s = self._settings
            return SourceRules(
                name, s.meetergo_signature_scheme, s.meetergo_signature_header, s.webhook_secrets,
                s.company_ids, s.meetergo_api_key, s.meetergo_api_user_id, s.meetergo_key_ends_at,
            )  # fmt: skip
        row = None
        if is_source_name(name):
            with self._store.read() as session:
                row = session.get(SourceRow, name)
        if row is None:
            raise UnknownSource(f"there is no source {name!r}")
        key = (
            unseal(self._cipher, SourceRow.api_key_encrypted, row) if row.api_key_encrypted else ""
        )
        return SourceRules(
            name,
            SignatureScheme(row.scheme),
            row.header,
            tuple(json.loads(unseal(self._cipher, SourceRow.secrets_encrypted, row))),
            tuple(row.company_ids),
            key,
            row.api_user_id,
            row.key_ends_at,
        )

    def names(self) -> list[str]:
        """Every source that webhooks may come from."""
        with self._store.read() as session:
            return [
                DEFAULT_SOURCE,
                *session.scalars(select(SourceRow.name).order_by(SourceRow.name)),
            ]

    def client(self, name: str, old_news: bool = False) -> MeetergoClient:
        """A client with a source's key. Raises UnknownSource."""
        return self._client(self.rules(name), old_news)

    def save(self, rules: SourceRules, actor: str) -> None:
        """Make a source, or change one. Raises ValueError with a message for invalid rules.

        Secrets are made and ended separately, by WebhookSecrets.
        """
        if rules.name == DEFAULT_SOURCE:
            raise ValueError("The source `default` is set in the environment: change it there.")
        if not is_source_name(rules.name):
            raise ValueError(
                "The name of a source has only small letters, digits, dots and hyphens, at most 64."
            )
        problem = api_key_problem(rules.api_key, rules.api_user_id)
        if problem:
            raise ValueError(problem)
        now = utcnow()
        with self._store.write() as session:
            row = session.get(SourceRow, rules.name, with_for_update=True)
            made = row is None
            if row is None:
                row = SourceRow(name=rules.name, created_at=now)
                # Its secrets are kept in a table of their own.
                row.secrets_encrypted = seal(
                    self._cipher, SourceRow.secrets_encrypted, row, json.dumps([])
                )
                session.add(row)
            row.scheme, row.header = rules.scheme.value, rules.header
            row.company_ids = list(rules.company_ids)
            row.api_key_encrypted = (
                seal(self._cipher, SourceRow.api_key_encrypted, row, rules.api_key)
                if rules.api_key
                else None
            )
            row.api_user_id, row.key_ends_at = rules.api_user_id, rules.key_ends_at
            state = state_of(session, rules.name, now)
            # The change may have repaired the trouble, so the source is tried at once.
            state.pause_until = None
            action = "source_added" if made else "source_changed"
            audit.note(session, actor, action, rules.name, now)

    def end(self, name: str, actor: str) -> None:
        """End a source: its webhooks are refused from now on. Raises ValueError."""
        if name == DEFAULT_SOURCE:
            raise ValueError("The source `default` is set in the environment: change it there.")
        now = utcnow()
        with self._store.write() as session:
            row = session.get(SourceRow, name) if is_source_name(name) else None
            if row is None:
                raise ValueError(f"There is no source {name!r}.")
            session.delete(row)
            session.execute(delete(SourceState).where(SourceState.name == name))
            session.execute(delete(WebhookSecret).where(WebhookSecret.source == name))
            audit.note(session, actor, "source_ended", name, now)

    def view(self, name: str) -> SourceView:
        """The state of a source. Raises UnknownSource."""
        return next((v for v in self.views() if v.name == name), None) or _raise_unknown(name)

    def views(self) -> list[SourceView]:
        """The state of every source."""
        with self._store.read() as session:
            waiting = count_waiting(session)
            states = {row.name: row for row in session.scalars(select(SourceState))}
        found = []
        for name in self.names():
            rules, state = self.rules(name), states.get(name)
            number, since = waiting.get(name, (0, None))
            known = state if rules.api_key else None
            found.append(
                SourceView(
                    name=name,
                    scheme=rules.scheme.value,
                    header=rules.header,
                    company_ids=rules.company_ids,
                    has_key=bool(rules.api_key),
                    api_user_id=rules.api_user_id,
                    key_ends_at=rules.key_ends_at,
                    status=known.status if known else SourceStatus.WORKS,
                    since=known.since if known else None,
                    problem=known.problem if known else None,
                    next_step=known.next_step if known else None,
                    waiting=number,
                    waiting_since=since,
                    heard_at=state.heard_at if state else None,
                    from_environment=name == DEFAULT_SOURCE,
                )
            )
        return found

    def heard(self, name: str, error: CrmError | None = None) -> None:
        """Note what meetergo's last answer means for a source; `error` None: the answer was good.

        An answer about one appointment only, such as that it does not exist, is good too.
        """
        now = utcnow()
        if error is None or isinstance(error, Gone):
            with self._store.read() as session:
                row = session.get(SourceState, name)
            fresh = row and row.heard_at and now - row.heard_at < timedelta(minutes=1)
            if row and fresh and row.status == SourceStatus.WORKS and not row.failures:
                return
        with self._store.write() as session:
            row = state_of(session, name, now)
            if error is None or isinstance(error, Gone):
                row.heard_at = now
                set_source_status(session, row, SourceStatus.WORKS, now)
                return
            if isinstance(error, RateLimited):
                row.pause_until = now + timedelta(seconds=error.after or 60.0)
                return
            row.failures += 1
            status, step = _what_is_wrong(name, error)
            seconds = REFUSED_PAUSE
            if status is SourceStatus.UNREACHABLE:
                seconds = PAUSES[min(row.failures, len(PAUSES)) - 1]
            row.pause_until = now + timedelta(seconds=seconds)
            set_source_status(session, row, status, now, error.message, step)
        log.warning("source_paused", source=name, status=status, reason=error.message)

    def may_ask(self, name: str) -> bool:
        """Whether meetergo may be asked now: it is not paused after a recent failure."""
        now = utcnow()
        with self._store.read() as session:
            row = session.get(SourceState, name)
        # A pause that ends later than any pause lasts was set before the clock was set back.
        longest = now + timedelta(seconds=120)
        return row is None or row.pause_until is None or not now < row.pause_until <= longest

    def in_trouble(self) -> list[str]:
        """Sources with a key that were out of order when they were last asked."""
        with self._store.read() as session:
            query = select(SourceState.name).where(SourceState.status != SourceStatus.WORKS)
            names = set(session.scalars(query))
        return [name for name in self.names() if name in names and self.rules(name).api_key]

    def is_in_trouble(self, name: str) -> bool:
        """Whether a source was out of order when it was last asked."""
        with self._store.read() as session:
            row = session.get(SourceState, name)
        return row is not None and row.status != SourceStatus.WORKS

    def probe(self, name: str, by_page: bool = False) -> bool:
        """Ask meetergo one harmless question and note the answer; return whether it was good.

        `by_page`: ask whether appointments may be read; else only whether meetergo accepts the key.
        """
        client = self.client(name)
        try:
            if by_page:
                client.appointments(0, "createdAt", descending=True, size=1)
            else:
                client.whoami()
        except Gone:
            pass  # it answers
        except CrmError as error:
            self.heard(name, error)
            return False
        self.heard(name)
        return True

    def warn_of_ends(self) -> None:
        """Notify people once of each key that is near its end."""
        now = utcnow()
        for view in self.views():
            end = view.key_ends_at
            if end is None or not view.key_ends_soon:
                continue
            with self._store.write() as session:
                row = state_of(session, view.name, now)
                if row.key_end_notified == end:
                    continue
                row.key_end_notified = end
                words = f"The meetergo key of this source ends on {end:%Y-%m-%d %H:%M} UTC."
                step = "Make a new key in meetergo and replace the old one with it."
                tell_source(session, view.name, NoticeKind.EXPIRING, now, words, step)


def _raise_unknown(name: str) -> SourceView:
    raise UnknownSource(f"there is no source {name!r}")


_AFTER = "The waiting webhooks are then processed by themselves."


def _what_is_wrong(name: str, error: CrmError) -> tuple[SourceStatus, str]:
    """What an error means for a source, and what a person can do."""
    where = (
        "MEETERGO_API_KEY"
        if name == DEFAULT_SOURCE
        else f"the key of source {name} (`bridge sources change {name} --key -`)"
    )
    if isinstance(error, Unauthorized):
        step = f"Make a new key in meetergo (Integrations, API) and set {where}. {_AFTER}"
        return SourceStatus.KEY_REFUSED, step
    if isinstance(error, MissingScope):
        step = f"Give {where} the permission that meetergo names. {_AFTER}"
        return SourceStatus.SETUP_WRONG, step
    if isinstance(error, InvalidRecord):
        step = f"Check {where} and the user id that goes with it. {_AFTER}"
        return SourceStatus.SETUP_WRONG, step
    step = "Nothing to do: the service keeps asking meetergo, and nothing is lost."
    return SourceStatus.UNREACHABLE, step
