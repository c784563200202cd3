"""Faults inside the service: its processes, Valkey, the database, the mapping files."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.hooks import READ_ANEW

if TYPE_CHECKING:
    from tests.chaos.faults import Faults, Met, Strike

STOPPED = 25.0
"""The seconds that a process is stopped: a lease, plus time for another worker to do the same work."""
SLOW_CLIENTS = 60
"""The number of connections with half a request at the web process."""
HEAD = b"POST /webhooks/meetergo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HALVES = (HEAD, HEAD + b'X-Meetergo-Signature: x\r\nContent-Length: 2000\r\n\r\n{"id":')
CHANGES = {"meeting_types: {}": "meeting_types: {never-booked: {deal: none}}"}
"""A change that makes a mapping file a new version but changes no record."""


def kinds(faults: Faults) -> dict[str, Strike]:
    """Return the faults by name."""
    system, dice = faults.system, faults.dice
    found: dict[str, Any] = {
        "web killed": lambda: system.kill("web"),
        "worker killed": lambda: system.kill(dice.choice(system.workers)),
        "scheduler killed": lambda: system.kill("scheduler"),
        "worker stopped and woken": lambda: stop_a_worker(faults),
        "Valkey killed": lambda: kill_valkey(faults),
        "Valkey flushed": lambda: flush(system.redis_url),
        "Valkey full": lambda: fill_valkey(faults),
        "account read anew": lambda: read_anew(faults),
        "mapping file touched": lambda: touch_mapping(faults),
        "mapping file changed and changed back": lambda: change_mapping(faults, whole=True),
        "mapping file half written": lambda: change_mapping(faults, whole=False),
        "slow clients at the web": lambda: hold_connections(faults),
    }
    if system.can_cut:
        found["connections to the database cut"] = system.cut_database
    return found


def flush(redis_url: str) -> None:
    """Delete all data in Valkey."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()


def stop_a_worker(faults: Faults) -> None:
    """Stop a worker with SIGSTOP, and wake it with SIGCONT after another worker has its lease."""
    process = faults.system.processes[faults.dice.choice(faults.system.workers)]
    os.kill(process.pid, signal.SIGSTOP)

    def wake() -> None:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)

    faults.later(STOPPED, STOPPED, wake)


def kill_valkey(faults: Faults) -> None:
    """Stop Valkey for some seconds."""
    faults.system.kill_valkey()
    time.sleep(faults.dice.uniform(0.5, 3))
    faults.system.start_valkey()


def fill_valkey(faults: Faults) -> Met:
    """Make Valkey full for some seconds; the fault counts once a write of the service was refused."""
    system, before = faults.system, faults.system.writes_refused()
    system.fill_valkey()

    def empty() -> None:
        # If it was killed meanwhile, it is empty again.
        with suppress(RedisError, OSError):
            system.fill_valkey(full=False)

    faults.later(3, 6, empty)
    return lambda: system.writes_refused() > before


def read_anew(faults: Faults) -> Met:
    """Expire the data of every account; the fault counts once a worker has read an account again."""
    start = faults.system.log_size()
    faults.system.read_anew()
    return lambda: faults.system.logged(start, READ_ANEW)


def touch_mapping(faults: Faults) -> Met:
    """Give a mapping file a new time, without a change of its text."""
    start, path = faults.system.log_size(), faults.dice.choice(mappings(faults))
    path.touch()
    return lambda: faults.system.logged(start, "mapping_reloaded")


def change_mapping(faults: Faults, whole: bool) -> Met:
    """Put another text, or half of the text, into a mapping file for some seconds."""
    start, path = faults.system.log_size(), faults.dice.choice(mappings(faults))
    text = faults.system.mapping_texts[path.name]
    other = text
    for old, new in CHANGES.items():
        assert old in text
        other = other.replace(old, new)
    path.write_text(other if whole else text[: len(text) // 2] + "\n  [", encoding="utf-8")
    faults.later(2, 5, lambda: path.write_text(text, encoding="utf-8"))
    event = "mapping_taken" if whole else "mapping_refused"
    return lambda: faults.system.logged(start, event)


def mappings(faults: Faults) -> list[Any]:
    """Return the mapping files of the run."""
    return sorted(faults.system.mappings.glob("*.yaml"))


def hold_connections(faults: Faults) -> None:
    """Hold connections with half a request each; the web process must still answer complete requests."""
    port = int(faults.system.web.rpartition(":")[2])
    wires: list[socket.socket] = []

    def hang_up() -> None:
        for wire in wires:
            wire.close()

    faults.later(3, 6, hang_up)
    for number in range(SLOW_CLIENTS):
        wires.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        wires[-1].sendall(HALVES[number % len(HALVES)])
    if not faults.system.ready():
        raise TimeoutError("the web process answers nobody")
