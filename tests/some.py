"""Which tests `make test` leaves to `make test-all`, so that it can be run at every change.

Every test runs, but of the variants of one test (CRMs, databases, kinds of account) only one or a few. Which
ones is decided by their names: always the same, and each CRM and database gets its share. Tests
with the mark `long` (real processes that die, simulated days) are left out as a whole.
"""

from __future__ import annotations

import os
from collections import defaultdict
from zlib import crc32

import pytest

from tests.bridge import PROVIDERS

SOME = bool(os.environ.get("SOME"))
"""Whether this is a run of `make test`."""
FEW = 1
"""Variants of a test, apart from its CRM and its database; the mark `variants` sets another number."""
SAME = {*PROVIDERS, "sqlite", "postgresql"}


def left_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests that a short run leaves out."""
    out = [item for item in items if item.get_closest_marker("long")]
    variants: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if (
            not item.get_closest_marker("long")
            and "[" in item.nodeid
            and "unit/" not in item.nodeid
        ):
            name, _, variant = item.nodeid.partition("[")
            alike = "-".join(part for part in variant.rstrip("]").split("-") if part not in SAME)
            variants[name][alike].append(item)
    for groups in variants.values():
        mark = next(iter(groups.values()))[0].get_closest_marker("variants")
        few = mark.args[0] if mark else FEW
        kept = sorted(groups, key=_draw)[:few]
        for alike, group in groups.items():
            stays = min(group, key=lambda item: _draw(item.nodeid)) if alike in kept else None
            out += [item for item in group if item is not stays]
    return out


def _draw(name: str) -> int:
    return crc32(name.encode())
