"""`make bench`: measures and prints; nothing here is asserted."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from app.security.signatures import sign_body
from tests.bridge import PROVIDERS, SECRET, Bridge, sample, wait_for
from tests.processes import running

POSTS = 1000
BACKLOG = 100


def main() -> None:
    """Print the table."""
    table = Table("what", "figure", title="Measured on this machine")
    with tempfile.TemporaryDirectory() as folder:
        _calls(table, Path(folder))
        _backlog(table, Path(folder))
        _posts(table, Path(folder))
    Console(width=110).print(table)


def _free_mail(name: str) -> dict[str, Any]:
    payload = sample(name)
    payload["attendees"][0]["email"] = "jane@gmail.com"
    return payload


def _calls(table: Table, folder: Path) -> None:
    bridge = Bridge(f"sqlite:///{folder}/calls.sqlite3").connect_all()
    for name in ("booking_created", "booking_rescheduled", "booking_cancelled"):
        bridge.sync(_free_mail(name))
        for provider in PROVIDERS:
            calls = bridge.sandbox(provider).calls
            table.add_row(f"{provider}: calls, {name}", str(sum(calls.values())))
            calls.clear()
    bridge.close()


def _backlog(table: Table, folder: Path) -> None:
    for provider in PROVIDERS:
        bridge = Bridge(f"sqlite:///{folder}/{provider}.sqlite3", (provider,)).connect_all()
        for number in range(BACKLOG):
            person = {"email": f"p{number}@gmail.com", "firstname": "P", "lastname": str(number)}
            bridge.post(sample("booking_created", id=str(number), attendees=[person]))
        started = time.monotonic()
        bridge.settle(300)
        seconds = time.monotonic() - started
        calls = bridge.sandbox(provider).total_calls
        row = f"{calls} calls in {seconds:.1f} s"
        table.add_row(f"{provider}: backlog of {BACKLOG} bookings, one drainer", row)
        bridge.close()


def _posts(table: Table, folder: Path) -> None:
    with running(folder, f"sqlite:///{folder}/posts.sqlite3") as service:
        wait_for(service.ready, 60)
        bodies = [json.dumps(sample("booking_created", id=str(n))).encode() for n in range(POSTS)]
        with ThreadPoolExecutor(8) as pool:
            sessions = [requests.Session() for _ in range(8)]

            def post(item: tuple[int, bytes]) -> float:
                number, body = item
                headers = {
                    "Content-Type": "application/json",
                    "X-Meetergo-Signature": sign_body(SECRET, body),
                }
                begun = time.monotonic()
                url = f"{service.web}/webhooks/meetergo"
                answer = sessions[number % 8].post(url, data=body, headers=headers, timeout=30)
                answer.raise_for_status()
                return time.monotonic() - begun

            started = time.monotonic()
            times = sorted(pool.map(post, enumerate(bodies)))
            seconds = time.monotonic() - started
    table.add_row(f"{POSTS} webhooks by 8 clients, SQLite", f"{POSTS / seconds:.0f} a second")
    table.add_row("webhook, median / 99th of 100", f"{times[POSTS // 2] * 1000:.0f} / {times[POSTS * 99 // 100] * 1000:.0f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
