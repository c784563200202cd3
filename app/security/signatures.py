"""Checks that a webhook is meetergo's own: four schemes, several secrets, constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime

from standardwebhooks.webhooks import Webhook

TOLERANCE = 300
"""Seconds that a timestamp may differ from now, either way."""


class BadSignature(Exception):
    """The webhook is not signed, or not with a secret that is known here."""


def verify_body(secrets: Iterable[str], header: str | None, body: bytes) -> None:
    """Scheme `body`: `sha256=<hex>` (prefix optional), HMAC-SHA256 of the raw body."""
    _verify(secrets, header, body)


def verify_timestamped(
    secrets: Iterable[str], header: str | None, timestamp: str | None, body: bytes, now: datetime
) -> None:
    """Scheme `timestamped`: HMAC of `<unix seconds>.<raw body>`, at most 300 s old or ahead."""
    if not timestamp or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise BadSignature("the timestamp is missing or no number")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE:
        raise BadSignature("the timestamp is too old or too far ahead")
    _verify(secrets, header, timestamp.encode() + b"." + body)


def verify_standard(secrets: Iterable[str], headers: Mapping[str, str], body: bytes) -> None:
    """Scheme `standard-webhooks`, by the reference library.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    for secret in secrets:
        try:
            Webhook(secret).verify(body, dict(headers), json_parse=False)
            return
        except Exception:  # noqa: S112 - the library raises five kinds for malformed input
            continue
    raise BadSignature("no secret fits the signature")


def verify_token(secrets: Iterable[str], token: str | None) -> None:
    """Scheme `url-token`: the last part of the path is one of the secrets."""
    given = (token or "").encode()
    # Every secret is compared, so that the time says nothing of which one was near.
    if not any([hmac.compare_digest(given, secret.encode()) for secret in secrets]):
        raise BadSignature("the token in the address is not known")


def sign_body(secret: str, body: bytes) -> str:
    """What a sender puts into the header under scheme `body`."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _verify(secrets: Iterable[str], header: str | None, message: bytes) -> None:
    given = (header or "").strip().removeprefix("sha256=").lower().encode("utf-8", "replace")
    expected = [hmac.new(s.encode(), message, hashlib.sha256).hexdigest() for s in secrets]
    if not any([hmac.compare_digest(given, digest.encode()) for digest in expected]):
        raise BadSignature("no secret fits the signature")
