"""The most characters of texts that are stored as they are: for their readers and their columns."""

from __future__ import annotations

import re

SOURCE_NAME = 64
EVENT_TYPE = 100
BOOKING_KEY = 400
"""`source:id`."""
LOGIN_HOST = 200
NEXT_PATH = 300
KEY_NAME = 100
USER_NAME = 100
ROLE = 16
TYPE_ID = 100
_SOURCE = re.compile(rf"[a-z0-9._-]{{1,{SOURCE_NAME}}}")
LARGEST_ID = 2**31 - 1
"""The largest number of a row that a person or a script may give."""


def is_source_name(name: str) -> bool:
    """Whether a text can be the name of a source; other texts are not even looked up."""
    return bool(_SOURCE.fullmatch(name))
