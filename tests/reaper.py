"""Ends everything that a test run has started once the run is over, even if it was killed.

Every process of a run has the run's folder as its temporary folder in its environment, or, for a
server that overwrites its environment, as its working folder. A guard in its own session waits for
the run's end, of whatever kind, kills the processes with this folder, and removes it. It reads
/proc, so it works on Linux only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

RUN = "BRIDGE_TEST_RUN"
PROC = Path("/proc")


def guard() -> None:
    """Start a guard that kills this process's descendants after its end."""
    if os.environ.get(RUN) or not PROC.is_dir():
        return  # This process belongs to a guarded run.
    folder = tempfile.mkdtemp(prefix="bridge-run-")
    Path(folder).chmod(0o777)  # PostgreSQL does not run as root, but as another user.
    # This end of the pipe stays open until this process ends, however it ends.
    reading, writing = os.pipe()
    subprocess.Popen(
        [sys.executable, __file__, folder],
        stdin=reading,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reading)
    os.set_inheritable(writing, False)
    os.environ[RUN] = os.environ["TMPDIR"] = tempfile.tempdir = folder


def left_of(folder: str) -> Iterator[int]:
    """Return the remaining processes of a run."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if _is_of(entry, folder):
                    yield int(entry.name)


def _is_of(process: Path, folder: str) -> bool:
    if f"{RUN}={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
        return True
    return (process / "cwd").readlink().is_relative_to(folder)


def _end(folder: str) -> None:
    while left := list(left_of(folder)):
        for process in left:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()  # Reads nothing, and returns once the other end is closed everywhere.
    _end(sys.argv[1])
