"""Keeps the search index up to date, in small steps; it can always be made anew."""

from __future__ import annotations

from collections.abc import Callable

from app.security.encryption import Cipher
from app.store.engine import Store
from app.store.search import anything_to_index, index_some

CHUNK = 200
"""Bookings in one transaction."""


class SearchIndex:
    """Writes the terms of bookings that have changed. Several processes may do so."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    def run(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Bring the index up to date; return how many bookings were behind."""
        done = 0
        while not stopping() and self._is_behind():
            number = self._store.attempt(lambda session: index_some(session, self._cipher, CHUNK))
            done += number
        return done

    def _is_behind(self) -> bool:
        """Whether a booking waits; a look locks nothing."""
        with self._store.read() as session:
            return anything_to_index(session)
