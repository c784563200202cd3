"""Tables in a terminal that never break a word: ids, keys and addresses stay whole."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

BESIDE = 3
"""Columns that rich needs beside the text of each column: a border and two blanks."""


def table_of(items: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> Table:
    """A table of items; `columns`: the head of each column and the key of its values."""
    table = Table(*columns)
    for item in items:
        table.add_row(*(Text(in_words(item[key])) for key in columns.values()))
    return table


def in_words(value: object) -> str:
    """A value as people read it in a cell: times in UTC to the minute, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return f"{moment:%Y-%m-%d %H:%M}"
    if isinstance(value, Collection) and not isinstance(value, str):
        return ", ".join(map(in_words, value))
    return str(value)


def print_table(table: Table, err: bool = False) -> None:
    """Print a table as wide as the terminal; where a word would be broken, print it by lines.

    If the output is no terminal and COLUMNS is not set, the table is as wide as it needs.
    """
    console = Console(highlight=False, stderr=err)
    cells = [[_plain(column.header), *map(_plain, column.cells)] for column in table.columns]
    least = [
        max(cell_len(word) for text in texts for word in ["", *text.split()]) for texts in cells
    ]
    most = [max(cell_len(line) for text in texts for line in text.split("\n")) for texts in cells]
    beside = BESIDE * len(cells) + 1
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = sum(most) + beside
    room = console.width - beside
    if sum(least) > room:
        _print_lines(cells, err)
        return
    for column, width in zip(table.columns, _share(least, most, room), strict=True):
        column.width = width
    console.print(table)


def _share(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """The width of each column: its longest word, and what is left by how much more it wants."""
    wants = [high - low for low, high in zip(least, most, strict=True)]
    spare, wanted = room - sum(least), sum(wants)
    if wanted <= spare:
        return list(most)
    return [low + want * spare // wanted for low, want in zip(least, wants, strict=True)]


def _print_lines(cells: Sequence[Sequence[str]], err: bool) -> None:
    """Print each row as lines `head: value`, without the empty ones, and a blank line behind."""
    console = Console(highlight=False, markup=False, soft_wrap=True, stderr=err)
    heads = [texts[0] for texts in cells]
    for row in zip(*(texts[1:] for texts in cells), strict=True):
        for head, text in zip(heads, row, strict=True):
            if text:
                console.print(f"{head}: {', '.join(text.splitlines())}")
        console.print()


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
