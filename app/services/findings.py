"""What an examination finds: one sentence on what is so, one on what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """The result of a check."""

    GOOD = "good"
    NOTE = "note"
    """It works, but a person should know something."""
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """The result of one check, with what it found."""

    subject: str
    check: str
    verdict: Health
    detail: str = ""
    fix: str = ""
