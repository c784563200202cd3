"""Does for several threads at once what each of them asks for: one commit, or one wake-up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

BUSY = 0.02
"""A call within so many seconds after the last run waits for company."""
PAUSE = 0.002
"""How many seconds it waits at the most; a call to an action at rest does not wait at all."""
ENOUGH = 8
"""With so many calls a group does not wait for more: a web process has eight threads."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Call(Generic[Item, Result]):
    item: Item
    result: Result | None = None
    error: BaseException | None = None
    done: bool = False


class Together(Generic[Item, Result]):
    """Groups calls: what comes in while the action runs is done together in its next run.

    The first thread of a group runs the action for all of it; there is no thread of its own.
    """

    def __init__(
        self,
        action: Callable[[Sequence[Item]], Sequence[Result]],
        is_of_one: Callable[[BaseException], bool] = lambda error: False,
        pause: float = PAUSE,
    ) -> None:
        """`action` takes the items of a group and returns a result for each.

        `pause`: how many seconds a busy action waits for company; 0: it takes who is there.
        Its error is for all of them, unless `is_of_one` says that one item is to blame: then each
        is tried alone.
        """
        self._action = action
        self._is_of_one = is_of_one
        self._pause = pause
        self._waiting: list[_Call[Item, Result]] = []
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._ended = -BUSY

    def __call__(self, item: Item) -> Result:
        """Return the action's result for this item, or raise the action's error."""
        call: _Call[Item, Result] = _Call(item)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
        with self._turn:
            if not call.done:
                self._run()
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]  # set whenever there is no error

    def _run(self) -> None:
        with self._changed:
            if self._pause and time.monotonic() - self._ended < BUSY:
                self._changed.wait_for(lambda: len(self._waiting) >= ENOUGH, self._pause)
            group, self._waiting = self._waiting, []
        self._try(group)
        for call in group:
            call.done = True
        self._ended = time.monotonic()

    def _try(self, group: Sequence[_Call[Item, Result]]) -> None:
        try:
            results = self._action([call.item for call in group])
        except BaseException as error:
            if len(group) > 1 and self._is_of_one(error):
                for call in group:
                    self._try([call])
                return
            for call in group:
                call.error = error
            return
        for call, result in zip(group, results, strict=True):
            call.result = result
