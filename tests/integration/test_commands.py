"""Every command of `bridge`: its help, its JSON, its exit codes; no id is ever cut."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from app.cli.command import Command
from app.cli.later import Later
from app.cli.tree import make_root
from app.store.cause_models import CauseRow
from app.store.engine import utcnow
from config.version import VERSION
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import DATA, KEY, Bridge, sample

ROOT = Path(__file__).parent.parent.parent
BOOKING = f"default:{sample('booking_created')['id']}"
FILE = str(ROOT / "config/mappings/hubspot.yaml")
LONGEST_LINE = 65
CAUSE = "5d3fa81c09b2e7a4"
"""A cause that no booking has any more."""
COMMANDS = {
    "check": "", "doctor": "", "sweep": "", "version": "",
    "sources add": "berlin", "sources list": "", "sources change": "berlin --company c1",
    "sources end": "berlin", "secrets add": "", "secrets list": "", "secrets end": "SECRET",
    "webhooks register": "", "webhooks list": "", "webhooks remove": "",
    "backfill": "--since 2026-11-01", "reconcile": "",
    "connections list": "", "connections refresh": "1",
    "mappings check": "", "mappings preview": f"hubspot --booking {BOOKING}",
    "mappings diff": f"{FILE} {FILE}", "mappings questions": "", "mappings schema": "",
    "mappings versions": "HUBSPOT",
    "bookings list": "--search jane", "bookings show": BOOKING, "bookings outcome": f"{BOOKING} held",
    "deliveries list": "--state synced", "deliveries retry": "--all",
    "causes list": "", "causes show": CAUSE, "causes retry": f"{CAUSE} --plan",
    "causes ignore": CAUSE,
    "events list": "", "events show": "1", "events replay": "1",
    "export": "--email jane.van.der.berg@example.com", "retention show": "", "retention run": "",
    "users create": "--email anna@example.com --role admin", "users list": "",
    "users set-role": "anna@example.com sales", "users reset-password": "anna@example.com",
    "users disable": "anna@example.com", "users enable": "anna@example.com",
    "users remove": "anna@example.com",
    "keys create": "anna", "keys list": "", "keys revoke": "anna", "keys rotate": "",
    "db current": "", "db upgrade": "", "db downgrade": "NEWEST --yes",
    "erase": "--email nobody@example.com --yes",
    "connections add-token": "hubspot", "connections disconnect": "1 --parked keep",
}  # fmt: skip
"""Each command with arguments, in an order in which each one finds something to do."""
FINDS_FAULT = {
    "check", "doctor", "sweep", "causes retry", "deliveries retry", "connections add-token",
}  # fmt: skip
"""These end with 1 here: no settings, no worker, no Redis, no failed delivery, no such key."""
WRONG = [
    ("keys revoke nobody", 1), ("bookings list --state zebra", 2), ("bookings list --search a", 2), ("bookings show nope", 1), ("bookings outcome nope held", 1),
    ("deliveries retry 9999", 1), ("causes show nope", 1), ("causes ignore nope", 1),
    ("causes retry nope", 1), (f"causes retry {CAUSE} --plan --stop", 2), ("events show 99", 1), ("events replay 99", 1),
    ("events replay --since 2099-01-01", 1), ("connections refresh 99", 1),
    ("doctor --connection 99", 1), ("mappings preview zoho", 1), ("mappings versions zoho", 1),
    ("mappings versions hubspot --diff abcd1234", 1), ("sources end paris", 1),
    ("secrets end 00000000", 1), ("webhooks remove", 1), ("db downgrade 0000", 1),
    ("users set-role nobody@example.com sales", 1), ("users create --email x --role admin", 1),
    ("users create --email x@example.com --role boss", 2), ("keys create", 2), ("deliveries retry", 2), ("deliveries list --state lost", 2),
    ("deliveries list --limit 0", 2), ("events replay", 2), ("events show x", 2),
    ("backfill --since tomorrowish", 2), ("mappings check --provision", 2),
    ("mappings preview hubspot", 2), ("sources change default", 2), ("version --nope", 2),
    ("bookings outcome nope maybe", 2),
]  # fmt: skip


def walk(group: click.Group, path: str = "") -> Iterator[tuple[str, Command]]:
    for name, item in group.commands.items():
        if isinstance(item, click.Group):
            yield from walk(item, f"{path}{name} ")
        else:
            assert isinstance(item, Command), f"{path}{name}"
            yield f"{path}{name}", item


TREE = dict(walk(make_root()))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A service with one CRM, one booking, and meetergo, for all tests of this file."""
    yield from serve(tmp_path_factory.mktemp("small"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bridge]:
    """The same for one test, which may change it."""
    yield from serve(tmp_path)


def serve(folder: Path) -> Iterator[Bridge]:
    meetergo = Served(MeetergoSandbox())
    url = f"sqlite:///{folder}/bridge.sqlite3"
    made = Bridge(
        url, ("hubspot",), meetergo_api_base=meetergo.url, meetergo_api_key=API_KEY,
        meetergo_api_user_id="u1",
    ).connect_all()  # fmt: skip
    made.sync(sample("booking_created"))
    with made.services.store.write() as session:
        times = {"first_seen": utcnow(), "last_seen": utcnow(), "mended_at": utcnow()}
        session.add(CauseRow(key=CAUSE, connection_id=1, error_code="conflict", reason="",
                             object="", field="", **times))  # fmt: skip
    made.services.settings.public_url = "https://bridge.example"
    yield made
    made.close()
    meetergo.stop()


def run(small: Bridge, words: str, columns: int | None = None, given: str | None = None) -> Result:
    """Run `bridge` on a service."""
    newest = small.services.store.schema.state().code
    secrets = small.services.intake.secrets.views("default", ())
    fingerprint = secrets[0].fingerprint if secrets else "SECRET"
    words = words.replace("NEWEST", newest).replace("SECRET", fingerprint)
    runner = CliRunner(env={"COLUMNS": str(columns)} if columns else {"COLUMNS": None})
    later = Later(small.services, prepared=True)
    return runner.invoke(make_root(), shlex.split(words), obj=later, input=given)


def test_each_command_has_a_help_with_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-h shows an example that the command itself accepts, and --json; its line in a list is short."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mappings").mkdir()
    for name in ("draft.yaml", "payload.json", "mappings/hubspot.yaml"):
        (tmp_path / name).touch()
    for path, item in TREE.items():
        shown = CliRunner().invoke(make_root(), [*path.split(), "-h"]).output
        assert f"Example:\n    {item.example}\n" in shown and "--json" in shown, path
        words = shlex.split(re.split("[<>]", item.example)[0])
        own = ["bridge", *path.split()]
        assert words[: len(own)] == own
        item.make_context(path, words[len(own) :])
        assert 0 < len(item.get_short_help_str()) <= LONGEST_LINE, path


