"""What the service does not do yet in accounts as they really are: why -> the tests that fail for it.

Take a name out once its test passes: a test that passes and stands here fails (strict). Empty: it does all.
"""

from __future__ import annotations

_FAULTS: dict[str, list[str]] = {}

XFAIL = {name: why for why, names in _FAULTS.items() for name in names}
"""Name of a test -> why it fails."""
