"""Faults of what belongs to the service: its processes, Valkey, the database, the mapping files."""

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
"""Seconds that a process stands still: a lease, and time for another worker to do what it was at."""
SLOW_CLIENTS = 60
"""Connections that stand at the web process with half a request."""
HEAD = b"POST /webhooks/meetergo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HALVES = (HEAD, HEAD + b'X-Meetergo-Signature: x\r\nContent-Length: 2000\r\n\r\n{"id":')
CHANGES = {"meeting_types: {}": "meeting_types: {never-booked: {deal: none}}"}
"""A change of a mapping file that makes another file of it, and no other record."""


def kinds(faults: Faults) -> dict[str, Strike]:
    """The faults by name."""
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
    """Take all that Valkey holds."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()


def stop_a_worker(faults: Faults) -> None:
    """SIGSTOP, and SIGCONT once its lease is another one's."""
    process = faults.system.processes[faults.dice.choice(faults.system.workers)]
    os.kill(process.pid, signal.SIGSTOP)

    def wake() -> None:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)

    faults.later(STOPPED, STOPPED, wake)


def kill_valkey(faults: Faults) -> None:
    """Take Valkey away for some seconds."""
    faults.system.kill_valkey()
    time.sleep(faults.dice.uniform(0.5, 3))
    faults.system.start_valkey()


def fill_valkey(faults: Faults) -> Met:
    """Let Valkey have no room for some seconds; it counts once a write of the service was refused."""
    system, before = faults.system, faults.system.writes_refused()
    system.fill_valkey()

    def empty() -> None:
        # One that was killed meanwhile has come back empty.
        with suppress(RedisError, OSError):
            system.fill_valkey(full=False)

    faults.later(3, 6, empty)
    return lambda: system.writes_refused() > before


def read_anew(faults: Faults) -> Met:
    """Let what is known of every account be too old; it counts once a worker has read one anew."""
    start = faults.system.log_size()
    faults.system.read_anew()
    return lambda: faults.system.logged(start, READ_ANEW)


def touch_mapping(faults: Faults) -> Met:
    """Give a mapping file a new time and nothing else."""
    start, path = faults.system.log_size(), faults.dice.choice(mappings(faults))
    path.touch()
    return lambda: faults.system.logged(start, "mapping_reloaded")


def change_mapping(faults: Faults, whole: bool) -> Met:
    """Let another text, or half of the text, stand in a mapping file for some seconds."""
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
    """The mapping files of the run."""
    return sorted(faults.system.mappings.glob("*.yaml"))


def hold_connections(faults: Faults) -> None:
    """Stand at the web process with halves of requests; whoever sends a whole one is answered."""
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