def test_the_help_has_one_line_for_each_command() -> None:
    """`bridge --help` groups the commands; -h is the same; --version shows the version."""
    runner, root = CliRunner(), make_root()
    shown = runner.invoke(root, ["--help"]).output
    assert runner.invoke(root, ["-h"]).output == shown
    for name in root.commands:
        assert re.search(rf"^  {name} +[A-Za-z]", shown, re.M), name
    assert "Bookings:\n  bookings" in shown and "..." not in shown.partition("Options:")[2]
    assert runner.invoke(root, ["--version"]).output == f"bridge {VERSION}\n"


def test_each_command_is_tried_and_documented() -> None:
    """COMMANDS and docs/commands.md name each command of the tree, and no other."""
    assert set(COMMANDS) == set(TREE)
    page = (ROOT / "docs/commands.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.M)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(TREE)


def test_each_command_prints_json(own: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json, stdout is one document; the exit code is 0, or 1 with an error on stderr."""
    for variable in ("SECRET_KEY", "ENCRYPTION_KEYS"):
        monkeypatch.delenv(variable, raising=False)
    for path, words in COMMANDS.items():
        told = run(own, f"{path} {words} --json", given="x\n")
        # Whether anything is due yet when it looks, the clock decides.
        codes = {int(path in FINDS_FAULT)} | ({0} if path == "sweep" else set())
        assert told.exit_code in codes, (path, told.output)
        if told.exit_code:
            assert json.loads(told.stderr.splitlines()[-1])["error"], path
        if told.exit_code == 0 or path in (
            "check", "doctor", "causes retry", "deliveries retry",
        ):  # fmt: skip
            assert isinstance(json.loads(told.stdout), dict | list), path
        else:
            assert told.stdout == "", path


@pytest.mark.parametrize(("words", "code"), WRONG)
def test_what_cannot_be_done_ends_with_its_code(small: Bridge, words: str, code: int) -> None:
    """1 where nothing was done and 2 for wrong usage: a sentence, and with --json an object."""
    plain, as_json = run(small, words), run(small, f"{words} --json")
    assert (plain.exit_code, as_json.exit_code) == (code, code), plain.output
    error = json.loads(as_json.stderr.splitlines()[-1])["error"]
    assert f"Error: {error}" in plain.stderr and plain.stdout == ""
    assert error[0].isupper() or error.startswith(("'", "meetergo", "--")), error
    assert error.endswith("."), error


@pytest.mark.parametrize("columns", [20, 60, 90, None])
@pytest.mark.parametrize("path", ["deliveries list", "events list", "webhooks list"])
def test_nothing_is_cut(small: Bridge, path: str, columns: int | None) -> None:
    """Ids, keys and addresses stand whole in the output of any width; in a pipe a row is a line."""
    run(small, "webhooks register")
    words = f"{path} {COMMANDS[path]}"
    told = run(small, words, columns).stdout
    (_, items) = json.loads(run(small, f"{words} --json").stdout).popitem()
    assert items and "…" not in told
    for item in items:
        shown = (item.get(key) for key in ("id", "booking", "address"))
        assert all(str(value) in told for value in shown if value), told
    if columns is None:
        assert len(told.splitlines()) == len(items) + 4
    run(small, "webhooks remove")


def start(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with these variables and no other settings."""
    places = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=folder, env={**places, **environment}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_what_a_newcomer_tries_needs_no_settings(tmp_path: Path) -> None:
    """The script runs in any folder without settings; `python -m` and `flask --app` do the same."""
    (tmp_path / "app").mkdir()
    bridge, payload = str(ROOT / "bin/bridge"), str(DATA / "booking_created.json")
    assert start(tmp_path, bridge, "--version").stdout == f"bridge {VERSION}\n"
    schema = start(tmp_path, bridge, "mappings", "schema")
    assert schema.returncode == 0 and "$schema" in json.loads(schema.stdout)
    flask = (sys.executable, "-m", "flask", "--app", "app", "mappings", "schema")
    module = (sys.executable, "-m", "app.cli", "mappings", "schema")
    for words in (flask, module):
        assert start(ROOT, *words).stdout == schema.stdout
    previewed = start(tmp_path, bridge, "mappings", "preview", "hubspot", payload)
    assert previewed.returncode == 0 and BOOKING in previewed.stdout
    assert previewed.stderr.startswith("Note: this works without your bookings and accounts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app"]
    keys = start(tmp_path, bridge, "keys", "list", "--json")
    assert keys.returncode == 1 and "SECRET_KEY is not set" in json.loads(keys.stderr)["error"]


def test_check_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` finds wrong settings, mistakes in mapping files and a database that is away."""
    (tmp_path / "hubspot.yaml").write_text("version: 1\ncrm: hubspot\nowner: 5\n")
    for name in ("pipedrive", "salesforce"):
        (tmp_path / f"{name}.yaml").write_bytes(
            (ROOT / f"config/mappings/{name}.yaml").read_bytes()
        )
    variables = {
        "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "MAPPINGS_DIR": str(tmp_path),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = CliRunner().invoke(make_root(), ["check"])
    assert told.exit_code == 1 and "hubspot.yaml:3" in told.stdout
    assert "✗ database" in told.stdout and "✓ mappings · salesforce.yaml" in told.stdout
    assert "Error: 2 things to fix." in told.stderr
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.sqlite3")
    (tmp_path / "hubspot.yaml").write_bytes((ROOT / "config/mappings/hubspot.yaml").read_bytes())
    told = CliRunner().invoke(make_root(), ["check"])
    assert told.exit_code == 0 and "db upgrade" in told.stdout, told.output
    monkeypatch.setenv("LOG_LEVEL", "verbose")
    told = CliRunner().invoke(make_root(), ["check", "--json"])
    found = json.loads(told.stdout)["findings"]
    assert told.exit_code == 1 and "LOG_LEVEL" in found[0]["detail"]
