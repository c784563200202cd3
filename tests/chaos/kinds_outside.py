"""Faults of the CRMs: what they answer, how, and what becomes of the account."""

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
"""Seconds that a search lags while it is slow."""
JSON = {"Content-Type": "application/json"}
NONSENSE = (
    "{}", "null", "[]", "7", '"ok"', "{", '{"results": null}', '{"data": [null]}',
    "<!doctype html><html><body>Please sign in</body></html>",
)  # fmt: skip
"""Answers with 200 that no call asks for. Nothing at all is not among them: it may be a deletion's."""
HUGE = 64 * 1024 * 1024
"""Bytes of an answer that is too large."""
DRIP, DROPS = 0.5, 40
"""Seconds between two characters of a slow answer, and characters: longer than a call may take."""


def kinds(faults: Faults) -> dict[str, Strike]:
    """The faults by name."""
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
    """Let something go wrong with the next calls to a CRM; it counts once it has met one."""
    fault, sandbox = Fault(**what), free_crm(faults)
    with sandbox.lock:
        sandbox.faults.append(fault)
    return lambda: fault.struck > 0


def free_crm(faults: Faults) -> Any:
    """A CRM at random at which no more than one fault waits for calls.

    A CRM that answers badly is only probed: with more faults than probes it would never come back.
    """
    while True:
        sandbox = faults.crm()
        if len(sandbox.faults) < 2:
            return sandbox
        time.sleep(0.1)


def put_in_api(faults: Faults, times: int | None, sandbox: Any = None, **what: Any) -> Met:
    """Likewise with calls of the API alone: a token is no call."""
    sandbox = sandbox or free_crm(faults)
    fault = Fault(path=sandbox.api_paths, times=times, **what)
    with sandbox.lock:
        sandbox.faults.append(fault)
    return lambda: fault.struck > 0


def put_nonsense(faults: Faults, garbled: bool) -> Met:
    """Let some calls be answered with what no call asks for; `garbled`: after they were obeyed."""
    body = faults.dice.choice(NONSENSE)
    headers = {"Content-Type": "text/html"} if body.startswith("<") else JSON
    times = faults.dice.randint(1, 4)
    return put_in_api(faults, times, status=200, body=body, headers=headers, garbled=garbled)


def refuse(faults: Faults) -> Met:
    """Let a CRM take nothing of the account for some seconds."""
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
    """Take a permission from the tokens that are out; it counts once the service says so."""
    sandbox = faults.crm()
    sandbox.account.lost_scopes = {load_desks()[sandbox.name].needed_scope}

    def end() -> None:
        sandbox.account.lost_scopes = set()

    faults.later(3, 7, end)
    return lambda: faults.system.problem(sandbox.name) == Problem.SCOPE


def let_leave(faults: Faults) -> Met:
    """Deactivate a user for some seconds; it counts where something was written meanwhile."""
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
    """Kill every grant of an account, and connect it again."""
    name = faults.dice.choice(list(faults.system.served))
    faults.system.served[name].sandbox.kill_grants()
    time.sleep(faults.dice.uniform(0, 2))
    faults.system.connect(name)


def slow_search(faults: Faults) -> None:
    """For some seconds a search does not show what was made in the last ones."""
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
