"""What differs between two texts of a mapping file, line by line. Pure functions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MOST_LINES = 5_000
"""The most lines of a text that are compared: longer ones take seconds."""
AROUND = 3
"""Lines that are shown around a difference."""
Sign = Literal["+", "-", " ", "@"]
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


@dataclass(frozen=True)
class DiffLine:
    """A line that is new (+), gone (-) or unchanged; @ stands for lines that are left out."""

    sign: Sign
    text: str
    old: int | None = None
    """The number of the line in the old text."""
    new: int | None = None


def differences(old: str, new: str) -> list[DiffLine] | None:
    """Return the lines that differ with those around them; [] if none does, None if it is too much."""
    before, after = old.split("\n"), new.split("\n")
    if max(len(before), len(after)) > MOST_LINES:
        return None
    return list(_lines(before, after))


def _lines(before: list[str], after: list[str]) -> Iterator[DiffLine]:
    old = new = 0
    for number, line in enumerate(difflib.unified_diff(before, after, n=AROUND, lineterm="")):
        hunk = _HUNK.match(line)
        if number < 2:
            continue  # the names of the files
        if hunk:
            old, new = int(hunk[1]), int(hunk[2])
            yield DiffLine("@", f"line {new}")
        elif line.startswith("+"):
            yield DiffLine("+", line[1:], None, new)
            new += 1
        elif line.startswith("-"):
            yield DiffLine("-", line[1:], old, None)
            old += 1
        else:
            yield DiffLine(" ", line[1:], old, new)
            old, new = old + 1, new + 1
