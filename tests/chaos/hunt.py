"""`make chaos-mutants`: plants one bug after the other and runs the tests that have to catch it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.chaos.mutants import MUTANTS

MOST = 900.0
"""The seconds that the tests of one bug may take."""


def main() -> int:
    """Hunt the named bugs, or all; return the exit code."""
    wanted = sys.argv[1:] or list(MUTANTS)
    table = Table("planted bug", "caught by", "seconds")
    console, free = Console(width=120), []
    for name in wanted:
        started = time.monotonic()
        caught = hunt(name)
        seconds = f"{time.monotonic() - started:.0f}"
        table.add_row(name, caught or "[bold red]nothing[/]", seconds)
        console.print(f"{name}: {caught or 'NOT CAUGHT'} ({seconds} s)", highlight=False)
        free += [] if caught else [name]
    console.print(table)
    console.print(f"{len(wanted) - len(free)} of {len(wanted)} planted bugs caught")
    return 1 if free else 0


def hunt(name: str) -> str:
    """Run the tests of a bug with the bug planted; return the first that fails, or an empty text."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *MUTANTS[name].tests]
    environment = {**os.environ, "BRIDGE_MUTANT": name, "THOROUGH": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=MOST
    )
    failed = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py::\S+)", ended.stdout, re.M)
    # Exit code 1 means that a test failed; any other means that the tests did not run.
    return failed[1] if failed and ended.returncode == 1 else ""


if __name__ == "__main__":
    sys.exit(main())
