"""Faults of the CRMs: their answers, and changes of the account."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from app.store.connections import Problem
from sandbox.faults import Fault
from tests.chaos.history import LEAVER
from tests.contract.desk import load_desks

if TYPE_CHECKING:
    from tests.chaos.faults import Faults, Met, Strike

LAG = 2.0
"""The seconds that a slow search lags."""
JSON = {"Content-Type": "application/json"}
NONSENSE = (
    "{}", "null", "[]", "7", '"ok"', "{", '{"results": null}', '{"data": [null]}',
    "<!doctype html><html><body>Please sign in</body></html>",
)  # fmt: skip
"""Answers with 200 that fit no call. An empty answer is not among them, because a delete has one."""
HUGE = 64 * 1024 * 1024
"""The bytes of an answer that is too large."""
DRIP, DROPS = 0.5, 40
"""The seconds between two characters of a slow answer, and their number: longer than a call may take."""


def kinds(faults: Faults) -> dict[str, Strike]:
    """Return the faults by name."""
    dice = faults.dice
    return {
        "429 storm": lambda: put(
            faults, status=429, body="{}", times=dice.randint(3, 15), headers={"Retry-After": "1"}
        ),
        "500s": lambda: put(faults, status=500, body="oops", times=dice.randint(1, 6)),
        "answers lost": lambda: put(faults, drop_after_commit=True, times=dice.randint(1, 4)),
        "slow answers": lambda: put(faults, latency=0.7, times=3),
        "nonsense instead of an answer": lambda: put_nonsense(faults, garbled=False),
        "nonsense after it was done": lambda: put_nonsense(faults, garbled=True),
        "dripping answer": lambda: put_in_api(
            faults, 1, status=200, body="{" + " " * DROPS, drip=DRIP, headers=JSON
        ),
        "huge answer": lambda: put_in_api(faults, 1, status=200, huge=HUGE, headers=JSON),
        "account refused, and its end": lambda: refuse(faults),
        "scope taken and given back": lambda: take_scope(faults),
        "user deactivated and back": lambda: let_leave(faults),
        "access tokens dead": lambda: faults.crm().expire_access_tokens(),
        "grant revoked, connected again": lambda: revoke(faults),
        "slow search": lambda: slow_search(faults),
    }


def put(faults: Faults, **what: Any) -> Met:
    """Add a fault to the next calls of a CRM; it counts once a call has met it."""
    fault, sandbox = Fault(**what), free_crm(faults)
    with sandbox.lock:
        sandbox.faults.append(fault)
    return lambda: fault.struck > 0


def free_crm(faults: Faults) -> Any:
    """Return a random CRM with at most one pending fault.

    A CRM with bad answers only gets probes: with more faults than probes it would never recover.
    """
    while True:
        sandbox = faults.crm()
        if len(sandbox.faults) < 2:
            return sandbox
        time.sleep(0.1)


def put_in_api(faults: Faults, times: int | None, sandbox: Any = None, **what: Any) -> Met:
    """Add a fault to API calls only; token calls are not affected."""
    sandbox = sandbox or free_crm(faults)
    fault = Fault(path=sandbox.api_paths, times=times, **what)
    with sandbox.lock:
        sandbox.faults.append(fault)
    return lambda: fault.struck > 0


def put_nonsense(faults: Faults, garbled: bool) -> Met:
    """Answer some calls with nonsense; `garbled`: after the CRM has done their work."""
    body = faults.dice.choice(NONSENSE)
    headers = {"Content-Type": "text/html"} if body.startswith("<") else JSON
    times = faults.dice.randint(1, 4)
    return put_in_api(faults, times, status=200, body=body, headers=headers, garbled=garbled)


def refuse(faults: Faults) -> Met:
    """Make a CRM reject all calls of the account for some seconds."""
    sandbox = free_crm(faults)
    status, body = load_desks()[sandbox.name].blocked
    words = json.dumps(body)
    met = put_in_api(faults, None, sandbox, status=status, body=words, headers=JSON)

    def end() -> None:
        with sandbox.lock:
            sandbox.faults[:] = [fault for fault in sandbox.faults if fault.body != words]

    faults.later(3, 7, end)
    return met


def take_scope(faults: Faults) -> Met:
    """Remove a permission from the current tokens; the fault counts once the service reports it."""
    sandbox = faults.crm()
    sandbox.account.lost_scopes = {load_desks()[sandbox.name].needed_scope}

    def end() -> None:
        sandbox.account.lost_scopes = set()

    faults.later(3, 7, end)
    return lambda: faults.system.problem(sandbox.name) == Problem.SCOPE


def let_leave(faults: Faults) -> Met:
    """Deactivate a user for some seconds; the fault counts if something was written meanwhile."""
    sandbox, met = faults.crm(), threading.Event()
    before = sandbox.writes()
    sandbox.account.user_leaves(LEAVER)

    def end() -> None:
        if sandbox.writes() > before:
            met.set()
        sandbox.account.user_returns(LEAVER)

    faults.later(3, 7, end)
    return met.is_set


def revoke(faults: Faults) -> None:
    """Revoke every grant of an account, and connect it again."""
    name = faults.dice.choice(list(faults.system.served))
    faults.system.served[name].sandbox.kill_grants()
    time.sleep(faults.dice.uniform(0, 2))
    faults.system.connect(name)


def slow_search(faults: Faults) -> None:
    """Hide records of the last seconds from the search, for some seconds."""
    sandbox = faults.crm()
    if not hasattr(sandbox, "search_lag"):
        sandbox = faults.system.served["pipedrive"].sandbox
    kind = type(next(iter(sandbox.records["deals"]), 0))

    def lag() -> None:
        until, seen = time.monotonic() + 6, []
        while time.monotonic() < until:
            seen.append((time.monotonic(), sandbox.next_id))
            old = [number for at, number in seen if at < time.monotonic() - LAG] or [seen[0][1]]
            sandbox.search_lag = {kind(n) for n in range(old[-1] + 1, sandbox.next_id + 50)}
            time.sleep(0.05)
        sandbox.search_lag = set()

    threading.Thread(target=lag, daemon=True).start()
