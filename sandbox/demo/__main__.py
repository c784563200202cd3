"""`make demo`: the whole service with sandbox CRMs on one machine, a day with faults, two tables."""

from __future__ import annotations

import argparse
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from config.providers import load_providers
from config.settings import CONFIG_DIR
from sandbox.day import day
from sandbox.demo import service, story
from sandbox.demo.control import Control
from sandbox.demo.folder import DemoError, DemoFolder, locked_folder
from sandbox.demo.mishaps import REVOKED
from sandbox.demo.sender import NotAccepted, Sender
from sandbox.demo.story import Scene
from sandbox.demo.tables import print_tables
from sandbox.meetergo import MeetergoSandbox
from sandbox.pages import keep_history
from sandbox.serve import HOST, Served, load_sandbox

FOLDER = service.ROOT / ".demo"
WEB_PORT, CONTROL_PORT, FIRST_SANDBOX_PORT = 8000, 9100, 9101
START_SECONDS, SYNC_SECONDS = 60, 120
console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop when the tables are printed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the demo keeps its data")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(locked_folder(asked.folder.absolute()))
            return Demo(stack, folder).run(asked.once)
    except (DemoError, NotAccepted) as error:
        console.print(f"\n[bold red]The demo stopped.[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130 if asked.once else 0


class Demo:
    """One run: it starts everything, plays the day and prints what became of it."""

    def __init__(self, stack: ExitStack, folder: DemoFolder) -> None:
        self._stack, self._folder = stack, folder
        self._started = time.monotonic()
        self._crms = {name: self._serve_crm(number, name)
                      for number, name in enumerate(load_providers(CONFIG_DIR / "providers.yaml", {}))}  # fmt: skip
        self._web = f"http://{HOST}:{_port(WEB_PORT, 'the dashboard')}"
        self._meetergo = self._serve(MeetergoSandbox(), FIRST_SANDBOX_PORT + len(self._crms))
        secret = secrets.token_urlsafe(24)
        self._sender = Sender(self._web, secret, self._meetergo.sandbox)
        self._control = self._serve(Control(self._sender, self._crms, self._web), CONTROL_PORT)
        redis = stack.enter_context(service.valkey(folder))
        sandboxes = {**self._crms, "meetergo": self._meetergo}
        own = service.settings_of(folder, sandboxes, redis, self._web, secret)
        self._env = folder.write_environment(own)
        self._environment = service.whole_environment(own, self._crms)
        self._key = ""

    def run(self, once: bool) -> int:
        """Play the day; then stop, or stay until somebody stops it. Return the exit code."""
        story.prepare({name: served.sandbox for name, served in self._crms.items()})
        self._key = service.make_key(self._environment)
        running = self._stack.enter_context(service.processes(self._folder, self._environment))
        self._folder.note(service=running.pid, web=self._web)
        service.wait_until_ready(self._web, running, self._folder.log, START_SECONDS)
        seconds = time.monotonic() - self._started
        console.print(f"Web, worker and scheduler run. ({seconds:.0f} s)")
        browser = requests.Session()
        browser.post(f"{self._web}/sign-in", data={"key": self._key}, timeout=10)
        for name, served in self._crms.items():
            service.connect(browser, self._web, name, self._folder.log)
            console.print(f"Connected {served.sandbox.title} through its OAuth consent page.")
        scenes = self._play()
        good = self._follow(scenes)
        self._print(good)
        if once:
            return 0 if good else 1
        self._say_where()
        while running.poll() is None:
            time.sleep(0.5)
        raise DemoError(f"A process ended by itself. Its last words are in {self._folder.log}.")

    def _serve_crm(self, number: int, name: str) -> Served:
        sandbox = load_sandbox(name)()
        keep_history(sandbox)
        return self._serve(sandbox, FIRST_SANDBOX_PORT + number)

    def _serve(self, app: Any, wanted: int) -> Served:
        served = Served(app, _port(wanted, f"the {app.title} sandbox"), own_pages=True)
        self._stack.callback(served.stop)
        return served

    def _play(self) -> list[Scene]:
        """Post the webhooks of the day; return the bookings with the states that they end in."""
        crms = {name: served.sandbox for name, served in self._crms.items()}
        morning = day()
        self._post("Posting signed webhooks", morning)
        plain = {payload["id"]: Scene(payload) for payload in morning}
        self._follow(list(plain.values()))
        afternoon = story.afternoon(crms)
        self._post("Posting the afternoon", [scene.payload for scene in afternoon])
        for body in story.UNREADABLE:
            self._sender.send_body(body)
        scenes = [*plain.values(), *afternoon]
        self._follow(scenes)
        evening = story.evening()
        if story.PARKED_IN in crms:
            REVOKED.begins(crms[story.PARKED_IN])
        self._post("Posting the evening", [scene.payload for scene in evening])
        return [*scenes, *evening]

    def _post(self, words: str, payloads: Sequence[Any]) -> None:
        with _progress() as progress:
            for payload in progress.track(payloads, description=words):
                self._sender.send(payload)

    def _follow(self, scenes: Sequence[Scene]) -> bool:
        """Watch the deliveries until each is in the state of its scene; return whether all are."""
        wanted = {f"default:{scene.payload['id']}": scene.states for scene in scenes}
        total = len(wanted) * len(self._crms)
        with _progress() as progress:
            task = progress.add_task("Syncing into the CRMs", total=total)

            def arrived() -> bool:
                states = _states(self._bookings())
                fits = [states.get((key, crm)) == wants.get(crm, "synced")
                        for key, wants in wanted.items() for crm in self._crms]  # fmt: skip
                progress.update(task, completed=sum(fits))
                return all(fits)

            return service.wait_for(arrived, SYNC_SECONDS)

    def _bookings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("bookings?limit=200")["bookings"]
        return found

    def _ask(self, what: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = requests.get(f"{self._web}/api/v1/{what}", headers=headers, timeout=30)
        found: dict[str, Any] = answer.json()
        return found

    def _print(self, good: bool) -> None:
        connections = self._ask("connections")["connections"]
        quarantined = len(story.UNREADABLE)
        print_tables(console, self._bookings(), connections, quarantined, self._crms)
        if not good:
            console.print("[bold red]Not all bookings came to the state that they should.[/]")
        console.print(f"Done in {time.monotonic() - self._started:.0f} s.")

    def _say_where(self) -> None:
        shown = _shown(self._env)
        lines = [
            f"Dashboard: [bold]{self._web}[/]  sign in with this key: [bold]{self._key}[/]",
            f"Book a meeting, break and mend a CRM: [bold]{self._control.url}[/]",
            *(f"{served.sandbox.title} as a sales person sees it: [bold]{served.url}[/]"
              for served in self._crms.values()),
            f"Command line: [bold]set -a; . {shown}; set +a; bin/bridge bookings list[/]",
            "Press Ctrl+C to stop.",
        ]  # fmt: skip
        console.print("\n" + "\n".join(lines), highlight=False, soft_wrap=True)


def _shown(path: Path) -> str:
    """Return a path as it is typed in the project's folder."""
    return str(path.relative_to(service.ROOT)) if path.is_relative_to(service.ROOT) else str(path)


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


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<25}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console)


def _states(bookings: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    return {(booking["key"], delivery["provider"]): delivery["state"]
            for booking in bookings for delivery in booking["deliveries"]}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
