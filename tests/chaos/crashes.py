"""Kills a process at every commit and every outgoing call; a test run finds these points by itself.

A run is forked; hooks on the database driver and on urllib3 (under requests and under HubSpot's
client) count the points that it passes. Then the run is repeated for each point, and the process is
killed with SIGKILL just before or just after it. Another process continues with the data left
behind.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import urllib3
from sqlalchemy import select, update
from sqlalchemy.engine.default import DefaultDialect

from app.bootstrap import Services, bootstrap
from app.services.sources import DEFAULT_SOURCE
from app.store.engine import utcnow
from app.store.models import ConnectionRow, DeliveryRow
from tests.bridge import Bridge, make_settings
from tests.chaos.system import lift_limits
from tests.contract.test_convergence import picture
from workers.drain import Drainer

LATER = timedelta(hours=1)
"""The time until another process takes over: every lease has ended and every pause is over."""


@dataclass(frozen=True)
class Point:
    """A point in a run: just before or just after the n-th commit or call."""

    kind: str
    number: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.kind} {self.number}"


class Hooks:
    """Counts the points that this process passes, and kills it at one of them."""

    def __init__(self, deadly: Point | None) -> None:
        self.passed: list[Point] = []
        self._counts = {"commit": 0, "call": 0}
        self._deadly = deadly

    @contextmanager
    def around(self, kind: str) -> Iterator[None]:
        """Count the two points around an action."""
        number = self._counts[kind]
        self._counts[kind] += 1
        self._pass(Point(kind, number, after=False))
        yield
        self._pass(Point(kind, number, after=True))

    def _pass(self, point: Point) -> None:
        self.passed.append(point)
        if point == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Install the hooks in this process only, which is a fork."""
        commit = DefaultDialect.do_commit
        urlopen = urllib3.connectionpool.HTTPConnectionPool.urlopen

        def do_commit(dialect: Any, connection: Any) -> None:
            with self.around("commit"):
                commit(dialect, connection)

        def call(pool: Any, *args: Any, **kwargs: Any) -> Any:
            with self.around("call"):
                return urlopen(pool, *args, **kwargs)

        DefaultDialect.do_commit = do_commit
        urllib3.connectionpool.HTTPConnectionPool.urlopen = call


class Stage:
    """One connected CRM; database and sandbox are reset to this state for every run."""

    def __init__(self, folder: Path, provider: str, postgres: str | None = None) -> None:
        self.provider, self._postgres = provider, postgres
        self._folder = folder
        url = postgres or f"sqlite:///{folder}/template.sqlite3"
        bridge = Bridge(url, (provider,)).connect_all()
        self.served = bridge.served[provider]
        bridge.services.store.close()
        if postgres is None:
            # If a thread still holds the database, this moves its data from the WAL into the file.
            with sqlite3.connect(folder / "template.sqlite3") as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
        self._state: dict[str, Any] = {}
        self._keep()

    def _keep(self) -> None:
        """Save the sandbox's current state; every run starts from it."""
        self._state = {
            name: copy.deepcopy(value)
            for name, value in vars(self.served.sandbox).items()
            if name not in self.served.sandbox.no_state
        }

    def unlimited(self) -> None:
        """Lift the CRM's rate limits in every run."""
        lift_limits(self.served.sandbox)
        self._keep()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """Reset the sandbox and yield the URL of a database, both as they were after the connect."""
        vars(self.served.sandbox).update(copy.deepcopy(self._state))
        if self._postgres is None:
            path = self._folder / "run.sqlite3"
            for file in self._folder.glob("run.sqlite3*"):
                file.unlink()
            shutil.copy(self._folder / "template.sqlite3", path)
            yield f"sqlite:///{path}"
            return
        server, _, name = self._postgres.rpartition("/")
        copied = f"{name}_run"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {copied} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {copied} TEMPLATE {name}")
        yield f"{server}/{copied}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {copied} WITH (FORCE)")

    def services(self, url: str) -> Services:
        """Return the services on a database, connected to the sandbox."""
        services = bootstrap(make_settings(url), self.served.environment())
        services.prepare()
        return services

    def picture(self) -> dict[str, Any]:
        """Return the counted records of the CRM, without ids."""
        view = self.served.sandbox.view()
        people = sorted((p.email or "", p.phone or "", p.last or "") for p in view.contacts)
        domains = sorted(company.domain or "" for company in view.companies)
        return {**picture(self, self.provider), "people": people, "companies": domains}

    def sandbox(self, provider: str) -> Any:
        """Return the sandbox, in the form that `picture` expects."""
        return self.served.sandbox

    def run(
        self, url: str, script: Callable[[Services, Path], None], deadly: Point | None
    ) -> Ended:
        """Run a script in its own process, which may be killed at a point."""
        told = self._folder / "told.json"
        told.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                hooks = Hooks(deadly)
                services = self.services(url)
                hooks.install()
                script(services, self._folder / "acknowledged")
                told.write_text(json.dumps([vars(point) for point in hooks.passed]))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        good = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        points = [Point(**entry) for entry in json.loads(told.read_text())] if good else []
        return Ended(killed, good, points)


@dataclass(frozen=True)
class Ended:
    """The end of a process."""

    killed: bool
    good: bool
    points: list[Point]


def deliver(services: Services, payloads: list[Any], acknowledged: Path) -> None:
    """Post the webhooks without an answer, as meetergo does; record each answer."""
    done = set(acknowledged.read_text().split()) if acknowledged.exists() else set()
    rules = services.sources.rules(DEFAULT_SOURCE)
    for number, payload in enumerate(payloads):
        if str(number) in done:
            continue
        answer = services.intake.accept(rules, json.dumps(payload).encode())
        if answer.process:
            services.waker.process()
        with acknowledged.open("a") as file:
            file.write(f"{number}\n")


def drain(services: Services, later: timedelta = timedelta()) -> None:
    """Process the inbox and drain every connection; `later` is the time since the lease holder died."""
    services.processor.run()
    drainer = Drainer(services, now=lambda: utcnow() + later)
    if later:
        # Leases use the database's clock, which no test sets.
        with services.store.write() as session:
            session.execute(update(ConnectionRow).values(drain_until=utcnow() - later))
    with services.store.read() as session:
        ids = session.scalars(select(ConnectionRow.id)).all()
    for connection_id in ids:
        drainer.drain(connection_id)


def states(services: Services) -> list[tuple[str, str | None]]:
    """Return state and error of every delivery."""
    with services.store.read() as session:
        rows = session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))
        return [(row.state, row.error_message) for row in rows]
