"""Finds secrets that are too weak."""

from __future__ import annotations

import base64
import binascii

LEAST_SECRET = 16
"""Fewest characters of a webhook secret."""
LEAST_KEY = 32
"""Fewest characters of SECRET_KEY and of each key of ENCRYPTION_KEYS."""
LEAST_BYTES, MOST_BYTES = 24, 64
"""Fewest and most bytes of a Standard Webhooks secret, decoded.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""
STANDARD_PREFIX = "whsec_"


def weakness(secret: str, least: int) -> str | None:
    """Return the problem with a secret, in words that begin with a verb; None if it is good."""
    if len(secret) < least:
        return f"has {len(secret)} characters and needs at least {least}"
    if len(set(secret)) == 1:
        return "is one character repeated"
    return None


def standard_weakness(secret: str) -> str | None:
    """Return the problem with a secret of the scheme standard-webhooks: `whsec_` and standard Base64."""
    try:
        raw = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return "has no standard Base64 after whsec_ (the alphabet with + and /, padded with =)"
    if not LEAST_BYTES <= len(raw) <= MOST_BYTES:
        return f"has {len(raw)} bytes, decoded, and needs {LEAST_BYTES} to {MOST_BYTES}"
    return "is one byte repeated" if len(set(raw)) == 1 else None
