"""How long a text may be that is kept as it is: for what reads it and for the column that holds it."""

from __future__ import annotations

import re

SOURCE_NAME = 64
EVENT_TYPE = 100
BOOKING_KEY = 400
"""`source:id`."""
LOGIN_HOST = 200
NEXT_PATH = 300
KEY_NAME = 100
TYPE_ID = 100
_SOURCE = re.compile(rf"[a-z0-9._-]{{1,{SOURCE_NAME}}}")
LARGEST_ID = 2**31 - 1
"""The number of a row, as a person or a script may give it."""


def is_source_name(name: str) -> bool:
    """Whether a text can be the name of a source; any other is not even looked up."""
    return bool(_SOURCE.fullmatch(name))
