"""How much the long tests do: a part of it with all other tests, all of it by `make thorough`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
THOROUGH = bool(os.environ.get("THOROUGH"))
"""Whether there is time for all."""


def some(items: Sequence[Item], each: int) -> list[Item]:
    """Every so many-th of them; all where there is time."""
    return list(items if THOROUGH else items[::each])
