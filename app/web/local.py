"""Whether a request comes from this machine itself, and whether the demo may sign its sender in."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Request

from app.outbound.addresses import LOOPBACK

FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
"""The headers by which a proxy names its client."""


def is_local(asked: Request) -> bool:
    """Whether a program on this machine asks, and not a proxy for somebody else."""
    if any(name in asked.headers for name in FORWARDED):
        return False
    try:
        return ip_address(asked.environ.get("REMOTE_ADDR") or "").is_loopback
    except ValueError:
        return False


def is_demo(asked: Request) -> bool:
    """Whether a browser on this machine asks under a name of this machine.

    A stranger's site whose name leads here (DNS rebinding) asks under its own name.
    """
    if not is_local(asked):
        return False
    try:
        return urlsplit(f"//{asked.host}").hostname in LOOPBACK
    except ValueError:
        return False
