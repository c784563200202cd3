"""The amount of the long tests: a part in a normal run, all in `make thorough`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
THOROUGH = bool(os.environ.get("THOROUGH"))
"""Whether the long tests run in full."""


def some(items: Sequence[Item], each: int) -> list[Item]:
    """Return every n-th item, or all items in a thorough run."""
    return list(items if THOROUGH else items[::each])
