"""`make fuzz`: hostile requests, mapping files, OAuth callbacks and answers, on loopback alone."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import func, select

from app.store.engine import Store
from app.store.models import EventRow
from tests.bridge import SECRET
from tests.fuzz.hostile import Hostile, raws, webhooks
from tests.postgres import postgres_url
from tests.web import Web, answer_of, status_of, web_process

HANG_SECONDS = 5.0
CLIENTS = 8
KINDS = ["requests", "mappings", "callbacks", "answers"]
ENDLESS = 1 << 40
"""More requests than anybody waits for."""
AT_ONCE = 200
"""The number of requests that are generated and kept together."""
MOST_GROWN = 96
"""The allowed growth of a process since its first request, in MB: for buffers and caches, not leaks."""
STORED = (b'"accepted"', b'"ignored"', b'"quarantined"')
"""The answers to a webhook that was stored now; a duplicate was stored earlier."""


@dataclass
class Report:
    """The requests and their results."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Kind of request and the fault in its answer, each once."""
    slowest: float = 0.0
    stored: int = 0
    rows: int = 0
    grown: int | None = None
    """MB; None if the system does not report it."""

    def add(self, kind: str, hostile: Hostile, answer: bytes, seconds: float, hung: bool) -> None:
        """Count one answer and check it."""
        status = status_of(answer)
        self.sent[kind] += 1
        self.statuses[status] += 1
        self.slowest = max(self.slowest, seconds)
        self.stored += status == 202 and any(word in answer for word in STORED)
        if hung or seconds > HANG_SECONDS:
            self.fault(f"{hostile.kind}: no end after {seconds:.1f} s")
        if status >= 500 and status != 503:
            self.fault(f"{hostile.kind}: {status}")
        if status == 202 and not hostile.signed:
            self.fault(f"{hostile.kind}: taken without a signature")

    def fault(self, words: str) -> None:
        """Record a fault, once."""
        if words not in self.faults:
            self.faults.append(words)

    def close(self, web: Web, database_url: str) -> None:
        """Check the results of the whole run: the rows and the log."""
        store = Store(database_url)
        with store.read() as session:
            self.rows = session.scalar(select(func.count()).select_from(EventRow)) or 0
        store.close()
        if self.rows != self.stored:
            self.fault(f"{self.rows} rows for {self.stored} webhooks that were taken")
        total = sum(self.statuses.values())
        if self.statuses[503] * 100 > total:
            self.fault(f"{self.statuses[503]} of {total} answered 503")
        log = web.log.read_text(encoding="utf-8", errors="replace")
        for words in ("unexpected_error", "Traceback", "ended in", SECRET):
            if words in log:
                self.fault(f"the log holds {words!r}")
        if self.grown is not None and self.grown > MOST_GROWN:
            self.fault(f"a process has grown by {self.grown} MB")


def fuzz(
    web: Web,
    database_url: str,
    seed: int,
    amounts: dict[str, int],
    step: Callable[[str, int], None],
    seconds: float = 1e9,
) -> Report:
    """Send this many hostile webhooks and raw requests; `step` gets each kind and number sent.

    Each kind ends after its part of the seconds, however many are left.
    """
    report, first = Report(), None
    makers = {"webhooks": webhooks, "raw": raws}
    with ThreadPoolExecutor(CLIENTS) as clients:
        for kind, amount in amounts.items():
            stream = islice(makers[kind](seed), amount)
            ends = time.monotonic() + seconds / len(amounts)
            while time.monotonic() < ends and (batch := list(islice(stream, AT_ONCE))):
                answers = clients.map(lambda hostile: _send(web, hostile), batch)
                for hostile, found in zip(batch, answers, strict=True):
                    report.add(kind, hostile, *found)
                step(kind, len(batch))
                first = first or _memory(web)
    last = _memory(web)
    report.grown = max(last) - max(first) if first and last else None
    report.close(web, database_url)
    return report


def _send(web: Web, hostile: Hostile) -> tuple[bytes, float, bool]:
    """Return the answer, the seconds it took, and whether it never ended."""
    began = time.monotonic()
    try:
        wire = web.connect(timeout=HANG_SECONDS)
        try:
            wire.sendall(hostile.sent)
            if hostile.ends:
                wire.shutdown(1)
        except ConnectionError:
            # The server refused before it had all bytes; there may still be an answer.
            pass
        answer, hung = answer_of(wire), False
    except TimeoutError:
        answer, hung = b"", True
    return answer, time.monotonic() - began, hung


def _memory(web: Web) -> list[int]:
    """Return the resident MB of each worker process, if the system reports them."""
    found = []
    try:
        children = Path(f"/proc/{web.process.pid}/task/{web.process.pid}/children").read_text()
        for pid in children.split():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found.append(pages * 4096 // 1_000_000)
    except OSError:
        return []
    return found


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/fuzz.sqlite3"
        return
    with postgres_url() as url:
        yield url


def requests_for(asked: argparse.Namespace, console: Console) -> bool:
    """Run the requests, by number or by minutes, and print the result; return whether all is well."""
    by_number = asked.webhooks or asked.raw
    seconds = 1e9 if by_number else asked.minutes * 60
    amounts = {"webhooks": asked.webhooks, "raw": asked.raw}
    amounts = amounts if by_number else dict.fromkeys(amounts, ENDLESS)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, Progress(console=console) as bars:
        folder = Path(name)
        tasks = {
            kind: bars.add_task(kind, total=n if by_number else None) for kind, n in amounts.items()
        }
        with _database(asked.database, folder) as url, web_process(folder, url) as web:
            report = fuzz(
                web, url, asked.seed, amounts, lambda kind, n: bars.advance(tasks[kind], n), seconds
            )
    table = Table("requests", f"seed {asked.seed}, {asked.database}")
    table.add_row("webhooks, raw requests", f"{report.sent['webhooks']}, {report.sent['raw']}")
    statuses = ", ".join(f"{n} x {s or 'closed'}" for s, n in sorted(report.statuses.items()))
    table.add_row("answers", statuses)
    table.add_row("slowest answer", f"{report.slowest:.1f} s")
    table.add_row("taken, rows stored", f"{report.stored}, {report.rows}")
    table.add_row("memory grown", "not told" if report.grown is None else f"{report.grown} MB")
    table.add_row("time", f"{time.monotonic() - began:.0f} s")
    for words in report.faults:
        table.add_row("FAULT", words)
    Console().print(table)
    return not report.faults


def inside_for(name: str, asked: argparse.Namespace) -> bool:
    """Run one of the fuzzers of tests/fuzz/inside.py in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz.inside", name, str(asked.seed), str(asked.minutes)]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Run from the command line; return the exit code, 1 after any fault."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument(
        "kinds", nargs="*", help=f"some of {', '.join(KINDS)}; all if none is named"
    )
    parser.add_argument("--minutes", type=float, default=10, help="for each kind")
    parser.add_argument(
        "--webhooks", type=int, default=0, help="this many requests, and no other kind"
    )
    parser.add_argument("--raw", type=int, default=0)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    by_number = asked.webhooks or asked.raw
    kinds = ["requests"] if by_number else asked.kinds or KINDS
    unknown = set(kinds) - set(KINDS)
    if unknown:
        parser.error(f"there is no kind {', '.join(sorted(unknown))}")
    console = Console(stderr=True)
    good = [
        requests_for(asked, console) if kind == "requests" else inside_for(kind, asked)
        for kind in kinds
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
