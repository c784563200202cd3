"""The thread that writes one batch while the next one is prepared."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context

from app.store.engine import DATABASE_DOWN
from workers.batch import Batch
from workers.lease import LeaseLost


class Lane:
    """Writes one batch at a time, in a thread of its own."""

    def __init__(self, writer: ThreadPoolExecutor) -> None:
        self._writer = writer
        self._ending: Future[None] | None = None
        self.writes: Batch | None = None
        self.wrote = False
        """Whether it has had anything to write."""

    def write(self, batch: Batch) -> None:
        """Write a batch after the one before it; if that one failed, raise its error instead."""
        try:
            self.end()
        except Exception:
            with suppress(LeaseLost, *DATABASE_DOWN):
                batch.release()
            raise
        self.writes, self.wrote = batch, True
        # The lines of the log and the spans of the other thread say which connection they are about, too.
        self._ending = self._writer.submit(copy_context().run, batch.apply)

    def end(self) -> None:
        """Wait for the batch that is being written, and raise its error if it failed."""
        ending, self.writes, self._ending = self._ending, None, None
        if ending:
            ending.result()
