"""Checks that a webhook comes from meetergo: four schemes, several secrets, constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime

from standardwebhooks.webhooks import Webhook

TOLERANCE = 300
"""Seconds by which a timestamp may differ from now, either way."""


class BadSignature(Exception):
    """The webhook is not signed, or not with a secret that is known here."""


def verify_body(secrets: Iterable[str], header: str | None, body: bytes) -> str:
    """Scheme `body`: `sha256=<hex>` (prefix optional), HMAC-SHA256 of the raw body.

    Like the other schemes, it returns the secret that fits and raises BadSignature if none does.
    """
    return _verify(secrets, header, body)


def verify_timestamped(
    secrets: Iterable[str], header: str | None, timestamp: str | None, body: bytes, now: datetime
) -> str:
    """Scheme `timestamped`: HMAC of `<unix seconds>.<raw body>`, at most 300 s old or ahead."""
    if not timestamp or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise BadSignature("the timestamp is missing or no number")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE:
        raise BadSignature("the timestamp is too old or too far ahead")
    return _verify(secrets, header, timestamp.encode() + b"." + body)


def verify_standard(secrets: Iterable[str], headers: Mapping[str, str], body: bytes) -> str:
    """Scheme `standard-webhooks`, by the reference library.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    for secret in secrets:
        try:
            Webhook(secret).verify(body, dict(headers), json_parse=False)
            return secret
        except Exception:  # nosec B112  # noqa: S112 - the library has five kinds of error
            continue
    raise BadSignature("no known secret matches the signature")


def verify_token(secrets: Iterable[str], token: str | None) -> str:
    """Scheme `url-token`: the last part of the path is one of the secrets."""
    return _the_one([(secret, secret) for secret in secrets], token or "")


def sign_body(secret: str, body: bytes) -> str:
    """The value that a sender puts into the header under scheme `body`."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _verify(secrets: Iterable[str], header: str | None, message: bytes) -> str:
    given = (header or "").strip().removeprefix("sha256=").lower()
    digests = [(s, hmac.new(s.encode(), message, hashlib.sha256).hexdigest()) for s in secrets]
    return _the_one(digests, given)


def _the_one(expected: list[tuple[str, str]], given: str) -> str:
    """The secret whose text was given. All are compared, so the time does not reveal which."""
    sent = given.encode("utf-8", "replace")
    fits = [secret for secret, text in expected if hmac.compare_digest(sent, text.encode())]
    if not fits:
        raise BadSignature("no secret fits")
    return fits[0]
