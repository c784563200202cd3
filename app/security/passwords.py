"""Passwords: hashed with argon2id, checked in the same time whether there is an account or not."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

LEAST, MOST = 12, 200
"""Fewest and most characters of a password."""
AT_ONCE = 2
"""Passwords that a process hashes together: each takes 64 MiB for a tenth of a second."""
LONGEST_WAIT = 10.0
_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_turns = BoundedSemaphore(AT_ONCE)


class BusyHashing(Exception):
    """Too many people sign in at the same time; the message says what to do."""


def password_problem(password: str, *names: str) -> str | None:
    """Return what is wrong with a new password, as a sentence; None if it is good.

    Length counts, and no rule asks for certain signs (NIST SP 800-63B, 5.1.1.2). `names`: texts
    that everybody knows of the person, such as the e-mail address.
    """
    if len(password) < LEAST:
        return f"A password has at least {LEAST} characters; this one has {len(password)}."
    if len(password) > MOST:
        return f"A password has at most {MOST} characters."
    if len(set(password)) < 4:
        return "This password repeats a few characters: choose another one."
    if any(password.lower() in (name.lower(), name.lower() * 2) for name in names if name):
        return "The password is your name or address: choose another one."
    return None


def new_password() -> str:
    """A fresh password with 120 random bits, for one use."""
    return secrets.token_urlsafe(15)


def hash_password(password: str) -> str:
    """The stored form of a password. Raises BusyHashing."""
    with _turn():
        return _hasher.hash(password)


def fits(password: str, stored: str | None) -> bool:
    """Whether a password fits its stored form. Without one it takes as long, and is False.

    Raises BusyHashing.
    """
    with _turn():
        try:
            good = _hasher.verify(stored or _nobodys(), password[:MOST])
        except (VerificationError, InvalidHashError):
            return False
    return good and stored is not None and len(password) <= MOST


def is_outdated(stored: str) -> bool:
    """Whether a stored form was made with weaker parameters than those of today."""
    return _hasher.check_needs_rehash(stored)


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe(15))


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=LONGEST_WAIT):
        raise BusyHashing("Many people sign in at this moment. Try again in a minute.")
    try:
        yield
    finally:
        _turns.release()
