"""Finds records by what they hold."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.answers import Record


class Index:
    """Finds the records that hold a value without looking at each of ten thousand."""

    def __init__(self, keys: Callable[[Record], list[str]]) -> None:
        """`keys`: the values under which a record is to be found."""
        self._keys = keys
        self._places: dict[str, set[str]] = {}

    def note(self, record_id: str, record: Record) -> None:
        """Know a record, or what has changed of it."""
        for value in self._keys(record):
            self._places.setdefault(value, set()).add(record_id)

    def find(self, table: dict[str, Record], value: str) -> list[Record]:
        """The records that hold a value now. Small tables are looked through, however they came."""
        places = list(table) if len(table) <= 200 else sorted(self._places.get(value, ()))
        return [table[i] for i in places if i in table and value in self._keys(table[i])]
