"""Four ready-made accounts for each CRM: plain, poor, strict and full-grown."""

from __future__ import annotations

from typing import Any

from sandbox.serve import load_sandbox

KINDS = ("plain", "poor", "strict", "full-grown")


def kinds_of(crm: str) -> list[str]:
    """The kinds of KINDS that the sandbox of a CRM has."""
    there = {"plain", *load_sandbox(crm).dresses}
    return [kind for kind in KINDS if kind in there]


def dress(sandbox: Any, kind: str) -> None:
    """Make an account what `kind` of KINDS says, before it is connected. Raises KeyError for others.

    plain: as a new sandbox is. poor: the smallest edition with the least rights; what the mapping
    files that come with the service write is there, everything else is missing. strict: rules of the
    admin for what no file of ours writes badly. full-grown: many of everything.
    """
    if kind != "plain":
        sandbox.dresses[kind](sandbox)
