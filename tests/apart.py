"""A sandbox CRM in its own process, so that measurements share no interpreter with it."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import requests

from sandbox.core import Sandbox
from sandbox.serve import Served, load_sandbox

TIMES, COUNTS = "/_sandbox/times", "/_sandbox/counts"


def _serve(name: str, settings: dict[str, Any], pipe: Connection) -> None:
    sandbox = load_sandbox(name)()
    for key, value in settings.items():
        setattr(sandbox, key, value)
    served = Served(sandbox)
    sandbox.app.add_url_rule(TIMES, "times", lambda: json.dumps(served.times))
    sandbox.app.add_url_rule(COUNTS, "counts", lambda: json.dumps(_counts(sandbox)))
    pipe.send((served.url, served.environment()))
    pipe.recv()


def _counts(sandbox: Sandbox) -> dict[str, int]:
    view = sandbox.view()
    return {"deals": len(view.deals), "meetings": len(view.meetings)}


class Apart:
    """The sandbox of one provider, called by HTTP only."""

    def __init__(self, name: str, **settings: Any) -> None:
        """`settings`: attributes of the sandbox to set first."""
        self._pipe, other = multiprocessing.Pipe()
        # A fork would copy this process's threads and database handles.
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(name, settings, other), daemon=True)
        self._process.start()
        self.url, self._environment = self._pipe.recv()

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point the service at this sandbox."""
        found: dict[str, str] = self._environment
        return found

    def told(self) -> dict[str, Any]:
        """Return the sandbox's own counts: calls, writes, 429 refusals."""
        answer: dict[str, Any] = requests.get(f"{self.url}/_sandbox/calls", timeout=30).json()
        return answer

    def times(self) -> list[tuple[float, float]]:
        """Return the start and end of the work on each call, in seconds of this machine's monotonic
        clock.
        """
        found = requests.get(f"{self.url}{TIMES}", timeout=30).json()
        return [(float(began), float(ended)) for began, ended in found]

    def counts(self) -> dict[str, int]:
        """Return how many deals and meetings the CRM has."""
        answer: dict[str, int] = requests.get(f"{self.url}{COUNTS}", timeout=300).json()
        return answer

    def stop(self) -> None:
        """Stop the process."""
        self._pipe.send("stop")
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
