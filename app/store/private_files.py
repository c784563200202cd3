"""Files with people's data: only the user of the service may read and write them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

OWNER_ONLY = 0o600
BESIDE = ("", "-wal", "-shm", "-journal", ".lock")
"""Endings of the files of a SQLite database; SQLite gives its own ones the mode of the database:
https://www.sqlite.org/src/file/src/os_unix.c, findCreateFileMode."""


def make_private(path: str) -> None:
    """Make an empty file that its owner alone may read, whatever the umask; leave one that is there.

    An operator may have opened an existing file to a backup; `open_to_others` finds it. What
    prevents the making shows when the file is opened.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, OWNER_ONLY))


def open_to_others(path: str) -> list[str]:
    """Return the files of a SQLite database that other users of the machine may read or write."""
    return [name for name in (f"{path}{end}" for end in BESIDE) if _is_open(Path(name))]


def _is_open(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IRWXG | stat.S_IRWXO))
