"""`make chaos SEED=.. BOOKINGS=..`: bookings into three CRMs while everything fails, then the count.

The records have to be those of a run without a fault: nothing lost, doubled or stale.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bridge import PROVIDERS, Bridge, wait_for
from tests.chaos.faults import Faults
from tests.chaos.history import History, make, pulse
from tests.chaos.system import SWEEP, System, serve
from tests.contract.test_convergence import picture
from tests.postgres import postgres_url

POSTERS = 4
MOSTLY = 0.7
"""The share of the work that is done while faults strike."""
BEAT = 0.7
"""The seconds between two states of the busy booking while faults strike."""
PATIENCE = 900.0
"""The seconds that the system has to settle after the last fault."""
console = Console(width=110)


@dataclass
class Verdict:
    """The result of a run."""

    struck: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the result equals that of a run without faults."""
        return not self.wrong


MORE = ("web-2", "scheduler-2")


def run(
    folder: Path,
    database_url: str,
    seed: int,
    bookings: int,
    given: argparse.Namespace | None = None,
) -> Verdict:
    """Run once. The posts are deterministic; the times of the faults also depend on the machine."""
    how: dict[str, Any] = {"mutant": given.mutant, "unsigned": given.unsigned} if given else {}
    if given and given.many:
        how |= {"workers": tuple(f"worker-{n}" for n in (1, 2, 3)), "more": MORE}
    started = time.monotonic()
    history = make(seed, bookings)
    expected = oracle(folder, history)
    verdict = Verdict()
    with ExitStack() as stack:
        system = System(folder, database_url, console.print, **how)
        stack.callback(system.stop)
        for served in system.served.values():
            served.sandbox.calls.clear()
        strike(system, history, seed, verdict)
        for state in history.last:
            system.post(state)
        settle(system, history, verdict)
        for provider in PROVIDERS:
            verdict.wrong += compare(system, provider, expected[provider], history)
        outlast(system, verdict, "two sweeps", lambda: time.sleep(2 * SWEEP + 1))
        for turn in ("a replay of everything", "a second one"):
            outlast(system, verdict, turn, lambda: replay(system, history, verdict))
        verdict.calls = {name: s.sandbox.total_calls for name, s in system.served.items()}
    verdict.seconds = time.monotonic() - started
    return verdict


def strike(system: System, history: History, seed: int, verdict: Verdict) -> None:
    """Post everything while faults strike, until each fault has struck and most bookings are synced."""
    faults = Faults(system, seed, 0.5 if len(history.newest) < 100 else 3.0)
    still = threading.Event()

    def beat() -> None:
        # The last fault must find work in progress too.
        number = 0
        while not still.wait(BEAT):
            system.post(pulse(number))
            number += 1

    with ThreadPoolExecutor(POSTERS + 1) as pool:
        beating = pool.submit(beat)
        try:
            faults.start()
            for _ in pool.map(system.post, history.posts):
                pass
            # Most of the work is still to be done.
            most = MOSTLY * history.stories * len(PROVIDERS)
            wait_for(lambda: system.states().get("synced", 0) >= most, PATIENCE)
            faults.stop()
        finally:
            still.set()
        beating.result()
    verdict.struck = faults.struck
    verdict.wrong += [f"{name} never struck" for name in faults.kinds if not faults.struck[name]]


def oracle(folder: Path, history: History) -> dict[str, dict[str, Any]]:
    """Return each CRM's records if only the newest states come and nothing fails."""
    bridge = Bridge(f"sqlite:///{folder}/oracle.sqlite3", served=serve())
    bridge.connect_all()
    for state in history.newest:
        bridge.post(state)
    bridge.settle(PATIENCE)
    seen = {provider: picture(bridge, provider) for provider in PROVIDERS}
    bridge.close()
    return seen


def settle(system: System, history: History, verdict: Verdict) -> None:
    """Wait until every booking is synced or skipped because another one replaced it."""
    wanted = {"synced": history.stories * len(PROVIDERS)}
    if history.replaced:
        wanted["skipped"] = history.replaced * len(PROVIDERS)
    until, before = time.monotonic() + PATIENCE, 0.0
    while (states := system.states()) != wanted:
        if states.get("failed"):
            verdict.wrong.append(f"{states['failed']} deliveries failed: {system.failures()}")
            return
        if time.monotonic() > until:
            verdict.wrong.append(f"not everything is synced in the end: {system.states()}")
            return
        if time.monotonic() - before > 10:
            before = time.monotonic()
            console.print(f"  {system.states()}", highlight=False)
        time.sleep(0.3)


