"""DATABASE_URL and REDIS_URL: what is accepted, and a sentence without the password for the rest."""

from __future__ import annotations

import pytest

from app.store.engine import Store
from config.database_url import fit_database_url
from config.redis_url import read_redis_url
from workers.worker import warn_of_open_redis

SECRET = "s3cr"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h:5432/d?sslmode=require", "postgresql+psycopg://u:p@h:5432/d?sslmode=require"),
        ("postgresql://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg://h/d"),
        (" POSTGRES://h/d\n", "postgresql+psycopg://h/d"),
        ("sqlite:////srv/b.db", "sqlite:////srv/b.db"),
        ("sqlite:///b.db", "sqlite:///b.db"),
    ],
)  # fmt: skip
def test_addresses_of_databases(given: str, used: str) -> None:
    """Heroku's postgres:// is PostgreSQL, and every address of PostgreSQL uses psycopg."""
    assert fit_database_url(given) == used
    Store(given).close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("foo", "it is no address of a database; write sqlite:///"),
        (f"mysql://u:{SECRET}@h/d", "mysql:// is not a database that this service can use"),
        (f"u:{SECRET}@h://x", "it is not a database that this service can use"),
        ("sqlite://", "it names no file"),
        ("sqlite:///:memory:", "it names no file"),
        ("sqlite://bridge.db", "three slashes"),
        (f"postgresql://u:{SECRET}@h:port/d", "it cannot be read as an address"),
    ],
)
def test_what_is_no_address_of_a_database(url: str, words: str) -> None:
    """Each mistake has its sentence, which does not show the password."""
    with pytest.raises(ValueError, match=words) as caught:
        Store(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hosts", "options"),
    [
        ("redis://", ("localhost",), {}),
        ("redis://:p@h:1/2", ("h",), {"host": "h", "port": 1, "db": 2, "password": "p"}),
        ("redis://u:p@[::1]:63/0", ("::1",), {"host": "::1", "username": "u"}),
        ("redis://h?max_connections=5", ("h",), {"max_connections": 5}),
        ("rediss://:p%2Fw@h/1", ("h",), {"password": "p/w", "db": 1}),
        ("unix://:p@/run/r.sock?db=3", (), {"path": "/run/r.sock", "db": 3, "password": "p"}),
        ("redis+sentinel://:p@a,b:5/m/4", ("a", "b"), {"password": "p", "db": 4}),
        ("rediss+sentinel://a,[::1]:5/m", ("a", "::1"), {"db": 0}),
    ],
)
def test_addresses_of_redis(url: str, hosts: tuple[str, ...], options: dict[str, object]) -> None:
    """A server, a socket and Sentinels are read with their options."""
    read = read_redis_url(url)
    assert read.hosts == hosts
    assert options.items() <= read.options.items()
    assert read.tls == url.startswith("rediss")


def test_the_login_of_sentinels_is_not_that_of_the_server() -> None:
    """A Sentinel gets its own password and the TLS options of the address, the server the others."""
    read = read_redis_url(
        "rediss+sentinel://u:p@a:1,b/m/4?sentinel_password=q&ssl_ca_certs=/ca&client_name=x"
    )
    assert (read.sentinels, read.master) == ((("a", 1), ("b", 26379)), "m")
    assert read.sentinel_options == {"password": "q", "ssl_ca_certs": "/ca", "ssl": True}
    assert read.options == {
        "username": "u", "password": "p", "db": 4, "ssl_ca_certs": "/ca", "client_name": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f":{SECRET}@127.0.0.1:6379", "it has no scheme"),
        (f"http://:{SECRET}@h", "http:// is not a form of address"),
        (f"u:{SECRET}@h://x", "it is not a form of address"),
        (f"redis://:{SECRET}/t@h/0", "its host, port or options cannot be read"),
        ("redis://h:port/0", "its host, port or options cannot be read"),
        ("redis://h/first", "only the number of the database"),
        ("redis://h?colour=red", "an option after the . that redis-py does not know"),
        ("redis://h?socket_timeout=soon", "its host, port or options cannot be read"),
        ("unix://", "the path of a socket"),
        ("redis+sentinel://a,b", "the master's name and the number of the database"),
        ("redis+sentinel://a/m/first", "the master's name and the number of the database"),
        ("redis+sentinel://a,,b/m", "a Sentinel is written as host:26379"),
        (f"redis+sentinel://:{SECRET}/t@a/m", "its host, port or options cannot be read"),
    ],
)
def test_what_is_no_address_of_redis(url: str, words: str) -> None:
    """Each mistake has its sentence, which does not show the password."""
    with pytest.raises(ValueError, match=words) as caught:
        read_redis_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("redis://redis.internal/0", True),
        ("redis+sentinel://127.0.0.1,redis.internal:5/m", True),
        ("redis://:p@redis.internal/0", False),
        ("redis://redis.internal/0?password=p", False),
        ("redis://127.0.0.1/0", False),
        ("unix:///run/r.sock", False),
        ("redis+sentinel://:p@a,b/m", False),
    ],
)
def test_an_open_redis_is_warned_of(
    url: str, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis on the network without a password is told in the log, whatever the form of its address."""
    told: list[str] = []
    monkeypatch.setattr("workers.worker.log.warning", lambda event, **_: told.append(event))
    warn_of_open_redis(url)
    assert told == (["redis_has_no_password"] if warned else [])
