"""Reads docs/mappings.md for the tests: its files, commands, fragments and tables."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from app.domain.booking import Booking
from app.domain.events import read_booking, read_event
from app.mapping.mapping import lay_over
from config.settings import CONFIG_DIR

PAGE = Path(__file__).parent.parent / "docs" / "mappings.md"
NOW = datetime(2027, 1, 4, 9, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the word after it, its text, the line of its start."""

    language: str
    about: str
    text: str
    line: int


def blocks(language: str) -> list[Block]:
    """Return every block of a language, in order."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", page, re.S | re.M)
    return [
        Block(m[1], m[2] or "", m[3], page[: m.start()].count("\n") + 1)
        for m in found
        if m[1] == language
    ]


def file(name: str) -> str:
    """Return the text of a file that the page shows in full."""
    (block,) = [b for kind in ("yaml", "json") for b in blocks(kind) if b.about == name]
    return block.text


def fragments() -> list[Block]:
    """Return the YAML blocks that are no whole file; `about` names the CRM."""
    return [b for b in blocks("yaml") if "." not in b.about]


def tables(first: str) -> list[list[list[str]]]:
    """Return the rows of every table with this first column heading, with escaped pipes restored."""
    found, rows = [], None
    for text in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", text)[1:-1]]
        if not cells:
            rows = None
        elif rows is not None and not set("".join(cells)) <= set("-"):
            rows.append(cells)
        elif rows is None:
            rows = []
            if cells[0] == first:
                found.append(rows)
    return found


def listed_titles(beginning: str) -> list[str]:
    """The titles of the CRMs that stand behind the beginning of a sentence, with strokes between."""
    (line,) = re.findall(rf"^{beginning} (\S+(?: / \S+)*)", PAGE.read_text("utf-8"), re.MULTILINE)
    return str(line).split(" / ")


def code(cell: str) -> list[str]:
    """Return the texts in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def yaml(text: str) -> Any:
    """Return a YAML text as plain types."""
    return YAML(typ="safe").load(text)


def whole(fragment: str, crm: str = "hubspot") -> str:
    """Return the default file of a CRM with a fragment merged in, as text."""
    base = yaml((CONFIG_DIR / "mappings" / f"{crm or 'hubspot'}.yaml").read_text(encoding="utf-8"))
    out = StringIO()
    dump = YAML()
    dump.representer.ignore_aliases = lambda _: True
    dump.dump(lay_over(base, yaml(fragment) or {}), out)
    return out.getvalue()


def booking() -> Booking:
    """Return the booking of the page's examples."""
    return read_booking(read_event("default", json.loads(file("payload.json")), NOW))
