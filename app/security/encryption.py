"""Encrypts sensitive data in the database, and hashes what must be found; keys can be rotated.

A box is AES-256-GCM under a key id, bound to its place: table, column and row. In another place it
cannot be read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "v2"
UNBOUND = "v1"
"""The format of older releases: a box was bound to its table and column only."""
NONCE_BYTES = 12
BETWEEN = "\0"
"""Stands between the parts of a place; no text in the database holds it."""


class UnreadableSecret(Exception):
    """Data was encrypted with a key that ENCRYPTION_KEYS does not hold, or was tampered with."""


class DamagedSecret(UnreadableSecret):
    """Our key made the value, but it was changed, or moved to another row, since."""


class NoHashKey(RuntimeError):
    """Something is to be hashed before the hash key was read from the database: a fault in the code."""


def place(purpose: str, *row: str) -> str:
    """The place of a value: `purpose` names table and column, `row` what identifies the row."""
    return BETWEEN.join((purpose, *row))


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
        self._hash_key: bytes | None = None
        self.reads_unbound = True
        """Whether boxes of older releases are read; not any more once `keys rotate` has moved all."""

    @property
    def key_ids(self) -> set[str]:
        """The ids of all listed keys."""
        return set(self._keys)

    @property
    def prefix(self) -> str:
        """The text with which every box of the newest key begins."""
        return f"{PREFIX}.{self.newest}."

    def encrypt(self, text: str, where: str) -> str:
        """Encrypt text; it can only be decrypted in the same place (see `place`)."""
        return self._seal(text, PREFIX, where)

    def encrypt_unbound(self, text: str, purpose: str) -> str:
        """Encrypt text as older releases did, for a database that goes back to one of them."""
        return self._seal(text, UNBOUND, purpose)

    def decrypt(self, box: str, where: str) -> str:
        """Decrypt a box from `encrypt`. Raises UnreadableSecret, which says what to check."""
        purpose = where.partition(BETWEEN)[0]
        try:
            prefix, key_id, payload = box.split(".", 2)
            bound = {PREFIX: where, UNBOUND: purpose}[prefix]
            cipher = self._keys[key_id]
        except (KeyError, ValueError):
            raise UnreadableSecret(
                f"Data in {purpose} cannot be read: ENCRYPTION_KEYS lacks its key."
                " Put that key back at the end of the list."
            ) from None
        if prefix == UNBOUND and not self.reads_unbound:
            raise UnreadableSecret(
                f"Data in {purpose} is in a format that is not accepted any more, since `keys"
                " rotate` has moved all data to the present one: somebody has changed the database,"
                " or restored a part of it. Restore the whole backup."
            )
        try:
            raw = base64.urlsafe_b64decode(payload)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound.encode()).decode()
        except (ValueError, InvalidTag):
            raise DamagedSecret(
                f"Data in {purpose} cannot be read: it was changed, or is from another row of the"
                " database. Restore the row from a backup."
            ) from None

    def use_hash_key(self, key: bytes) -> None:
        """Hash with this key from now on."""
        self._hash_key = key

    def keyed_hash(self, text: str) -> str:
        """Return the hash that stands for a text in the database; only who has the key can make it."""
        if self._hash_key is None:
            raise NoHashKey("the hash key has not been read from the database yet")
        return keyed(self._hash_key, hashlib.sha256(text.encode()).hexdigest())

    def _seal(self, text: str, prefix: str, bound: str) -> str:
        nonce = os.urandom(NONCE_BYTES)
        box = self._keys[self.newest].encrypt(nonce, text.encode(), bound.encode())
        return f"{prefix}.{self.newest}.{base64.urlsafe_b64encode(nonce + box).decode()}"


def keyed(key: bytes, plain_hash: str) -> str:
    """Turn a plain SHA-256, as older releases stored it, into the hash under a key."""
    return hmac.new(key, plain_hash.encode(), hashlib.sha256).hexdigest()


def _derive(key: str, use: str) -> bytes:
    return hashlib.sha256(f"{use}\0{key}".encode()).digest()


def _key_id(key: str) -> str:
    return _derive(key, "id").hex()[:8]
