"""Calls of several threads that are done as one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.services.together import Together


class Groups:
    """An action that notes its groups; the first one waits until it is let go."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.first, self.go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        """Double each item; refuse 13."""
        self.seen.append(list(items))
        if not self.first.is_set():
            self.first.set()
            assert self.go.wait(20)
        if 13 in items:
            raise ValueError("13")
        if 99 in items:
            raise OSError("away")
        return [2 * item for item in items]


def is_thirteen(error: BaseException) -> bool:
    """Whether one item is to blame."""
    return isinstance(error, ValueError)


def together(*items: int) -> tuple[list[list[int]], list[object]]:
    """Call with 1, and with the items while that one is under way; return groups and results."""
    groups = Groups()
    call = Together(groups, is_thirteen)

    def one(item: int) -> object:
        try:
            return call(item)
        except (ValueError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(len(items) + 1) as pool:
        first = pool.submit(one, 1)
        assert groups.first.wait(20)
        others = [pool.submit(one, item) for item in items]
        while len(call._waiting) < len(items):
            assert not any(other.done() for other in others)
        groups.go.set()
        results = [other.result(20) for other in others]
        assert first.result(20) == 2
    return groups.seen, results


def test_what_comes_during_a_run_is_done_in_the_next_one() -> None:
    """Twenty calls during one run need one more run, and each gets its own result."""
    seen, results = together(*range(20, 40))
    assert (len(seen), sorted(seen[1])) == (2, list(range(20, 40)))
    assert results == list(range(40, 80, 2))


def test_what_one_item_causes_is_its_own_error() -> None:
    """An item that cannot be done fails alone."""
    seen, results = together(12, 13, 14)
    assert results == [24, "13", 28]
    assert len(seen) == 5


def test_an_error_for_all_is_told_to_all() -> None:
    """An error that no item causes is raised by every call of the group, after one try."""
    seen, results = together(12, 99, 14)
    assert results == ["away"] * 3
    assert len(seen) == 2


def test_an_action_that_returns_too_few_results_is_a_fault() -> None:
    """Nobody gets the result of another one."""
    with pytest.raises(ValueError, match="shorter"):
        Together(lambda items: list[int]())(1)
