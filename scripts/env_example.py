"""Prints .env.example, cut from the settings: `make env-example` writes it, a test compares it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from config.providers import load_providers
from config.settings import Listening, Observing, Settings

ROOT = Path(__file__).parent.parent
HEAD = """\
# Settings of the service: copy this file to .env and fill it in. `make env-example` makes it from
# config/settings.py; docs/settings.md says more. One variable a line, no comment behind a value: systemd,
# Compose, flask and honcho all read this file. A variable behind a # has the value that is shown.
"""
CRM_APPS = """\
# The apps at the CRMs, for those that you connect with OAuth.
"""
COMPOSE = """\
# Only for compose.yaml, which makes DATABASE_URL and REDIS_URL of them: letters, digits, - and _.
#POSTGRES_PASSWORD=
#VALKEY_PASSWORD=
"""


def text() -> str:
    """Return the content of .env.example."""
    entries = load_providers(ROOT / "config/providers.yaml", {})
    apps = [f"#{name.upper()}_CLIENT_{part}=" for name in entries for part in ("ID", "SECRET")]
    variables = [text for kind in (Settings, Listening, Observing) for text in _variables(kind)]
    return "\n".join([HEAD, *variables, CRM_APPS + "\n".join(apps) + "\n", COMPOSE])


def _variables(kind: type[BaseSettings]) -> Iterator[str]:
    """Give each variable with its sentences; those without a default first."""
    fields = kind.model_fields
    for name in sorted(fields, key=lambda name: not fields[name].is_required()):
        field = fields[name]
        words = " ".join((field.description or "").split()).replace("`", "")
        mark = "" if field.is_required() else "#"
        yield textwrap.fill(words, 104, initial_indent="# ", subsequent_indent="# ") + (
            f"\n{mark}{name.upper()}={_default(field)}\n"
        )


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None:
        return ""
    if isinstance(value, Path):
        return str(value.relative_to(ROOT))
    return str(value.value if isinstance(value, Enum) else value)


if __name__ == "__main__":
    sys.stdout.write(text())
