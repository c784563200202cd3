"""The files for production agree with each other: image, Compose, units, Procfile, .env.example."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import Listening, SettingsError, load_listening
from config.version import VERSION
from scripts import env_example
from tests.unit.test_docs import ROOT, text

PROCESSES = ("web", "worker", "scheduler")
UNITS = ROOT / "deploy/systemd"
VENV = "/opt/meetergo-bridge/.venv/bin/"


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(text("compose.yaml"))["services"])


def procfile() -> dict[str, list[str]]:
    lines = (line.partition(": ") for line in text("Procfile").splitlines())
    return {name: shlex.split(command) for name, _, command in lines}


def unit(name: str) -> str:
    (path,) = UNITS.glob(f"meetergo-bridge-{name}*.service")
    return path.read_text(encoding="utf-8")


def test_the_example_of_the_variables_is_current() -> None:
    """.env.example is what `make env-example` makes of the settings; a new CRM may be missing."""
    there, made = text(".env.example"), env_example.text()
    app = re.compile(r"^#\w+_CLIENT_(?:ID|SECRET)=\n", re.M)
    assert app.sub("", there) == app.sub("", made), "run: make env-example"
    assert set(app.findall(there)) <= set(app.findall(made)), "run: make env-example"


def test_each_process_has_one_command_everywhere() -> None:
    """Procfile, compose.yaml, image and units start each process with the same command."""
    (image,) = re.findall(r"^CMD (\[.*\])$", text("Dockerfile"), re.M)
    for name, command in procfile().items():
        assert compose()[name].get("command", json.loads(image)) == command
        (line,) = re.findall(r"^ExecStart=(.*)$", unit(name), re.M)
        assert shlex.split(line) == [VENV + command[0], *command[1:]]
    assert set(procfile()) == {"release", *PROCESSES}


@pytest.mark.parametrize("name", PROCESSES)
def test_each_process_is_started_again_alone(name: str) -> None:
    """A process that ends is started again, and no other one with it."""
    assert compose()[name]["restart"] == "always"
    assert "Restart=always" in unit(name)
    assert "StartLimitIntervalSec=0" in unit(name)
    assert not re.search(r"^(Requires|BindsTo)=", unit(name), re.M)


@pytest.mark.parametrize("name", ["release", *PROCESSES])
def test_each_process_runs_with_few_rights(name: str) -> None:
    """The root is read-only, the user is unprivileged and gets no capability."""
    service = compose()[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.findall(r"^USER (.*)$", text("Dockerfile"), re.M) == ["10001:10001"]
    shared = text("deploy/systemd/meetergo-bridge-.service.d/process.conf").splitlines()
    assert {"User=bridge", "ProtectSystem=strict", "CapabilityBoundingSet="} <= set(shared)


def test_only_the_web_process_is_published_and_only_on_this_machine() -> None:
    """No port of the database or of Valkey is open; the proxy reaches web on 127.0.0.1."""
    ports = {name: service["ports"] for name, service in compose().items() if "ports" in service}
    assert ports == {"web": ["127.0.0.1:8000:8000"]}


def test_the_build_sees_only_what_it_copies() -> None:
    """.dockerignore lets through what the Dockerfile copies, and no .env."""
    copied = {
        source
        for line in re.findall(r"^COPY (?!--)(.*)$", text("Dockerfile"), re.M)
        for source in line.split()[:-1]
    }
    let_through = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the units."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed here: systemd-analyze was not found")
    target = tmp_path / "etc/systemd/system"
    shutil.copytree(UNITS, target)
    for name in ("bin/sh", *(VENV[1:] + name for name in ("gunicorn", "python", "flask"))):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(0o755)
    units = [str(path) for path in target.glob("*.service")]
    told = subprocess.run(
        ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *units],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # The folder has our units alone, so systemd's own sysinit.target is missing there.
    lines = [line for line in told.stderr.splitlines() if "sysinit.target" not in line]
    assert [line for line in lines if "meetergo-bridge" in line] == []


def test_both_proxies_keep_secrets_and_monitoring_to_themselves() -> None:
    """nginx replaces the client's X-Forwarded-*; both hide /metrics and log no webhook's address."""
    nginx, caddy = text("deploy/nginx.conf"), text("deploy/Caddyfile")
    for name, value in (("For", "$remote_addr"), ("Proto", "$scheme"), ("Host", "$host")):
        assert f"proxy_set_header X-Forwarded-{name} {value};" in nginx
    assert "$proxy_add_x_forwarded_for" not in nginx
    hooks = nginx.partition("location /webhooks/ {")[2].partition("}")[0]
    assert "access_log off;" in hooks and "error_log /dev/null" in hooks
    assert '"^/webhooks/.*" "/webhooks/[hidden]"' in caddy
    for path in ("/metrics", "/readyz"):
        assert f"location = {path} {{\n        return 404;" in nginx
        assert re.search(rf"@inside path .*{path}\b", caddy)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "127.0.0.1:8000"),
        ({"PORT": "5000"}, "0.0.0.0:5000"),
        ({"WEB_BIND": "127.0.0.1:9000"}, "127.0.0.1:9000"),
        ({"WEB_BIND": "127.0.0.1:9000", "PORT": "5000"}, "127.0.0.1:9000"),
        ({"WEB_BIND": "", "PORT": ""}, "127.0.0.1:8000"),
    ],
)
def test_web_listens_on_this_machine_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str
) -> None:
    """Without a variable only this machine reaches the web process; a platform sets PORT."""
    for name in Listening.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_listening().address == address


@pytest.mark.parametrize("name", ["PORT", "WEB_CONCURRENCY"])
def test_a_wrong_number_is_a_sentence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A wrong value names its variable."""
    monkeypatch.setenv(name, "many")
    with pytest.raises(SettingsError, match=rf"^{name} is not usable: "):
        load_listening()


def test_every_unit_that_the_guide_names_exists() -> None:
    """docs/deploy.md names only units and files that are there."""
    page = text("docs/deploy.md")
    for name in set(re.findall(r"meetergo-bridge-(release|web|worker|scheduler|\w+)\b", page)):
        assert list(UNITS.glob(f"meetergo-bridge-{name}*")), name
    for name in set(re.findall(r"(?<![\w/])(?:deploy|docs|tests)/[\w./-]*\w", page)):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (ROOT / "docs" / target).exists(), target


def test_the_version_is_in_one_place() -> None:
    """pyproject.toml reads the version from config/version.py."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert 'version = {attr = "config.version.VERSION"}' in text("pyproject.toml")
    assert VERSION not in text("pyproject.toml").partition("[tool.ruff]")[0]
