"""Looks the pinned packages up for known holes: `make audit`, which CI runs too.

Without a way to the advisory service it says so and exits 0: a machine without a network shall not
stop for that. A known hole exits 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SECONDS = 180
"""How long the look-up may take."""
OUT_OF_REACH = (
    "The advisory service cannot be reached from here: no package was checked. Run `make audit` where"
    " https://pypi.org is reachable."
)


def main() -> int:
    """Run pip-audit over constraints.txt; return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps",
               "--disable-pip", "--format", "json", "--progress-spinner", "off"]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        print(OUT_OF_REACH)
        return 0
    code, lines = judged(done.stdout)
    print("\n".join(lines))
    return code


def judged(output: str) -> tuple[int, list[str]]:
    """Return the exit code and the sentences for what pip-audit printed."""
    try:
        found: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return 0, [OUT_OF_REACH]
    checked = [item for item in found if "skip_reason" not in item]
    if not checked:
        return 0, [OUT_OF_REACH]
    holes = [
        f"{item['name']} {item['version']}: {hole['id']}, mended in"
        f" {', '.join(hole['fix_versions']) or 'no version yet'}"
        for item in checked
        for hole in item["vulns"]
    ]
    unknown = len(found) - len(checked)
    lines = [f"{len(checked)} packages were checked, {len(holes)} known holes were found."]
    if unknown:
        lines.append(f"The advisory service does not know {unknown} more packages.")
    return (1 if holes else 0), lines + holes


if __name__ == "__main__":
    sys.exit(main())
