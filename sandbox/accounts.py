"""Four ready-made accounts for each CRM: plain, poor, strict and full-grown."""

from __future__ import annotations

from typing import Any

from sandbox.serve import load_sandbox

KINDS = ("plain", "poor", "strict", "full-grown")


def kinds_of(crm: str) -> list[str]:
    """Return the KINDS that the sandbox of a CRM supports."""
    there = {"plain", *load_sandbox(crm).dresses}
    return [kind for kind in KINDS if kind in there]


def dress(sandbox: Any, kind: str) -> None:
    """Make an account one of KINDS before it is connected. Raises KeyError for other kinds.

    plain: a new sandbox. poor: the smallest edition with the fewest rights; it has what the shipped
    mapping files write, and nothing else. strict: admin rules that our files never break.
    full-grown: many of everything.
    """
    if kind != "plain":
        sandbox.dresses[kind](sandbox)
