"""`make bench`: measures everything, prints it and writes it into docs/benchmarks.md.

`make bench ARGS="ingest latency"` measures these parts only, and prints them.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.store.engine import utcnow
from tests.bench import backlog, costs, ingest, latency, rows, scale

PARTS = {
    "costs": costs,
    "ingest": ingest,
    "latency": latency,
    "scale": scale,
    "backlog": backlog,
    "rows": rows,
}
PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

`make bench` measured this and wrote this page; nothing here is asserted by a test. The load, the CRMs (the sandboxes)
and the service share the machine, so each figure is of one run on it; compare only what stands in one line.

"""


def main() -> None:
    """Measure the named parts, or all of them."""
    console = Console(width=110)
    chosen = sys.argv[1:] or list(PARTS)
    tables = []
    for name in chosen:
        module = PARTS[name]
        title = (module.__doc__ or name).strip().splitlines()[0]
        tables.append(Table("what", "figure", title=title))
        with tempfile.TemporaryDirectory() as folder:
            module.measure(tables[-1], Path(folder))
        console.print(tables[-1])
    if chosen == list(PARTS):
        PAGE.write_text(HEAD + _machine() + "".join(map(_markdown, tables)), encoding="utf-8")
        console.print(f"Written into {PAGE.name}.")


def _machine() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return (
        f"{utcnow():%Y-%m-%d}, commit {told.stdout.strip() or 'unknown'}: {os.cpu_count()} cores"
        f" ({platform.machine()}), {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}.\n"
    )


def _markdown(table: Table) -> str:
    cells = zip(*(list(column.cells) for column in table.columns), strict=True)
    rows = "".join(f"| {what} | {figure} |\n" for what, figure in cells)
    return f"\n## {table.title}\n\n| what | figure |\n|---|---|\n{rows}"


if __name__ == "__main__":
    main()
