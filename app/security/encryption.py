"""Encrypts sensitive data in the database: AES-256-GCM under a key id; keys can be rotated."""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "v1"
NONCE_BYTES = 12


class UnreadableSecret(Exception):
    """Data was encrypted with a key that ENCRYPTION_KEYS does not hold, or was tampered with."""


class Cipher:
    """Encrypts with the newest key and decrypts with any key that is still listed."""

    HEAD = len(PREFIX) + 10
    """The number of characters at the start of a box that name its format and its key."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        """Take the keys of ENCRYPTION_KEYS, newest first; raise ValueError if there is none."""
        if not keys:
            raise ValueError("ENCRYPTION_KEYS holds no key")
        self._keys = {_key_id(key): AESGCM(_derive(key, "data")) for key in reversed(keys)}
        self.newest = _key_id(keys[0])
        """Id of the key that encrypts new data."""

    @property
    def key_ids(self) -> set[str]:
        """The ids of all listed keys."""
        return set(self._keys)

    @property
    def prefix(self) -> str:
        """The text with which every box of the newest key begins."""
        return f"{PREFIX}.{self.newest}."

    def encrypt(self, text: str, purpose: str) -> str:
        """Encrypt text; it can only be decrypted for the same purpose (a table and a column)."""
        nonce = os.urandom(NONCE_BYTES)
        box = self._keys[self.newest].encrypt(nonce, text.encode(), purpose.encode())
        return f"{self.prefix}{base64.urlsafe_b64encode(nonce + box).decode()}"

    def decrypt(self, box: str, purpose: str) -> str:
        """Decrypt a box from `encrypt`. Raises UnreadableSecret, which names the variable to check."""
        try:
            prefix, key_id, payload = box.split(".", 2)
            raw = base64.urlsafe_b64decode(payload)
            cipher = self._keys[key_id]
            if prefix != PREFIX:
                raise ValueError(prefix)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], purpose.encode()).decode()
        except (KeyError, ValueError, InvalidTag):
            raise UnreadableSecret(
                f"Data in {purpose} cannot be read: ENCRYPTION_KEYS lacks its key."
                " Put that key back at the end of the list."
            ) from None


def _derive(key: str, use: str) -> bytes:
    return hashlib.sha256(f"{use}\0{key}".encode()).digest()


def _key_id(key: str) -> str:
    return _derive(key, "id").hex()[:8]
