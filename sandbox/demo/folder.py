"""The demo's folder: one demo at a time, its environment for the command line, its mapping files."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from redis import Redis
from redis.exceptions import RedisError
from ruamel.yaml import YAML

from config.settings import CONFIG_DIR
from sandbox.demo.mishaps import QUESTION
from sandbox.demo.story import TEAM, WHY_SKIPPED

LOCK = "lock"
END_SECONDS = 20
"""Seconds that the processes of a killed demo get to end."""
FILES = YAML()
"""Keeps comments and order of a file."""
FILES.preserve_quotes = True
FILES.width = 200


class DemoError(Exception):
    """The demo cannot continue; the message says why and what to do."""


class DemoFolder:
    """The folder of a running demo, locked for this process and the service's processes."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock
        self._facts: dict[str, Any] = {}

    @property
    def log(self) -> Path:
        """Return the file with the output of the service's processes."""
        return self.path / "processes.log"

    @property
    def lock_number(self) -> int:
        """Return the lock's file descriptor: who has it keeps the folder locked."""
        return self._lock.fileno()

    def note(self, **facts: Any) -> None:
        """Note for a second demo what this one is: `demo` and `service` are process ids, `redis` is
        the address of its Valkey, `run_id` the Valkey's own id.
        """
        self._facts |= facts
        self._lock.seek(0)
        self._lock.truncate()
        json.dump(self._facts, self._lock)
        self._lock.flush()

    def write_environment(self, environment: Mapping[str, str]) -> Path:
        """Write the settings into a file for a shell, readable by its owner only."""
        path = self.path / "env"
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())]
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(lines)
        return path

    def write_mappings(self) -> Path:
        """Write the mapping files: the shipped ones, without team meetings, and with a question."""
        folder = self.path / "mappings"
        folder.mkdir()
        for source in sorted((CONFIG_DIR / "mappings").glob("*.yaml")):
            rules = FILES.load(source.read_text(encoding="utf-8"))
            rules["skip"] = [{"when": {"meeting_type.slug": TEAM[1]}, "because": WHY_SKIPPED}]
            if source.stem == "hubspot":
                rules["deal"]["fields"]["lead_source"] = f'answers["{QUESTION}"]'
            with (folder / source.name).open("w", encoding="utf-8") as file:
                FILES.dump(rules, file)
        return folder


@contextmanager
def locked_folder(path: Path) -> Iterator[DemoFolder]:
    """Give an empty folder that no other demo uses. Raises DemoError if another one does.

    The lock ends with its processes, whatever ends them. What is left of a killed demo is ended.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    with (path / LOCK).open("a+", encoding="utf-8") as lock:
        _take_over(lock)
        for entry in path.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        folder = DemoFolder(path, lock)
        folder.note(demo=os.getpid())
        yield folder


def _take_over(lock: IO[str]) -> None:
    """Take the lock; end what is left of a demo that was killed. Raises DemoError for a live demo."""
    taken, facts = _take(lock), _facts(lock)
    if not taken:
        _end_service(lock, facts)
    _end_valkey(facts)


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _facts(lock: IO[str]) -> dict[str, Any]:
    lock.seek(0)
    with suppress(ValueError):
        facts = json.load(lock)
        return facts if isinstance(facts, dict) else {}
    return {}


def _end_service(lock: IO[str], facts: Mapping[str, Any]) -> None:
    """End the service of a killed demo, and take its lock."""
    demo, service = facts.get("demo"), facts.get("service")
    if _lives(demo) or not isinstance(service, int):
        place = f" at {facts['web']}" if facts.get("web") else ""
        raise DemoError(
            f"A demo runs already in this folder{place} (process {demo}). Use that one, stop it"
            " with Ctrl+C, or run this one in another clone."
        )
    # The service has the lock, so its number is not that of another process by now.
    with suppress(ProcessLookupError):
        os.kill(service, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while not _take(lock):
        if time.monotonic() > deadline:
            raise DemoError(f"What is left of a killed demo does not end: process {service}.")
        time.sleep(0.2)


def _end_valkey(facts: Mapping[str, Any]) -> None:
    """End the Valkey of a killed demo, if it is still the one at that address."""
    if not facts.get("redis"):
        return
    with suppress(RedisError, ValueError):
        client = Redis.from_url(str(facts["redis"]), socket_timeout=2, socket_connect_timeout=2)
        if client.info("server")["run_id"] == facts.get("run_id"):
            client.shutdown(nosave=True)


def _lives(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        return True
    return True
