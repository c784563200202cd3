"""Reads REDIS_URL: one server, or the Sentinels that know it; no message shows the password.

Forms, the first three as in https://redis.readthedocs.io/en/stable/connections.html, the others as in
https://docs.prefect.io/integrations/prefect-redis/api-ref/prefect_redis-connection:

    redis://[user:password@]host[:6379][/0]
    rediss://…                                       with TLS, checked with the system's certificates
    unix://[user:password@]/path/of/the/socket[?db=0]
    redis+sentinel://[user:password@]host[:26379][,host…]/master[/0]
    rediss+sentinel://…                              with TLS to the Sentinels and to the server
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from redis.connection import Connection, parse_url

from config.database_url import ENCODE

FORMS = (
    "redis://, rediss://, unix:// or redis+sentinel://, as in redis://:password@127.0.0.1:6379/0"
)
SENTINEL_PORT = 26379
SENTINEL_LOGIN = ("sentinel_username", "sentinel_password")
"""Options of the URL that log in to the Sentinels; user and password before the @ are the server's."""


@dataclass(frozen=True)
class RedisAddress:
    """A REDIS_URL that was read."""

    options: dict[str, Any] = field(repr=False)
    """redis-py's options for a connection to the server."""
    tls: bool = False
    sentinels: tuple[tuple[str, int], ...] = ()
    """Host and port of each Sentinel; empty: the options name the server itself."""
    master: str = ""
    """The name by which the Sentinels know the server."""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    """redis-py's options for a connection to a Sentinel."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the address names; none for a socket of this machine."""
        if self.sentinels:
            return tuple(host for host, _ in self.sentinels)
        return () if "path" in self.options else (self.options.get("host", "localhost"),)


def read_redis_url(value: str) -> RedisAddress:
    """Read a REDIS_URL. Raises ValueError with a sentence."""
    scheme, separator, rest = value.strip().partition("://")
    kind = scheme.lower()
    if not separator:
        raise ValueError(f"it has no scheme; write {FORMS}")
    if kind in ("redis", "rediss", "unix"):
        return _one_server(kind, rest)
    if kind in ("redis+sentinel", "rediss+sentinel"):
        return _by_sentinels(kind.partition("+")[0], rest)
    named = f"{scheme}:// is" if re.fullmatch(r"[A-Za-z][\w+]{0,30}", scheme) else "it is"
    raise ValueError(f"{named} not a form of address that this service can use; write {FORMS}")


def _one_server(scheme: str, rest: str) -> RedisAddress:
    if scheme == "unix" and not re.match(r"(?:[^/@]*@)?/.", rest):
        raise ValueError("unix:// is followed by the path of a socket: unix:///run/redis.sock")
    place = rest.partition("?")[0].partition("@")[2] or rest.partition("?")[0]
    number = place.partition("/")[2] if scheme != "unix" else ""
    if number and not number.isdecimal():
        raise ValueError(f"after the host comes only the number of the database, as in /0{ENCODE}")
    return RedisAddress(_options(scheme, rest), scheme == "rediss")


def _by_sentinels(scheme: str, rest: str) -> RedisAddress:
    before, mark, query = rest.partition("?")
    login, at, place = before.rpartition("@")
    names, _, path = place.partition("/")
    master, _, number = path.partition("/")
    if not master or (number and not number.isdecimal()):
        raise ValueError(
            "after the Sentinels come the master's name and the number of the database:"
            f" redis+sentinel://host1:26379,host2:26379/mymaster/0{ENCODE}"
        )
    members = tuple(_member(name) for name in names.split(","))
    options = _options(scheme, f"{login}{at}master/{number or 0}{mark}{query}")
    logins = {name: options.pop(name, None) for name in SENTINEL_LOGIN}
    own = {name.removeprefix("sentinel_"): text for name, text in logins.items() if text}
    # One private authority covers the Sentinels and the server.
    own |= {name: text for name, text in options.items() if name.startswith("ssl_")}
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    tls = scheme == "rediss"
    return RedisAddress(options, tls, members, master, own | ({"ssl": True} if tls else {}))


def _member(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?", text.strip())
    if not found:
        raise ValueError(f"a Sentinel is written as host:{SENTINEL_PORT}{ENCODE}")
    return found[1].strip("[]"), int(found[2] or SENTINEL_PORT)


def _options(scheme: str, rest: str) -> dict[str, Any]:
    """Return what redis-py reads in an address, once it is sure that redis-py accepts it."""
    try:
        options: dict[str, Any] = parse_url(f"{scheme}://{rest}")  # type: ignore[no-untyped-call]
    except ValueError:
        # redis-py's own text may show a piece of the password.
        raise ValueError(f"its host, port or options cannot be read{ENCODE}") from None
    others = (*SENTINEL_LOGIN, "max_connections")
    tried = {name: text for name, text in options.items() if name not in others}
    try:
        # Opens nothing: redis-py would refuse an unknown option at the first call only.
        tried.pop("connection_class", Connection)(**tried)
    except (TypeError, ValueError):
        raise ValueError("it has an option after the ? that redis-py does not know") from None
    return options
