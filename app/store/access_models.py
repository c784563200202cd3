"""The tables for access: API keys, browser sessions, secrets, consents, the audit log."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Boolean,
    ForeignKey,
    Index,
    Integer,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.domain import limits
from app.store.boxes import box
from app.store.columns import Label, String, Text
from app.store.tables import Base, Id


class AuditLog(Base):
    """What a person did: connect, disconnect, replay, make a key and so on."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    actor: Mapped[str] = mapped_column(Label(100))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Label(200))
    at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (
        Index("ix_audit_log_actor", "actor", "id"),
        Index("ix_audit_log_action", "action", "id"),
    )


class ApiKey(Base):
    """An API key of a person or a script; only its hash is stored."""

    __tablename__ = "api_keys"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(limits.KEY_NAME))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    role: Mapped[str | None] = mapped_column(String(limits.ROLE))
    """None: the key may do everything, as every key could before there were roles."""


class UserRow(Base):
    """A person of the company who signs in with a password or through the company's own server."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    email_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """Keyed hash of the address: finds the user."""
    email_encrypted: Mapped[str] = mapped_column(Text, info=box("users.email", "email_hash"))
    name: Mapped[str] = mapped_column(String(limits.USER_NAME), unique=True)
    """How the pages and the audit log name the user."""
    role: Mapped[str] = mapped_column(String(limits.ROLE))
    password_encrypted: Mapped[str | None] = mapped_column(
        Text, info=box("users.password", "email_hash")
    )
    """The argon2id hash; None: the user has no password."""
    password_ends_at: Mapped[datetime | None]
    """Set for a password that another person has seen: it ends then, and is to be replaced at once."""
    subject_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    """Keyed hash of issuer and subject, under which the company's own server knows the user."""
    created_at: Mapped[datetime]
    signed_in_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class WebSession(Base):
    """A browser session of a user or a key's owner; the cookie holds a random id, this row its hash."""

    __tablename__ = "web_sessions"
    id_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[int | None] = mapped_column(ForeignKey("api_keys.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    """With neither key nor user, it is a session of the demo."""
    way: Mapped[str] = mapped_column(String(16))
    """How it began: key, password, oidc, demo."""
    created_at: Mapped[datetime] = mapped_column(index=True)
    seen_at: Mapped[datetime]
    """When the session was last used, to the minute."""
    ended_at: Mapped[datetime | None]
    """When the owner signed out."""


class OAuthFlow(Base):
    """A connect that was begun; its state is single-use and bound to one browser session."""

    __tablename__ = "oauth_flows"
    state_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    provider: Mapped[str] = mapped_column(String(32))
    session_hash: Mapped[str] = mapped_column(String(64))
    verifier_encrypted: Mapped[str | None] = mapped_column(
        Text, info=box("oauth_flows.verifier", "state_hash")
    )
    connection_id: Mapped[int | None] = mapped_column(Id)
    """The connection to repair; None: a new one is wanted."""
    other_account: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the connection may move to another account of the CRM."""
    login_host: Mapped[str | None] = mapped_column(String(limits.LOGIN_HOST))
    next_path: Mapped[str | None] = mapped_column(String(limits.NEXT_PATH))
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Revocation(Base):
    """A refresh token to revoke at its provider; erased after that, or after a day at most."""

    __tablename__ = "revocations"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    connection_id: Mapped[int] = mapped_column(ForeignKey("connections.id"))
    login_host: Mapped[str | None] = mapped_column(String(limits.LOGIN_HOST))
    token_encrypted: Mapped[str] = mapped_column(
        Text, info=box("revocations.token", "connection_id", "created_at")
    )
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_try_at: Mapped[datetime] = mapped_column(index=True)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class EncryptionKey(Base):
    """The id of a key that data here may be encrypted with; ENCRYPTION_KEYS must hold that key."""

    __tablename__ = "encryption_keys"
    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    first_used_at: Mapped[datetime]


class DataKey(Base):
    """The one random key of the hashes that stand for people and records in the database."""

    __tablename__ = "data_keys"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    hash_key_encrypted: Mapped[str] = mapped_column(
        Text, info=box("data_keys.hash_key", "id", "reads_unbound")
    )
    reads_unbound: Mapped[bool] = mapped_column(Boolean)
    """Whether boxes of older releases are still read, which were not bound to their rows. Bound to
    the key itself: who changes it makes the key unreadable."""
    created_at: Mapped[datetime]


class WebhookSecret(Base):
    """A secret that webhooks may be signed with, in addition to those of the environment."""

    __tablename__ = "webhook_secrets"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    source: Mapped[str] = mapped_column(String(limits.SOURCE_NAME), index=True)
    secret_encrypted: Mapped[str] = mapped_column(
        Text, info=box("webhook_secrets.secret", "source", "created_at")
    )
    created_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    """The secret is not accepted after this time; None: until a person ends it."""


class SecretUse(Base):
    """When a secret last verified a webhook; its fingerprint does not reveal the secret."""

    __tablename__ = "secret_uses"
    source: Mapped[str] = mapped_column(String(limits.SOURCE_NAME), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(16), primary_key=True)
    last_used_at: Mapped[datetime]
