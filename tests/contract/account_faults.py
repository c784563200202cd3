"""Tests of realistic accounts that fail because the service lacks a feature.

Remove a name as soon as its test passes: a listed test that passes counts as a failure (strict).
An empty table means that the service handles every account.
"""

from __future__ import annotations

_FAULTS: dict[str, list[str]] = {}

XFAIL = {name: why for why, names in _FAULTS.items() for name in names}
"""Test name -> the reason why the test fails."""
