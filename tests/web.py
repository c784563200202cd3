"""The web process alone, as in the Procfile, and raw connections to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from app.security.signatures import sign_body
from tests.bridge import KEY, NO_REDIS, SECRET, begin_migrated, wait_for
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
APPLICATION = "app:create_app()"


class Web:
    """A running gunicorn process."""

    def __init__(self, folder: Path, database_url: str, config: str, application: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "web.log"
        self.environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": NO_REDIS,
            "SECRET_KEY": KEY,
            "ENCRYPTION_KEYS": KEY,
            "MEETERGO_WEBHOOK_SECRETS": SECRET,
            "PUBLIC_URL": self.url,
            "WEB_BIND": f"127.0.0.1:{self.port}",
        }
        begin_migrated(database_url)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", config, application],
                cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def ready(self) -> bool:
        """Whether the process answers."""
        try:
            return requests.get(f"{self.url}/healthz", timeout=2).status_code < 500
        except requests.RequestException:
            return False

    def make_key(self) -> str:
        """Create an API key for signing in."""
        made = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "tester"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return made.stdout.split()[-1]

    def work(self) -> None:
        """Process the stored webhooks, as a worker does."""
        code = (
            "from app.bootstrap import process_services as services;"
            " services().prepare(); services().processor.run()"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=self.environment, check=True)

    def connect(self, *sent: bytes, timeout: float = 15.0) -> socket.socket:
        """Open a connection and send these bytes unchanged."""
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        for piece in sent:
            wire.sendall(piece)
        return wire

    def post(self, payload: Any, **kwargs: Any) -> requests.Response:
        """Post a signed webhook."""
        body = json.dumps(payload).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Meetergo-Signature": sign_body(SECRET, body),
        }
        return requests.post(
            f"{self.url}/webhooks/meetergo", data=body, headers=headers, timeout=20, **kwargs
        )

    def stop(self) -> None:
        """Stop the process."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)


@contextmanager
def web_process(
    folder: Path,
    database_url: str,
    config: str = "config/gunicorn.py",
    application: str = APPLICATION,
) -> Iterator[Web]:
    """Run a web process until the block ends."""
    made = Web(folder, database_url, config, application)
    try:
        wait_for(made.ready, 60)
        yield made
    finally:
        made.stop()


def answer_of(wire: socket.socket) -> bytes:
    """Return all bytes until the server closes; after a reset, those that came before it."""
    received = b""
    with wire:
        while True:
            try:
                part = wire.recv(65536)
            except ConnectionError:
                return received
            if not part:
                return received
            received += part


def status_of(answer: bytes) -> int:
    """Return the status of the final answer in these bytes; 0 if there is none."""
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
