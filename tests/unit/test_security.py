"""Signatures and encryption."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from app.security import signatures
from app.security.encryption import Cipher, UnreadableSecret, place
from tests.bridge import DATA

SECRETS = ("new-secret", "old-secret")
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def mac(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("prefix", ["sha256=", ""])
def test_body_scheme_takes_every_secret(secret: str, prefix: str) -> None:
    """Several secrets are valid at the same time, and the prefix is optional."""
    signatures.verify_body(SECRETS, prefix + mac(secret, b"x"), b"x")


@given(st.text() | st.none())
def test_body_scheme_refuses_everything_else(header: str | None) -> None:
    """Any other header is a bad signature, and never another error."""
    with pytest.raises(signatures.BadSignature):
        signatures.verify_body(SECRETS, header, b"x")


def test_no_secret_means_no_entry() -> None:
    """Without secrets no webhook is authentic."""
    with pytest.raises(signatures.BadSignature):
        signatures.verify_body((), mac("", b"x"), b"x")
    with pytest.raises(signatures.BadSignature):
        signatures.verify_token((), "")


def test_timestamped_scheme() -> None:
    """The timestamp is signed and must be recent."""
    stamp = str(int(NOW.timestamp()) - 299)
    good = mac("old-secret", stamp.encode() + b".x")
    signatures.verify_timestamped(SECRETS, good, stamp, b"x", NOW)
    for bad in (str(int(stamp) - 2), "", None, "soon", "٣", "1" * 13):
        with pytest.raises(signatures.BadSignature):
            header = mac("old-secret", f"{bad}.x".encode())
            signatures.verify_timestamped(SECRETS, header, bad, b"x", NOW)


def test_standard_webhooks_scheme() -> None:
    """A signature by the reference library is accepted."""
    secret = base64.b64encode(b"0123456789abcdef01234567").decode()
    now = datetime.now(UTC)
    sign = Webhook(secret).sign("id1", now, "{}")
    headers = {
        "webhook-id": "id1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign,
    }
    signatures.verify_standard(("AAAA", secret), headers, b"{}")
    with pytest.raises(signatures.BadSignature):
        signatures.verify_standard((secret,), headers, b"{ }")


def test_what_the_javascript_library_signs_is_taken() -> None:
    """A signature that the JavaScript library made with one of our secrets is accepted."""
    signed = json.loads((DATA / "signed" / "javascript.json").read_text(encoding="utf-8"))
    cases = signed["cases"]
    assert any("+" in case["secret"] for case in cases) and any("/" in c["secret"] for c in cases)
    with time_machine.travel(datetime.fromtimestamp(signed["at"], UTC)):
        for number, case in enumerate(cases):
            headers = {
                "webhook-id": case["id"],
                "webhook-timestamp": str(signed["at"]),
                "webhook-signature": case["signature"],
            }
            body, secret = case["body"].encode(), case["secret"]
            other = cases[number - 1]["secret"]
            assert signatures.verify_standard((other, secret), headers, body) == secret
            with pytest.raises(signatures.BadSignature):
                signatures.verify_standard((other,), headers, body)


@given(st.text(), st.text(), st.binary())
def test_malformed_standard_signatures_are_refused(sign: str, stamp: str, body: bytes) -> None:
    """Malformed input is a bad signature here, although the reference library raises an error."""
    headers = {"webhook-id": "i", "webhook-timestamp": stamp, "webhook-signature": sign}
    with pytest.raises(signatures.BadSignature):
        signatures.verify_standard(("c2VjcmV0",), headers, body)


def test_token_scheme() -> None:
    """The token in the address must be one of the secrets."""
    signatures.verify_token(SECRETS, "old-secret")
    for bad in (None, "", "old-secre", "старый"):
        with pytest.raises(signatures.BadSignature):
            signatures.verify_token(SECRETS, bad)


@given(st.text())
def test_encryption_round_trip(text: str) -> None:
    """Data encrypted with an older key can be read; another column or another row is refused."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    where = place("a.b", "1")
    box = Cipher(("old",)).encrypt(text, where)
    assert Cipher(("new", "old")).decrypt(box, where) == text
    with pytest.raises(UnreadableSecret, match="ENCRYPTION_KEYS"):
        Cipher(("new",)).decrypt(box, where)
    for other in (place("c.d", "1"), place("a.b", "2"), place("a.b"), "a.b1"):
        with pytest.raises(UnreadableSecret, match="another row"):
            Cipher(("old",)).decrypt(box, other)


def test_boxes_of_older_releases_are_read_until_they_are_refused() -> None:
    """A box without its row is readable in any row of its column, until the cipher refuses it."""
    cipher = Cipher(("old",))
    box = cipher.encrypt_unbound("text", "a.b")
    assert cipher.decrypt(box, place("a.b", "1")) == "text"
    # A new box does not become an old one by its first letters.
    with pytest.raises(UnreadableSecret):
        cipher.decrypt(
            cipher.encrypt("text", place("a.b", "1")).replace("v2", "v1"), place("a.b", "1")
        )
    cipher.reads_unbound = False
    with pytest.raises(UnreadableSecret, match="not accepted any more"):
        cipher.decrypt(box, place("a.b", "1"))
