"""A process that calls servers with endless answers and reports how each call ended.

`python -m tests.greedy` reads {kind of answer: address} as JSON, and prints {kind: {caller: [error,
seconds]}} and the growth of this process in megabytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.crm.port import Access
from app.meetergo.client import MeetergoClient
from app.oauth import exchange
from config.providers import load_providers
from config.settings import CONFIG_DIR
from crm_adapters.guard import guarded
from tests.bridge import ADAPTERS
from tests.contract.calls import Tokens, Untiring

TIMEOUT = 1.0
"""HTTP_TIMEOUT and OAUTH_TIMEOUT, in seconds."""


def callers(url: str) -> dict[str, Callable[[], object]]:
    """Return every outside call of the service, pointed at one address."""
    entry = load_providers(CONFIG_DIR / "providers.yaml", {})["hubspot"]
    ends = {"token_url": f"{url}/token", "revoke_url": f"{url}/r", "introspect_url": f"{url}/i"}
    entry = entry.model_copy(update=ends)
    asks: dict[str, Callable[[], object]] = {
        name: guarded(adapter(Access(url, Tokens(), TIMEOUT, gate=Untiring()))).whoami
        for name, adapter in ADAPTERS.items()
    }
    return {
        **asks,
        "refresh": lambda: exchange.refresh(entry, "r", TIMEOUT),
        "revoke": lambda: exchange.revoke(entry, "r", TIMEOUT),
        "introspect": lambda: exchange.introspect(entry, "t", TIMEOUT),
        "meetergo": lambda: MeetergoClient(url, "key", "", TIMEOUT).appointment("a"),
    }


def ask(call: Callable[[], object]) -> tuple[str, float]:
    """Return how a call ends, and after how many seconds."""
    begun = time.monotonic()
    try:
        ended = repr(call())
    except Exception as error:
        # Any error is a result: the parent process judges it.
        ended = type(error).__name__
    return ended, time.monotonic() - begun


def memory() -> float:
    """Return the largest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Make all calls: one by one for large answers, all together for slow ones."""
    where: dict[str, str] = json.load(sys.stdin)
    for call in callers(where["refused"]).values():
        ask(call)
    before = memory()
    told = {
        how: {who: ask(call) for who, call in callers(url).items()}
        for how, url in where.items()
        if how.startswith("large")
    }
    grown = memory() - before
    slow = {how: callers(url) for how, url in where.items() if how.startswith("slow")}
    with ThreadPoolExecutor(sum(len(calls) for calls in slow.values())) as pool:
        pending = {
            how: {who: pool.submit(ask, call) for who, call in calls.items()}
            for how, calls in slow.items()
        }
    for how, asked in pending.items():
        told[how] = {who: ended.result() for who, ended in asked.items()}
    json.dump({"told": told, "grown": grown}, sys.stdout)


if __name__ == "__main__":
    main()
