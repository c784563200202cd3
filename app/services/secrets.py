"""The secrets that sign webhooks: any number of them, each with an end and its last use."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_bytes, token_urlsafe

import structlog
from sqlalchemy import or_, select, update

from app.security.encryption import Cipher
from app.store.access_models import SecretUse, WebhookSecret
from app.store.boxes import seal, unseal
from app.store.engine import DATABASE_DOWN, Store, utcnow
from app.store.upsert import insert_unless_there
from config.settings import SignatureScheme, secret_weakness
from config.strength import STANDARD_PREFIX

log = structlog.get_logger(__name__)
REMEMBERED = 2.0
"""Seconds for which a source's secrets are cached; an unknown secret forces a new read."""
LEAST_FINGERPRINT = 4
"""The least characters of a fingerprint that select a secret."""
NOTE_EVERY = 60.0
"""Seconds between two notes that a secret is in use."""


@dataclass(frozen=True)
class SecretView:
    """A secret's data without the secret itself."""

    fingerprint: str
    kept_in: str
    """`environment` or `database`."""
    created_at: datetime | None
    ends_at: datetime | None
    last_used_at: datetime | None


class WebhookSecrets:
    """Secrets in the database, in addition to those of the environment."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._noted: dict[tuple[str, str], float] = {}

    def of(self, source: str, anew: bool = False) -> tuple[str, ...]:
        """The secrets of a source that have not ended, newest first; `anew` ignores the cache."""
        with self._lock:
            at, secrets = self._known.get(source, (-1e9, ()))
            if not anew and time.monotonic() - at < REMEMBERED:
                return secrets
        with self._store.read() as session:
            rows = session.scalars(
                select(WebhookSecret)
                .where(
                    WebhookSecret.source == source,
                    or_(WebhookSecret.ends_at.is_(None), WebhookSecret.ends_at > utcnow()),
                )
                .order_by(WebhookSecret.id.desc())
            ).all()
        secrets = tuple(map(self._secret, rows))
        with self._lock:
            self._known[source] = (time.monotonic(), secrets)
        return secrets

    def used(self, source: str, secret: str) -> None:
        """Note now and then that a secret verified a webhook; a failure does not affect the webhook."""
        token = fingerprint(secret)
        with self._lock:
            if time.monotonic() - self._noted.get((source, token), -1e9) < NOTE_EVERY:
                return
            self._noted[source, token] = time.monotonic()
        values = {"source": source, "fingerprint": token, "last_used_at": utcnow()}
        try:
            with self._store.write() as session:
                unique = ["source", "fingerprint"]
                session.execute(insert_unless_there(session, SecretUse, unique), values)
                same = (SecretUse.source == source, SecretUse.fingerprint == token)
                session.execute(update(SecretUse).where(*same).values(last_used_at=utcnow()))
        except DATABASE_DOWN as error:
            log.warning("secret_use_not_noted", kind=type(error).__name__)

    def add(
        self,
        source: str,
        secret: str | None = None,
        old_end: timedelta | None = None,
        scheme: SignatureScheme = SignatureScheme.BODY,
    ) -> str:
        """Accept one more secret from now on; return it. `old_end`: when the earlier ones end.

        Raises ValueError with a message if the secret is too weak for the scheme.
        """
        now, secret = utcnow(), secret or make_secret(scheme)
        problem = secret_weakness(secret, scheme)
        if problem:
            raise ValueError(f"The secret {problem}.")
        with self._store.write() as session:
            if old_end is not None:
                before = (WebhookSecret.source == source, WebhookSecret.ends_at.is_(None))
                session.execute(update(WebhookSecret).where(*before).values(ends_at=now + old_end))
            row = WebhookSecret(source=source, created_at=now)
            row.secret_encrypted = seal(self._cipher, WebhookSecret.secret_encrypted, row, secret)
            session.add(row)
        self.of(source, anew=True)
        return secret

    def end(self, source: str, token: str, after: timedelta) -> int:
        """Stop accepting, after a while, the secrets whose fingerprint begins with `token`.

        Return their number. A secret that has ended, or ends sooner, keeps its end.
        """
        if len(token) < LEAST_FINGERPRINT:
            return 0
        now = utcnow()
        with self._store.write() as session:
            rows = session.scalars(select(WebhookSecret).where(WebhookSecret.source == source))
            meant = [
                row
                for row in rows
                if fingerprint(self._secret(row)).startswith(token)
                and (row.ends_at is None or row.ends_at > now)
            ]
            for row in meant:
                row.ends_at = min(row.ends_at or now + after, now + after)
        self.of(source, anew=True)
        return len(meant)

    def views(self, source: str, environment: tuple[str, ...]) -> list[SecretView]:
        """Every secret of a source, those of the environment first."""
        with self._store.read() as session:
            uses = {
                row.fingerprint: row.last_used_at
                for row in session.scalars(select(SecretUse).where(SecretUse.source == source))
            }
            rows = session.scalars(
                select(WebhookSecret).where(WebhookSecret.source == source).order_by("id")
            ).all()
        views = [
            SecretView(token, "environment", None, None, uses.get(token))
            for token in map(fingerprint, environment)
        ]
        for row in rows:
            token = fingerprint(self._secret(row))
            at = (row.created_at, row.ends_at, uses.get(token))
            views.append(SecretView(token, "database", *at))
        return views

    def _secret(self, row: WebhookSecret) -> str:
        return unseal(self._cipher, WebhookSecret.secret_encrypted, row)


def make_secret(scheme: SignatureScheme) -> str:
    """Make a secret of 256 random bits, in the form that the scheme needs."""
    if scheme is SignatureScheme.STANDARD_WEBHOOKS:
        return STANDARD_PREFIX + base64.b64encode(token_bytes(32)).decode()
    return token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """A text that tells secrets apart in lists without revealing one."""
    return hashlib.sha256(f"webhook-secret\0{secret}".encode()).hexdigest()[:12]
