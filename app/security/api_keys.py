"""API keys: shown once, stored as a hash; a key signs in a person, and a script too."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "mcb_"


def new_key() -> str:
    """A fresh key with 192 random bits."""
    return PREFIX + secrets.token_urlsafe(24)


def key_hash(key: str) -> str:
    """The stored form of a key. A plain hash is enough for 192 random bits."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
