"""Webhook secrets are added and ended without one refused webhook; each shows its end and its last
use.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from app.services import secrets as secrets_module
from app.services.secrets import make_secret
from app.store.access_models import WebhookSecret
from app.store.boxes import seal
from config.settings import SignatureScheme
from tests.bridge import PROVIDERS, SECRET, Bridge, sample, wait_for


@pytest.fixture
def crm(tmp_path: Path) -> Iterator[Bridge]:
    """The service without a CRM."""
    made = Bridge(f"sqlite:///{tmp_path}/a.sqlite3", PROVIDERS[:1])
    yield made
    made.close()


@pytest.mark.long
def test_three_rotations_under_load(crm: Bridge) -> None:
    """Twenty posts a second are all accepted while secrets are added and old ones end."""
    secrets, refused, posted, over = [SECRET], [], [], threading.Event()

    def send() -> None:
        while not over.is_set():
            answer = crm.post(sample("booking_created", id=str(len(posted))), secret=secrets[-1])
            posted.append(answer.status_code)
            refused.extend([answer.status_code] if answer.status_code != 202 else [])
            over.wait(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(3):
        made = crm.services.intake.secrets.add("default", None, timedelta(seconds=1))
        secrets.append(made)
        enough = len(posted) + 24  # more than a second, so that the old secret has ended
        wait_for(lambda enough=enough: len(posted) >= enough)
    over.set()
    sender.join()
    assert refused == [] and len(posted) > 40
    for old in secrets[1:-1]:
        crm.services.intake.secrets.of("default", anew=True)
        assert crm.post(sample("booking_created", id="late"), secret=old).status_code == 401


def test_a_new_secret_counts_at_once(crm: Bridge) -> None:
    """A new secret counts at once, also in a process that has just cached the old ones."""
    assert crm.post(sample("booking_created"), secret="brand-new-secret-1").status_code == 401
    other = secrets_module.WebhookSecrets(crm.services.store, crm.services.cipher)
    other.add("default", "brand-new-secret-1")
    assert crm.post(sample("booking_created"), secret="brand-new-secret-1").status_code == 202


def test_a_made_secret_fits_its_scheme(tmp_path: Path) -> None:
    """A standard-webhooks secret is whsec_ and Base64, and signs webhooks; a weaker one is refused."""
    first = make_secret(SignatureScheme.STANDARD_WEBHOOKS)
    web = Bridge(
        f"sqlite:///{tmp_path}/a.sqlite3", (), meetergo_signature_scheme="standard-webhooks",
        meetergo_webhook_secrets=first,
    )  # fmt: skip
    runner, now = web.app.test_cli_runner(), datetime.now(UTC)
    for number in range(8):  # one in four had wrong padding
        made = runner.invoke(args=["secrets", "add"]).output.strip()
        assert made.startswith("whsec_")
        body = json.dumps(sample("booking_created", id=str(number))).encode()
        headers = {
            "webhook-id": f"m{number}",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(made).sign(f"m{number}", now, body.decode()),
        }
        assert web.post(body, headers=headers).json["status"] == "accepted"
    for weak in ("whsec_YWI=", "AB-_" * 10, "short", "whsec_" + "A" * 44, "whsec_é"):
        refused = runner.invoke(args=["secrets", "add", "--stdin"], input=f"{weak}\n")
        assert refused.exit_code == 1 and "The secret" in refused.output, weak
    web.close()


def test_doctor_names_a_weak_secret_of_the_database(crm: Bridge) -> None:
    """doctor names a weak secret from before the limit by its fingerprint."""
    row = WebhookSecret(source="default", created_at=secrets_module.utcnow())
    column = WebhookSecret.secret_encrypted
    row.secret_encrypted = seal(crm.services.cipher, column, row, "aaaaaaaaaaaaaaaaaaaa")
    with crm.services.store.write() as session:
        session.add(row)
    shown = crm.app.test_cli_runner().invoke(args=["doctor"], env={"COLUMNS": "200"}).output
    weak = secrets_module.fingerprint("aaaaaaaaaaaaaaaaaaaa")
    assert f"{weak} of source default is one character repeated" in " ".join(shown.split())


def test_secrets_by_the_command_line(crm: Bridge) -> None:
    """Secrets are added, listed by fingerprint and last use, and ended; the secret itself is shown
    once.
    """
    runner = crm.app.test_cli_runner()
    made = runner.invoke(args=["secrets", "add"]).output.strip()
    assert crm.post(sample("booking_created"), secret=made).status_code == 202
    shown = runner.invoke(args=["secrets", "list"], env={"COLUMNS": "200"}).output
    assert made not in shown and SECRET not in shown
    token = secrets_module.fingerprint(made)
    (line,) = [row for row in shown.splitlines() if token in row]
    assert "database" in line and line.count("20") >= 2
    assert shown.count("environment") == 2
    assert "ends now" in runner.invoke(args=["secrets", "end", token[:8]]).output
    assert crm.post(sample("booking_created", id="2"), secret=made).status_code == 401
    assert runner.invoke(args=["secrets", "end", "nope"]).exit_code == 1
    assert runner.invoke(args=["secrets", "add", "--stdin"], input="short\n").exit_code == 1