def compare(system: Any, provider: str, expected: dict[str, Any], history: History) -> list[str]:
    """Return the lost, duplicate and stale records of a CRM."""
    view = SandboxView(system).sandbox(provider).view()
    wrong = []
    for kind, records in (("deal", view.deals), ("meeting", view.meetings)):
        if len(records) != history.stories:
            wrong.append(f"{provider}: {len(records)} {kind}s for {history.stories} stories")
            known = expected[f"{kind}s"]
            more = [d.booking for d in view.deals if kind == "deal" and d.booking not in known]
            wrong += [f"{provider}: the deal of {booking} is one too many" for booking in more[:5]]
    emails = Counter(contact.email for contact in view.contacts)
    wrong += [f"{provider}: contact {e} {n} times" for e, n in emails.items() if n > 1]
    newest = {p["email"] for state in history.newest for p in state["attendees"]}
    wrong += [f"{provider}: contact {email} is lost" for email in sorted(newest - set(emails))]
    wrong += [f"{provider}: who is {email}?" for email in sorted(set(emails) - history.people)]
    domains = Counter(company.domain for company in view.companies)
    wrong += [f"{provider}: company {d} {n} times" for d, n in domains.items() if n > 1]
    if wrong:
        return wrong
    seen = picture(SandboxView(system), provider)
    for kind in ("deals", "meetings"):
        for key, record in expected[kind].items():
            if seen[kind].get(key) != record:
                wrong.append(
                    f"{provider}: {kind} of {key} stale: {seen[kind].get(key)} != {record}"
                )
    return wrong


class SandboxView:
    """The part of a bridge that `picture` needs."""

    def __init__(self, system: System) -> None:
        self._system = system

    def sandbox(self, provider: str) -> Any:
        """Return the sandbox of a provider."""
        return self._system.served[provider].sandbox


def outlast(system: System, verdict: Verdict, what: str, action: Any) -> None:
    """Run an action that brings no new state; nothing may be written."""
    before = {name: served.sandbox.writes() for name, served in system.served.items()}
    action()
    for name, served in system.served.items():
        number = served.sandbox.writes() - before[name]
        if number:
            said = "\n".join(list(served.sandbox.written)[-min(number, 5) :])
            verdict.wrong.append(f"{number} calls to {name} wrote something after {what}:\n{said}")


def replay(system: System, history: History, verdict: Verdict) -> None:
    """Replay every stored webhook and wait until all bookings are synced again."""
    system.command("events", "replay", "--all")
    settle(system, history, verdict)


def main() -> int:
    """Run, print the result, return the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bookings", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--mutant", default="")
    parser.add_argument("--many", action="store_true", help="3 workers, 2 webs, 2 schedulers")
    parser.add_argument("--unsigned", action="store_true", help="ask meetergo about each webhook")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/bridge.sqlite3"
        if given.database == "postgresql":
            url = stack.enter_context(postgres_url())
        verdict = run(Path(folder), url, given.seed, given.bookings, given)
        show(verdict, given.seed, given.bookings)
        if not verdict.good:
            kept = Path(tempfile.gettempdir()) / f"chaos-{given.seed}.log"
            kept.write_bytes((Path(folder) / "log").read_bytes())
            console.print(f"What the processes printed: {kept}")
    return 0 if verdict.good else 1


def show(verdict: Verdict, seed: int, bookings: int) -> None:
    """Print the faults and the errors found."""
    table = Table("fault", "struck", title=f"Seed {seed}, {bookings} bookings")
    for name, number in sorted(verdict.struck.items()):
        table.add_row(name, str(number))
    console.print(table)
    for line in verdict.wrong[:40]:
        console.print(line, style="red", markup=False, highlight=False)
    if len(verdict.wrong) > 40:
        console.print(f"... and {len(verdict.wrong) - 40} more")
    calls = ", ".join(f"{name} {number}" for name, number in verdict.calls.items())
    end = "0 lost, 0 doubled, 0 stale" if verdict.good else f"{len(verdict.wrong)} things are wrong"
    console.print(f"{end}, {verdict.seconds:.0f} s, calls: {calls}")


if __name__ == "__main__":
    threading.excepthook = lambda args: console.print(f"{args.exc_type.__name__} in a thread")
    sys.exit(main())
