"""Ends whatever a test run has started, once the run is over: also where it was killed.

Every process of a run has the run's folder as its place for temporary files: in its environment, or, of
a server that writes over that, as its working folder. A guard in a session of its own waits for the run
to end, however it ends, kills what goes by that folder, and removes it. It reads /proc, so only Linux
has it.
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
    """Have what this process and its children start killed when this process is gone."""
    if os.environ.get(RUN) or not PROC.is_dir():
        return  # A process of a run that is guarded already.
    folder = tempfile.mkdtemp(prefix="bridge-run-")
    Path(folder).chmod(0o777)  # PostgreSQL refuses to run as root.
    # The end of the pipe that stays open here until the very end, whatever that is.
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
    """The processes of a run."""
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
    sys.stdin.buffer.read()  # Gives nothing, and returns once nobody holds the other end.
    _end(sys.argv[1])
