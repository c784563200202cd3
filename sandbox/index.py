"""Finds records by their values."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.answers import Record


class Index:
    """Finds records by a value without a look at each of ten thousand."""

    def __init__(self, keys: Callable[[Record], list[str]]) -> None:
        """`keys`: returns the values by which a record can be found."""
        self._keys = keys
        self._places: dict[str, set[str]] = {}

    def note(self, record_id: str, record: Record) -> None:
        """Add a record, or update it after a change."""
        for value in self._keys(record):
            self._places.setdefault(value, set()).add(record_id)

    def find(self, table: dict[str, Record], value: str) -> list[Record]:
        """Return the records that have this value now. Small tables are searched directly."""
        places = list(table) if len(table) <= 200 else sorted(self._places.get(value, ()))
        return [table[i] for i in places if i in table and value in self._keys(table[i])]
