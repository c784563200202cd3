"""New PostgreSQL databases: on TEST_POSTGRES_URL, or on a server started for this test run."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import psycopg
import pytest

from tests.ports import free_port


@contextmanager
def postgres_url() -> Iterator[str]:
    """Yield the URL of an empty database; skip the test with a reason if there is no PostgreSQL."""
    server = os.environ.get("TEST_POSTGRES_URL") or _start()
    if not server:
        pytest.skip("PostgreSQL is not installed here: initdb was not found")
    name = f"bridge_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@lru_cache(maxsize=1)
def _start() -> str | None:
    """Start one server for all tests of this process."""
    started = start_server()
    if started is None:
        return None
    url, stop = started
    atexit.register(stop)
    return url


def start_server(
    listen: str = "127.0.0.1", allowed: str = "", durable: bool = False
) -> tuple[str, Callable[[], None]] | None:
    """Start a server in a temporary folder; return its address and a function that stops it.

    `listen`: its addresses; `allowed`: the network that may connect beside this machine;
    `durable`: whether a commit is on the disk, which a test need not wait for. None if PostgreSQL
    is not installed. It refuses to run as root.
    """
    binaries = _binaries()
    if binaries is None:
        return None
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="bridge-postgres-"))
    folder.chmod(0o777)
    data, port = folder / "data", free_port()
    as_user = {"user": user} if user else {}
    quiet = {
        "check": True,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": folder,
    }
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "bridge", "-A", "trust", "-E", "UTF8", "--no-sync"],
        **quiet,
        **as_user,
    )
    if allowed:
        with (data / "pg_hba.conf").open("a", encoding="ascii") as rules:
            rules.write(f"host all all {allowed} trust\n")
    options = (
        f"-p {port} -k {folder} -c listen_addresses={listen} -c fsync={'on' if durable else 'off'}"
    )
    command = [binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"]
    subprocess.run(command, **quiet, **as_user)

    def stop() -> None:
        subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "fast", "stop"], **quiet, **as_user)
        shutil.rmtree(folder, ignore_errors=True)

    return f"postgresql://bridge@127.0.0.1:{port}/postgres", stop


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next((p.parent for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None
