"""Clients of Redis or Valkey for every form of REDIS_URL, and what is wrong with it as a sentence."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from config.redis_url import RedisAddress, read_redis_url

CONNECT_SECONDS = 1.0
SENTINEL_SECONDS = 1.0
"""How long a Sentinel may take to answer; the next one is asked after that."""
PROBE_KEY, PROBE_SECONDS = "bridge:readyz", 60
"""The key written to Redis to test that it takes writes, and how many seconds the key stays."""
WRONG_PASSWORD = "Redis refuses the user name or the password of REDIS_URL."  # noqa: S105
NO_PASSWORD = "Redis wants a password, and REDIS_URL has none."  # noqa: S105
NO_TLS = "Redis does not speak TLS at REDIS_URL: use redis://, or the port for TLS."


class SentinelsSilent(MasterNotFoundError):
    """No Sentinel answers."""


class SentinelsRefuse(MasterNotFoundError):
    """A Sentinel refuses the password."""


class _Sentinels(Sentinel):
    """The Sentinels; a master that is not found has one of three reasons."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master. Raises MasterNotFoundError or one of the two above."""
        try:
            found: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            # redis-py lists each Sentinel that it could not ask: `<…> - network:ConnectionError`.
            failed = re.findall(r"> - \S*?(\w+Error)", str(error))
            if "AuthenticationError" in failed:
                raise SentinelsRefuse from None
            if len(failed) >= len(self.sentinels):
                raise SentinelsSilent from None
            raise
        return found


def connect(url: str, read_timeout: float | None = 2.0) -> Redis:
    """Return a client that gives up after seconds: Redis only wakes workers, nothing waits for it.

    A worker passes None: RQ chooses the time-out that fits its blocking read. With Sentinels, each
    new connection goes to the server that they name as master at that moment.
    """
    address = read_redis_url(url)
    if address.sentinels:
        return _by_sentinels(address, read_timeout)
    return Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=read_timeout)


def _by_sentinels(address: RedisAddress, read_timeout: float | None) -> Redis:
    # Without this, redis-py would ask a Sentinel that is away four times, with pauses.
    once: Any = Retry(NoBackoff(), 0)
    asking = {
        "socket_connect_timeout": SENTINEL_SECONDS,
        "socket_timeout": SENTINEL_SECONDS,
        "retry": once,
        **address.sentinel_options,
    }
    members = list(address.sentinels)
    found = _Sentinels(members, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    usual = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": read_timeout}
    tls = {"ssl": True} if address.tls else {}
    options = {**usual, **address.options, **tls}
    client: Redis = found.master_for(address.master, **options)  # type: ignore[no-untyped-call]
    return client


def probe(redis: Redis) -> None:
    """Write a key that soon vanishes. Raises RedisError or OSError if Redis takes no write."""
    redis.set(PROBE_KEY, "1", ex=PROBE_SECONDS)


def explain(error: BaseException) -> str:
    """Return what is wrong with Redis, as a sentence without any part of REDIS_URL."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        bare = "NOAUTH" in str(error) or "HELLO must be called" in str(error)
        return NO_PASSWORD if bare or "Authentication required" in str(error) else WRONG_PASSWORD
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, ResponseError):
        return _refusal(str(error))
    return _no_connection(error)


_SENTENCES: tuple[tuple[type[BaseException], str], ...] = (
    (
        OutOfMemoryError,
        "The memory of Redis is full: it takes no wake-ups until there is room"
        " (its settings maxmemory and maxmemory-policy).",
    ),
    (
        ReadOnlyError,
        "REDIS_URL names a read-only replica: give the address of the master, or of its Sentinels.",
    ),
    (
        NoPermissionError,
        "Redis does not allow the user of REDIS_URL to do what RQ needs: give it all commands"
        " (+@all) on all keys (~*) and channels (&*).",
    ),
    (SentinelsRefuse, "The Sentinels refuse the password: set sentinel_password in REDIS_URL."),
    (SentinelsSilent, "No Sentinel of REDIS_URL answers."),
    (MasterNotFoundError, "The Sentinels know no working master with the name in REDIS_URL."),
    (BusyLoadingError, "Redis is starting: it still loads its data."),
    (
        InvalidResponse,
        "What answers at REDIS_URL is not Redis, or speaks TLS: then the address begins with"
        " rediss://.",
    ),
)


def _refusal(text: str) -> str:
    if "MISCONF" in text or "RDB snapshot" in text:
        return "Redis refuses writes, because it cannot save its data to its disk."
    if "DB index" in text:
        return "Redis has no database with the number in REDIS_URL."
    if "Not enough good replicas" in text or "NOREPLICAS" in text:
        return "Redis refuses writes, because too few of its replicas are there."
    return f"Redis refuses a command ({text.split(' ', 1)[0][:30]})."


_CAUSES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (ssl.SSLCertVerificationError,),
        "The certificate of Redis is not trusted: check its name and its authority"
        " (SSL_CERT_FILE, or ssl_ca_certs in REDIS_URL).",
    ),
    ((ssl.SSLError,), NO_TLS),
    (
        (socket.gaierror,),
        "The host of REDIS_URL has no address: its name is wrong, or DNS is away.",
    ),
    (
        (FileNotFoundError,),
        "The socket of REDIS_URL does not exist: Redis is not running, or has another path.",
    ),
    (
        (ConnectionRefusedError,),
        "Nothing listens at the host and port of REDIS_URL: Redis is not running there.",
    ),
    ((RedisTimeout, TimeoutError), "Redis does not answer in time at REDIS_URL."),
    ((RedisError, OSError), "The connection to Redis broke, or could not be opened."),
)
"""An error, or an error that led to it -> the sentence; the first that fits counts."""


def _no_connection(error: BaseException) -> str:
    causes: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and len(causes) < 5:
        causes.append(seen)
        seen = seen.__cause__ or seen.__context__
    if any("handshake operation" in str(cause) for cause in causes):
        return NO_TLS
    for kinds, sentence in _CAUSES:
        if any(isinstance(cause, kinds) for cause in causes):
            return sentence
    return (
        f"Redis at REDIS_URL holds data that this service did not write ({type(error).__name__})."
    )
